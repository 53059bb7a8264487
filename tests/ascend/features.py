"""What the NPU target does with each feature, found out by doing it: the table in README.md is written by this file.

    python -m tests.ascend.features     writes the table anew

Each feature has a small program. It is compiled for the NPU, and either refused, or run on the shim and compared with
the CPU: results, names and order of the tasks, and, where the policy binds a task to a worker, the workers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pto_wsp import (
    Channel,
    Constexpr,
    DenseDyn,
    Deps,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Pools,
    Ragged,
    ReadyPolicy,
    Scalar,
    Sparse,
    StartPolicy,
    Symbol,
    TaskWindow,
    Tensor,
    Tile,
    TimingPolicy,
    TracePolicy,
    WindowMode,
    combine,
    connect,
    consume,
    kernel,
    process,
    pto,
    ptoisa,
    ptoisa_kernel,
    send,
    sequential,
    slot_load_u64,
    slot_set_u64,
    workload,
)
from pto_wsp.errors import CompileError
from pto_wsp.program import Program
from pto_wsp.scalar_expr import axis, slot_i64, slot_u64, symbol_u64

README = Path(__file__).parents[2] / "README.md"
MODEL = Path(__file__).parent / "pto_model"
BEGIN, END = "<!-- what the NPU target does: written by tests/ascend/features.py -->", "<!-- end -->"
F32, F16, I32 = DType.F32, DType.F16, DType.I32
YES = "emitted; same results, tasks and workers as on the CPU"
FREE = "emitted; same results and tasks as on the CPU; a free worker takes the next one"


# ---- programs --------------------------------------------------------------------------------------------------------


@kernel
def add(x: In[Tile[4, 16, F32]], out: InOut[Tile[4, 16, F32]], by: Scalar[F32], times: Constexpr[int] = 2):
    pto.store(out, out + x * float(times) + by)


@kernel
def multiply(a: In[Tile[16, 32, F16]], b: In[Tile[32, 16, F16]], c: InOut[Tile[16, 16, F32]]):
    pto.store(c, pto.exp(pto.matmul(a, b) * 0.01) + c)


@kernel
def turn(column: In[Tile[4, 1, F32]], row: Out[Tile[1, 4, F32]]):
    pto.store(row, pto.transpose(column))


def reverse_cpu(x: Any, out: Any) -> None:
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[r, c] += x[r, x.shape[1] - 1 - c]


@kernel(cpu=reverse_cpu, cpp_src="""
  for (uint32_t r = 0; r < x.rows; ++r) {
    for (uint32_t c = 0; c < x.cols; ++c) {
      ((__gm__ float *)out.addr)[r * out.rowStride + c] +=
          ((__gm__ float *)x.addr)[r * x.rowStride + x.cols - 1 - c];
    }
  }
""")
def reverse(x: In[Tile[4, 16, F32]], out: InOut[Tile[4, 16, F32]]): ...


@ptoisa_kernel
def shift(x: In[Tile[4, 16, F32]], out: InOut[Tile[4, 16, F32]], by: Scalar[F32]):
    ptoisa.tstore(out, ptoisa.TADD(ptoisa.tload(out), ptoisa.TADDS(ptoisa.tload(x), by)))


class Arrays:
    """The arrays of a program, and the tensors over them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(22)
        self.arrays: list[np.ndarray[Any, Any]] = []
        self.X = self.tensor(rng.standard_normal((42, 16), dtype=np.float32), F32)
        self.OUT = self.tensor(np.zeros((42, 16), np.float32), F32)
        self.A = self.tensor(rng.standard_normal((2, 16, 32)).astype(np.float16), F16)
        self.B = self.tensor(rng.standard_normal((2, 32, 16)).astype(np.float16), F16)
        self.C = self.tensor(np.zeros((16, 16), np.float32), F32)
        self.TURNED = self.tensor(np.zeros((2, 4), np.float32), F32)
        self.NUMBERS = self.tensor(np.array([[3, 1, 2]], np.int32), I32)
        self.start = [a.copy() for a in self.arrays]

    def tensor(self, array: np.ndarray[Any, Any], dtype: DType) -> Tensor:
        self.arrays.append(array)
        return Tensor(array, array.shape, dtype)

    def clear(self) -> None:
        for array, start in zip(self.arrays, self.start, strict=True):
            array[...] = start


def rows(i: Any) -> slice:
    return slice(i * 4, (i + 1) * 4)


