"""The emitted task generator on this machine, next to the simulator's expansion.

Expanders(emissions)   several task generators, compiled into one program; `run` gives the tasks that one of them makes
expected(emission)     the same tasks as the simulator expands them, with levels from a slow plain oracle
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pto_wsp.ascend import expander, host, plan, worker
from pto_wsp.ascend.build import build
from pto_wsp.ascend.emission import Emission
from pto_wsp.lower.expand import expand
from pto_wsp.lower.tasks import ENTER_SEQUENTIAL, EXIT, FORGET, TILE_WORDS
from pto_wsp.types import Sparse

Change = tuple[str, str, str]
DRIVER = (Path(__file__).parent / "device_driver.h").read_text()


@dataclass(frozen=True)
class Tile:
    """Offset and strides in elements; strides count where there is more than one row or column."""

    tensor: int
    offset: int
    row_stride: int
    col_stride: int
    rows: int
    cols: int


@dataclass(frozen=True)
class Task:
    call: int
    kernel: int
    target: int
    level: int
    tiles: tuple[Tile, ...]
    axes: tuple[int, ...]
    scalars: tuple[int, ...]
    round: int = field(default=0, compare=False)


@dataclass
class Inputs:
    """What a run is given, by number."""

    sizes: Sequence[int] | None = None
    symbols: Mapping[str, int] = field(default_factory=dict)
    arrays: Sequence[np.ndarray] | None = None

    def arrays_of(self, e: Emission) -> list[np.ndarray]:
        return list(self.arrays) if self.arrays is not None else [t.tensor.array() for t in e.tensors]

    def sizes_of(self, e: Emission) -> list[int]:
        return list(self.sizes) if self.sizes is not None else [s.default for s in e.sizes]


class Refused(Exception):
    """The task generator has reported an error: its name, the task, and where."""

    def __init__(self, error: str, task: int, call: int, operand: int, dimension: int, found: int) -> None:
        super().__init__(f"{error} at task {task}: call {call}, operand {operand}, dimension {dimension}: {found}")
        self.error, self.task, self.call, self.operand, self.found = error, task, call, operand, found


class Expanders:
    """Task generators in one program: each has its own copy of plan.h and task_table.h, under names of its own.

    changes  per emission: (path, text, other text), what to change in its sources
    workers  the workers run the tasks, too
    """

    def __init__(
        self, emissions: Sequence[Emission], changes: Sequence[Sequence[Change]] = (), workers: bool = False
    ) -> None:
        self.emissions = list(emissions)
        sources: dict[str, str] = {}
        cases = []
        fixed = {path: text for path, text in host.fixed().items() if path.startswith("aicpu/")}
        for k, e in enumerate(self.emissions):
            texts = {
                "include/plan.h": plan.plan_h(e),
                **fixed,
                "aicpu/expand.aicpu": expander.expand_aicpu(e),
                "driver.h": DRIVER,
            }
            unit = '#include "aicpu/expand.aicpu"\n' + _constants(e) + '#include "driver.h"\n'
            if workers:
                texts |= {"aicore/worker.inc": worker.worker_asc(e)} | {x.header: x.source.header for x in e.kernels}
                unit = '#include "aicore/worker.inc"\n#define WORKER worker\n' + unit
            for path, old, new in changes[k] if changes else ():
                assert texts[path].count(old) == 1, (path, old)
                texts[path] = texts[path].replace(old, new)
            for path, text in [*texts.items(), ("unit.cpp", unit)]:
                sources[f"p{k}/{path}"] = _renamed(text, k)
            cases.append(f"    case {k}: return p{k}::Drive(argv[2]);")
        declared = "".join(f"namespace p{k} {{ int Drive(const char *path); }}\n" for k in range(len(cases)))
        main = ["int main(int, char **argv) {", "  switch (std::atoi(argv[1])) {", *cases, "  }", "  return 3;", "}"]
        sources["main.cpp"] = "#include <cstdlib>\n" + declared + "\n".join(main) + "\n"
        self.program = build({k: v for k, v in sources.items() if not k.endswith(".aicpu")} | {
            k.replace(".aicpu", ".inc"): v for k, v in sources.items() if k.endswith(".aicpu")
        }, optimise="-O0", programs=True)  # fmt: skip

    def run(self, number: int, given: Inputs | None = None, workers: int = 3, table: int = 1 << 16) -> list[list[Task]]:
        """The tasks of each pass. Refused when the generator reports an error."""
        e, given = self.emissions[number], given or Inputs()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "request")
            path.write_text("\n".join(_request(e, given, workers, table)) + "\n")
            out = self.program.call([str(number), str(path)])
        return _passes(out, e, given.arrays_of(e), workers)


def _renamed(text: str, k: int) -> str:
    text = re.sub(r"\bplan::", f"plan{k}::", text)
    text = re.sub(r"\bnamespace (plan|aicpu)\b", rf"namespace \g<1>{k}", text)
    text = re.sub(r"\baicpu::", f"aicpu{k}::", text)
    text = re.sub(r"\b(PTO_WSP_\w+_H_)\b", rf"\g<1>{k}", text)
    text = re.sub(r"\b(expand|worker)(?=[(,])", rf"\g<1>{k}", text)
    text = text.replace("#define WORKER worker", f"#define WORKER worker{k}")
    text = text.replace("expand.aicpu", "expand.inc").replace("namespace driver", f"namespace p{k}")
    return re.sub(r'#include "(aicpu/|include/|aicore/|kernels/|driver)', rf'#include "p{k}/\g<1>', text)


def _constants(e: Emission) -> str:
    """What the driver has to know of the calls."""
    wide = max(1, e.operands)
    tensors = [", ".join(str(b.tensor) for b in c.tiles) or "0" for c in e.calls] or ["0"]
    operands = ", ".join(str(len(c.tiles)) for c in e.calls) or "0"
    return (
        f"namespace driver {{\nconstexpr uint32_t AXES = {len(e.axes)}, TENSORS_USED = {len(e.tensors)};\n"
        f"constexpr uint32_t OPERANDS[] = {{{operands}}};\n"
        f"constexpr uint32_t TENSORS[][{wide}] = {{{', '.join('{' + t + '}' for t in tensors)}}};\n}}\n"
    )


def _request(e: Emission, given: Inputs, workers: int, table: int) -> list[str]:
    lines = [f"{workers} {table} 64"]
    lines.append(" ".join(str(given.symbols.get(s.name, 0)) for s in e.symbols) or "0")
    lines.append(" ".join(map(str, given.sizes_of(e))) or "0")
    for axis in e.axes:
        parts = [getattr(axis.axis, part).tolist() for part in axis.parts]
        rows = len(parts[0]) - isinstance(axis.axis, Sparse)
        lines.append(f"{rows} {len(parts)} " + " ".join(" ".join(map(str, [len(p), *p])) for p in parts))
    for tensor, array in zip(e.tensors, given.arrays_of(e), strict=True):
        bytes_of = " ".join(map(str, np.ascontiguousarray(array).tobytes())) if array.nbytes <= 4096 else ""
        known = 1 if bytes_of else 0
        lines.append(f"{tensor.dtype.itemsize} {tensor.rank} {' '.join(map(str, array.shape))} {known} {bytes_of}")
    return lines


def _passes(out: str, e: Emission, arrays: Sequence[np.ndarray], workers: int) -> list[list[Task]]:
    passes: list[list[Task]] = []
    for line in out.splitlines():
        word, *numbers = line.split()
        values = list(map(int, numbers))
        if word == "error":
            raise Refused(plan.ERRORS[values[0]][0], *values[1:])
        if word == "pass":
            passes.append([])
        elif word == "queue" and not e.orders.mailboxes:
            _check_queue(passes[-1], values, workers)
        elif word == "task":
            passes[-1].append(_task(values, e, len(passes[-1]) + sum(map(len, passes[:-1]))))
    return passes


def _task(values: list[int], e: Emission, number: int) -> Task:
    task_id, row, kernel, core, call, target, level, round_, *rest = values
    c = e.calls[call]
    assert task_id == number
    assert kernel == c.kernel.number
    assert core in (3, {"AIV": 0, "AIC": 1, "MIX": 2}[c.kernel.core])
    tiles = []
    for k, binding in enumerate(c.tiles):
        tensor, offset, row_stride, col_stride, rows, cols = rest[6 * k : 6 * k + 6]
        assert tensor == binding.tensor
        tiles.append(Tile(tensor, offset, row_stride * (rows > 1), col_stride * (cols > 1), rows, cols))
    words = rest[6 * len(c.tiles) :]
    scalars = len(c.scalars)
    axes = tuple(words[scalars : scalars + len(c.task.axes)])
    return Task(call, kernel, target, level, tuple(tiles), axes, tuple(words[:scalars]), round_)


def _check_queue(tasks: list[Task], queue: list[int], workers: int) -> None:
    """Each worker's rows, by level, then in program order."""
    starts, rows = queue[: workers + 1], queue[workers + 1 :]
    assert starts[0] == 0 and starts[-1] == len(tasks)
    assert sorted(rows) == list(range(len(tasks)))
    for number in range(workers):
        mine = rows[starts[number] : starts[number + 1]]
        assert all(tasks[r].target % workers == number for r in mine)
        assert mine == sorted(mine, key=lambda r: (tasks[r].level, r))


