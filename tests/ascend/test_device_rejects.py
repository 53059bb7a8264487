"""What the shim says of task generators and workers that are wrong: one change of the sources for each check."""

from __future__ import annotations

import numpy as np
import pytest

from pto_wsp import DispatchPolicy, DType, In, InOut, Out, P, Scalar, Tensor, Tile, kernel, pto, workload
from pto_wsp.ascend.build import ShimError
from tests.ascend.device import Expanders, Inputs, Refused
from tests.ascend.test_expander import made

I32 = DType.I32
TABLE, FEEDER, WORKER = "aicpu/task_table.h", "aicpu/mailboxes.h", "aicore/worker.inc"
EXPAND = "aicpu/expand.aicpu"


@kernel
def add(x: InOut[Tile[4, 8, I32]], k: Scalar[I32]):
    pto.store(x, x + k)


@kernel
def copy(x: In[Tile[4, 8, I32]], out: Out[Tile[4, 8, I32]]):
    pto.store(out, x + x)


def program(mailboxes: bool):
    x, y = (Tensor(np.ones((2, 4, 8), np.int32), (2, 4, 8), I32) for _ in "xy")

    @workload
    def chained():
        for i in P(2):
            add[i](x=x[i], k=1)
        for i in P(2):
            copy[i](x=x[i], out=y[1 - i])
        for i in P(2):
            add[i](x=x[i], k=2)
            add[i](x=y[i], k=2)

    return made(chained().dispatch(DispatchPolicy.round_robin(3)), mailboxes=mailboxes)


NO_EDGES = (TABLE, "[&](uint32_t point) { order_.After(point); });", "[&](uint32_t) {});")
NO_BOUNDS = (TABLE, "dim.start < std::max<int64_t>(dim.low, 0) || dim.start > last)", "dim.start > last + 99)")
UNORDERED = "nothing orders the two"
NO_END = (TABLE, "std::min(dim.most, end - dim.start)", "dim.most")
WRONG = {
    # name: (mailboxes, changes, what the shim or the generator says)
    "no data edges": (False, [NO_EDGES], UNORDERED),
    "levels without a barrier": (False, [(WORKER, "AscendC::SyncAll();", "")], UNORDERED),
    "report left in the cache": (
        False,
        [(WORKER, "line.SetValue(3, static_cast<uint64_t>(1));\n  AscendC::DataCacheCleanAndInvalid<uint64_t,\n"
                  "                                    AscendC::CacheLine::SINGLE_CACHE_LINE,\n"
                  "                                    AscendC::DcciDst::CACHELINE_OUT>(line);",
          "line.SetValue(3, static_cast<uint64_t>(1));")],
        "DataCacheCleanAndInvalid is missing",
    ),
    "two workers report in one line": (
        False, [(WORKER, "(__gm__ uint64_t *)record,", "(__gm__ uint64_t *)record - record->runs * 0 - me8(record),"),
                (WORKER, "// When a task ran", "__aicore__ inline int me8(__gm__ plan::Record *r) {\n"
                         "  return ((uint64_t)r / 64 % 2 == 0) ? 0 : 4;\n}\n// When a task ran")],
        "64-byte line",
    ),
    "a table that overflows": (
        False, [(TABLE, "if (rows_ == plan_->maxTasks) {", "if (rows_ == plan_->maxTasks + 1) {")],
        "wrote to byte .* of GM allocation",
    ),
    "no bounds": (
        False, [NO_BOUNDS, NO_END, (EXPAND, "{At(1 - h)", "{At(2 - h)")], "GM allocation|reaches|outside"
    ),
    "a bad header": (
        False, [("driver.h", "p->version = plan::kVersion;", "p->version = plan::kVersion + 1;")], "BadHeader"
    ),
    "mailboxes: no data edges": (True, [NO_EDGES], UNORDERED),
    "mailboxes: told too early": (
        True, [(WORKER, "const int64_t begin =", "Tell(&box->done[0], go);\n    const int64_t begin =")], UNORDERED
    ),
    "mailboxes: nobody goes home": (
        True, [(FEEDER, "boxes_[w].go.word = plan::kStop;", "boxes_[w].go.word += 0;")], "deadlock: the core looks"
    ),
    "mailboxes: a worker that does not answer": (
        True, [(WORKER, "Tell(&box->done[0], go);", "Tell(&box->done[0], go + 1);")], "deadlock: the control CPU waits"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def compiled():
    emissions = [program(False), program(True), *(program(mailboxes) for mailboxes, _, _ in WRONG.values())]
    return Expanders(emissions, [[], [], *(changes for _, changes, _ in WRONG.values())], workers=True)


@pytest.mark.parametrize("mailboxes", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_right_one_runs(compiled, mailboxes, workers):
    passes = compiled.run(int(mailboxes), workers=workers, table=5)
    assert [len(part) for part in passes] == [5, 3]


@pytest.mark.parametrize("name", WRONG)
def test_the_shim_finds(compiled, name):
    table = 7 if name == "a table that overflows" else 64
    with pytest.raises((ShimError, Refused), match=WRONG[name][2]):
        compiled.run(2 + list(WRONG).index(name), Inputs(), workers=3, table=table)