def everything(a: Arrays) -> Any:
    """Every kind of loop, choice, argument and kernel."""
    ragged, sparse = Ragged(3, [2, 0, 3]), Sparse(2, [0, 2, 3], [7, 1, 4])

    @workload
    def loops():
        for i in P(DenseDyn(11), names="i"):  # the last tile is partial
            add[i](x=a.X[rows(i)], out=a.OUT[rows(i)], by=Symbol("by"))
        for i, j in P.grid(2, 3):
            add[i, j](x=a.X[rows(i)], out=a.OUT[rows(i + j)], by=i)

    @workload
    def dynamic():
        for b in P.seq(3):
            for j in P.seq(ragged[b], name="j"):
                add[b, j](x=a.X[rows(b)], out=a.OUT[rows(j)], by=j, times=3)
        for r in P.seq(2):
            for e in P.sel(sparse[r]):
                add[r, e](x=a.X[rows(e)], out=a.OUT[rows(r)], by=0.5)
        for e in P.sel([5, 2]):
            add[e, e](x=a.X[rows(e)], out=a.OUT[rows(e)], by=0.5)

    @workload
    def choices():
        for i in P(6, names="i"):
            with P.when((axis("i") % 2 == 0) & (symbol_u64("limit") > axis("i"))):
                add[i](x=a.X[rows(i)], out=a.OUT[rows(i)], by=1.0)
            with P.otherwise():
                add[i, i](x=a.X[rows(i)], out=a.OUT[rows(i)], by=2.0)
        slot_set_u64(1, 4)
        for k in P.seq(3):
            slot_load_u64(0, a.NUMBERS, col=k)
            add[slot_i64(0)](x=a.X[rows(slot_i64(0))], out=a.OUT[rows(slot_u64(1))], by=1.0)

    @workload
    def kernels():
        for k in P.seq(2):
            multiply[k](a=a.A[k], b=a.B[k], c=a.C)
        for k in P(2):
            turn[k](column=a.X[rows(k), k : k + 1], row=a.TURNED[k : k + 1])

    return sequential(loops(), dynamic(), choices(), combine(kernels()))


def results(a: Arrays) -> Any:
    """Tasks that are chosen by what earlier tasks stored."""

    @kernel
    def choose(x: In[Tile[1, 16, F32]], out: Out[Tile[1, 1, I32]]):
        pto.store(out, pto.cast(pto.rowmax(x), I32) + 1)

    @workload
    def chosen():
        for k in P.seq(3):
            choose[k](x=a.X[k : k + 1], out=a.NUMBERS[:, k : k + 1])
            slot_load_u64(0, a.NUMBERS, col=k)
            for i in P(2):
                add[k, i](x=a.X[rows(i)], out=a.OUT[rows(slot_i64(0))], by=1.0)

    return chosen()


def simple(a: Arrays) -> Any:
    @workload
    def simple():
        for i in P(10):
            add[i](x=a.X[rows(i)], out=a.OUT[rows(i)], by=i)
        for i in P.seq(4):
            add[i, i](x=a.X[rows(i)], out=a.OUT[0:4], by=i)

    return simple()


def custom(a: Arrays) -> Any:
    @workload
    def custom():
        for i in P(11):  # the last tile is partial
            reverse[i](x=a.X[rows(i)], out=a.OUT[rows(i)])

    return custom().dispatch(FIRST)


def instructions(a: Arrays) -> Any:
    @workload
    def instructions():
        for i in P(11):
            shift[i](x=a.X[rows(i)], out=a.OUT[rows(i)], by=i)

    return instructions().dispatch(FIRST)


def with_edges(a: Arrays) -> Any:
    @workload
    def with_edges():
        for i in P(10):
            first = add[i](x=a.X[rows(i)], out=a.OUT[rows(i)], by=i)
            add[i, i](x=a.X[rows(i)], out=a.OUT[rows(i)], by=1.0, after=[first])

    return with_edges()


def pipeline(a: Arrays) -> Any:
    channel = Channel("tiles", depth=2)

    @workload
    def one():
        add[0](x=a.X[0:4], out=a.OUT[0:4], by=1.0)

    first = process("first").produces(channel).body(send(channel, one()))
    second = process("second").consumes(channel).body(consume(channel, lambda t: one()))
    return connect([first, second], [channel])


Make = Callable[[Arrays], Any]


def dispatched(policy: DispatchPolicy, **graph: Any) -> Make:
    def make(a: Arrays) -> Any:
        made = simple(a).dispatch(policy)
        return made.task_graph(**graph) if graph else made

    return make


def graphed(**graph: Any) -> Make:
    return dispatched(DispatchPolicy.round_robin(3), **graph)


FIRST = DispatchPolicy.affinity(lambda t: t.params[0] * 3 + 1, 5)
BY_HASH = DispatchPolicy.hash(lambda t: t.params[0], 4)
BY_EXPR = DispatchPolicy.dispatch_by(lambda t: t.params[0] % 2, 3)
STEAL = DispatchPolicy.work_steal(3)

# One program for each group of features that go together.
IN_TURN = graphed(window=TaskWindow(4), deps=Deps.hybrid())
HASHED = dispatched(BY_HASH, window=TaskWindow(2048, "bytes"))
CHOSEN = dispatched(BY_EXPR, window=TaskWindow(6, "entries"))


def in_streams(a: Arrays) -> Any:
    return with_edges(a).streams(2).stream_by(lambda t: t.params[0]).task_graph(deps=Deps.explicit())