# ---- what the simulator says -----------------------------------------------------------------------------------------


def expected(e: Emission, given: Inputs | None = None) -> list[Task]:
    """The tasks as the simulator expands them; levels as if all were in one table."""
    given = given or Inputs()
    keys = [key for key in (e.orders.key, e.orders.stream_key) if key is not None]
    expansion = expand(e.tree, keys)
    mine = {id(t.tensor): a for t, a in zip(e.tensors, given.arrays_of(e), strict=True)}
    arrays = [np.ascontiguousarray(mine[id(t)]) for t in expansion.tensors]
    sizes = {s.loop: n for s, n in zip(e.sizes, given.sizes_of(e), strict=True)}
    data: dict[Any, dict[str, Any]] = {}
    inputs = expansion.inputs(arrays, sizes, given.symbols, data)
    rows: list[Any] = []

    def collect(table: Any) -> None:
        for r in range(table.count):
            what = int(table.kernel[r])
            if what < 0:
                rows.append((what, int(table.leaf[r])))
            else:
                known = [int(key[r]) for key in table.keys]
                rows.append((int(table.leaf[r]), known, table.axes[r].tolist(), table.args[r].tolist()))

    expansion.run(inputs, expansion.table(), collect)
    numbers = {id(t.tensor): t.number for t in e.tensors}
    oracle = Levels(e)
    tasks: list[Task] = []
    for row in rows:
        if len(row) == 2:
            what, leaf = row
            call = e.number_of[id(expansion.calls[leaf].task)] if what == FORGET else None
            oracle.event(what, call)
            continue
        leaf, known, axes, args = row
        key = known[0] if e.orders.key is not None else 0
        call = expansion.calls[leaf]
        c = e.calls[e.number_of[id(call.task)]]
        tiles = []
        for k, binding in enumerate(call.tiles):
            address, row_stride, col_stride, rows_, cols = args[TILE_WORDS * k : TILE_WORDS * (k + 1)]
            array = arrays[binding.tensor]
            size = array.itemsize
            offset = (address - array.ctypes.data) // size
            number = numbers[id(expansion.tensors[binding.tensor])]
            strides = (row_stride // size * (rows_ > 1), col_stride // size * (cols > 1))
            tiles.append(Tile(number, offset, *strides, rows_, cols))
        words = args[TILE_WORDS * len(tiles) :][: len(c.scalars)]
        stream = _stream(e, known[-1] if e.orders.stream_key is not None else len(tasks))
        level = oracle.task(c.number, tiles, [b.param.direction for b in call.tiles], stream)
        tasks.append(
            Task(c.number, c.kernel.number, _target(e, key, len(tasks), stream), level, tuple(tiles),
                 tuple(axes[: len(call.task.axes)]), tuple(words))
        )  # fmt: skip
    return tasks


def _stream(e: Emission, key: int) -> int | None:
    return key % e.orders.streams if e.orders.streams else None


def _target(e: Emission, key: int, number: int, stream: int | None) -> int:
    if e.orders.by_stream:
        assert stream is not None
        return stream
    if e.orders.dispatch == "round_robin":
        return number % e.orders.targets
    return key % e.orders.targets if e.orders.key is not None else 0


class Levels:
    """The level of each task, by comparing it with all tasks before it."""

    def __init__(self, e: Emission) -> None:
        self.e = e
        self.frames: list[tuple[bool, int, int]] = []
        self.sequential, self.ready, self.done = False, 0, 0
        self.touched: list[tuple[set[tuple[int, int]], set[tuple[int, int]], int]] = []
        self.streams: dict[int, int] = {}
        self.last: dict[int, int] = {}

    def event(self, what: int, call: int | None = None) -> None:
        if call is not None:
            self.last.pop(call, None)
            return
        if what == EXIT:
            self.sequential, self.ready, done = self.frames.pop()
            self.done = max(self.done, done)
            self._step()
            return
        self.frames.append((self.sequential, self.ready, self.done))
        self.sequential, self.done = what == ENTER_SEQUENTIAL, self.ready

    def _step(self) -> None:
        if self.sequential:
            self.ready = self.done

    def task(self, call: int, tiles: Sequence[Tile], directions: Sequence[str], stream: int | None) -> int:
        reads, writes = set[tuple[int, int]](), set[tuple[int, int]]()
        for tile, direction in zip(tiles, directions, strict=True):
            where = {
                (tile.tensor, tile.offset + r * tile.row_stride + c * tile.col_stride)
                for r in range(tile.rows)
                for c in range(tile.cols)
            }
            reads |= where if direction != "out" else set()
            writes |= where if direction != "in" else set()
        level = self.ready
        for earlier_reads, earlier_writes, earlier in self.touched:
            if (reads | writes) & earlier_writes or writes & earlier_reads:
                level = max(level, earlier + 1)
        if stream is not None:
            level = max(level, self.streams.get(stream, 0))
            self.streams[stream] = level + 1
        for handle in self.e.calls[call].task.after:
            level = max(level, self.last.get(self.e.number_of[id(handle)], 0))
        self.last[call] = level + 1
        self.touched.append((reads, writes, level))
        self.done = max(self.done, level + 1)
        self._step()
        return level