FEATURES: list[tuple[str, Make, dict[str, Any]]] = [
    ("`P`, `P.grid`, `P.seq`, `sequential`, `combine`", everything, {}),
    ("`DenseDyn`, `Ragged`, `Sparse` axes, `P.sel`", everything, {}),
    ("`P.when`, `P.otherwise`, symbols, slots", everything, {}),
    ("slots loaded from results of tasks", results, {}),
    ("scalar and constexpr arguments, views, partial tiles, strided vectors", everything, {}),
    ("vector, cube and mixed kernels", everything, {}),
    ("C++ bodies: `@kernel(cpp_src=..., cpu=...)`", custom, {}),
    ("`@ptoisa_kernel`", instructions, {}),
    ("`@ptoisa_kernel` with `ptoisa=\"pto\"`, against a model of PTO-ISA", instructions, {"ptoisa": "pto"}),
    ("`connect`, `process`, channels", pipeline, {}),
    ("`DispatchPolicy.round_robin`", IN_TURN, {}),
    ("`DispatchPolicy.affinity`", everything, {}),
    ("`DispatchPolicy.hash`", HASHED, {}),
    ("`DispatchPolicy.dispatch_by`", CHOSEN, {}),
    ("`DispatchPolicy.work_steal`", dispatched(STEAL), {}),
    ("`DispatchPolicy.work_steal` with `mailboxes=True`", dispatched(STEAL), {"mailboxes": True}),
    ("`streams`, `stream_by`", in_streams, {}),
    ("`TaskWindow` in tasks", IN_TURN, {}),
    ("`TaskWindow` in bytes", HASHED, {}),
    ("`TaskWindow` in entries", CHOSEN, {}),
    ("`WindowMode.BENCHMARK`", graphed(window=TaskWindow(4, mode=WindowMode.BENCHMARK)), {}),
    ("`Deps.explicit`, `after=[...]`", in_streams, {}),
    ("`Deps.infer_...`, `Deps.hybrid`", IN_TURN, {}),
    ("`ReadyPolicy.priority`", graphed(ready=ReadyPolicy.priority(lambda t: t.params[0])), {}),
    ("`ReadyPolicy.work_steal`", graphed(ready=ReadyPolicy.work_steal()), {}),
    ("`Pools.by_exec_unit`", graphed(pools=Pools.by_exec_unit()), {}),
    ("`StartPolicy.threshold`", graphed(start=StartPolicy.threshold(3)), {}),
    ("`TracePolicy.cycles`", graphed(trace=TracePolicy.cycles(lambda t: 5)), {}),
    ("`TimingPolicy.batched`", lambda a: simple(a).timing(TimingPolicy.batched(4)), {}),
    ("`TimingPolicy.interleaved`", lambda a: simple(a).timing(TimingPolicy.interleaved(2)), {}),
    ("`TimingPolicy.rate_limit`", lambda a: simple(a).timing(TimingPolicy.rate_limit(100)), {}),
]  # fmt: skip


# ---- finding out -----------------------------------------------------------------------------------------------------

_done: dict[Any, str] = {}


def outcome(make: Make, options: dict[str, Any]) -> str:
    """What happens: YES, or why it is refused; programs that stand for several features run once."""
    key = make, tuple(options.items())
    if key not in _done:
        _done[key] = found_out(make, options)
    return _done[key]


def found_out(make: Make, options: dict[str, Any]) -> str:
    arrays = Arrays()
    made = make(arrays)
    if make is everything:
        made = made.dispatch(FIRST)
    try:
        npu = made.compile(target="ascend_npu", **options)
    except CompileError as error:
        return "refused: " + error.message.removeprefix("Codegen compilation failed: ")
    cpu = made.compile()
    for program in (cpu, npu):
        set_symbols(program)
    cpu.execute()
    cpu.synchronize()
    want = [a.copy() for a in arrays.arrays]
    timeline = cpu.timeline()
    arrays.clear()
    ran = npu.run_on_host(include=[MODEL] if "ptoisa" in options else [])
    for have, result in zip(arrays.arrays, want, strict=True):
        np.testing.assert_allclose(have, result, rtol=1e-4, atol=1e-5)
    assert [ran.task(i) for i in range(len(ran))] == [span.name for span in timeline]
    window = cpu.schedule.window
    assert not window or cpu.schedule.unit != "tasks" or ran.largest_round <= window
    if not cpu.schedule.bound:
        return FREE
    np.testing.assert_array_equal(ran.target, timeline.worker)
    return YES


def set_symbols(program: Program) -> None:
    for name, value in (("limit", 3),):
        if name in program._symbol_names:
            program.set_symbol_u64(name, value)
    if "by" in program._symbol_names:
        program.set_symbol_f32("by", 0.25)


def table() -> str:
    """The rows of the table, in Markdown."""
    lines = ["| feature | on the NPU |", "| --- | --- |"]
    for name, make, options in FEATURES:
        lines.append(f"| {name} | {outcome(make, options)} |")
    return "\n".join(lines)


def in_readme() -> str:
    """The table that README.md has."""
    found = re.search(re.escape(BEGIN) + r"\n(.*?)\n" + re.escape(END), README.read_text(), re.S)
    assert found, f"README.md has no part between {BEGIN!r} and {END!r}"
    return found[1]


if __name__ == "__main__":
    text = README.read_text()
    before, rest = text.split(BEGIN + "\n")
    after = rest.split("\n" + END, 1)[1]
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")
    sys.stdout.write(f"{len(FEATURES)} rows\n")
