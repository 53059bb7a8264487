"""Races: random workloads against element sets and a transitive closure; what a RaceError says; the cells of tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pto_wsp import (
    CompileError,
    Deps,
    DType,
    In,
    Out,
    P,
    Schedule,
    ScheduleError,
    TaskGraphConfig,
    Tensor,
    Tile,
    kernel,
    pto,
    slot_load_u64,
    workload,
)
from pto_wsp.errors import ExecutionError, RaceError
from pto_wsp.scalar_expr import slot_u64
from pto_wsp.sim import cells, races
from pto_wsp.sim.simulation import Snapshot

F32 = DType.F32
ROWS, COLS = 8, 12

# ---- random workloads. A node is ("task", input, output, after) or ("P" or "seq", iterations, [nodes])

VIEWS = [
    lambda a: a,
    lambda a: a.T,
    lambda a: a[:, ::2],
    lambda a: a[:, 1::2],
    lambda a: a[::-1, ::-1],
    lambda a: a[1:, 1:],
    lambda a: a.reshape(-1)[: 7 * 13].reshape(7, 13),
    lambda a: a.reshape(COLS, ROWS),
]


@kernel
def touch(x: In[Tile[2, 3, F32]], out: Out[Tile[2, 3, F32]]) -> None:
    pto.store(out, x)


places = st.tuples(st.integers(0, 15), st.integers(0, 5), st.integers(0, 5), st.booleans())  # view, row, column, moves
tasks = st.tuples(st.just("task"), places, places, st.lists(st.integers(0, 5), max_size=2))
nodes = st.recursive(
    tasks,
    lambda child: st.tuples(st.sampled_from(["P", "seq"]), st.integers(1, 3), st.lists(child, min_size=1, max_size=3)),
    max_leaves=8,
)
forests = st.lists(nodes, min_size=1, max_size=4)


class Program:
    """A forest as a workload, and as plain Python: element sets, and who comes before whom."""

    def __init__(self, forest: Any, views: list[int], edges: bool) -> None:
        data = [np.zeros((ROWS, COLS), np.float32) for _ in range(2)]
        number = [np.arange(ROWS * COLS).reshape(ROWS, COLS) + 1000 * k for k in range(2)]
        self.arrays = [VIEWS[v % 8](data[k % 2]) for k, v in enumerate(views)]
        self.numbers = [VIEWS[v % 8](number[k % 2]) for k, v in enumerate(views)]
        self.tensors = [Tensor(data=a, shape=a.shape, dtype=F32) for a in self.arrays]
        self.forest, self.edges = forest, edges
        self.touched: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []  # per task: what it reads, what it writes
        self.before: list[tuple[int, int]] = []
        self.last: dict[Any, int] = {}

    def workload(self) -> Any:
        @workload
        def main() -> None:
            self._emit(self.forest, None, [])

        return main().task_graph(deps=Deps.hybrid()) if self.edges else main()

    def _emit(self, forest: Any, index: Any, handles: list[Any]) -> None:
        handles = list(handles)
        for node in forest:
            if node[0] == "task":
                after = [handles[k % len(handles)] for k in node[3]] if handles and self.edges else []
                given = {"x": self._view(node[1], index), "out": self._view(node[2], index)}
                handles.append(touch[0](**given, **({"after": after} if after else {})))
            else:
                for i in P(node[1]) if node[0] == "P" else P.seq(node[1]):
                    self._emit(node[2], i, handles)

    def _corner(self, place: Any, index: Any) -> tuple[int, Any, int]:
        view, row, column, moves = place
        view %= len(self.arrays)
        rows, columns = self.arrays[view].shape
        row, column = row % max(rows - 1, 1), column % max(columns - 2, 1)
        return view, index if moves and index is not None else row, column

    def _view(self, place: Any, index: Any) -> Any:
        view, row, column = self._corner(place, index)
        return self.tensors[view][row : row + 2, column : column + 3]

    def walk(self) -> None:
        self._walk(self.forest, None, [], ())

    def _walk(self, forest: Any, index: Any, handles: list[Any], path: Any) -> list[list[int]]:
        handles, parts = list(handles), []
        for at, node in enumerate(forest):
            if node[0] == "task":
                me = len(self.touched)
                given = [self._corner(place, index) for place in node[1:3]]
                sets = [self.numbers[v][r : r + 2, c : c + 3] for v, r, c in given]
                self.touched.append(tuple((frozenset(s.reshape(-1).tolist()), _arrangement(s)) for s in sets))
                if handles and self.edges:
                    self.before += [(self.last[handles[k % len(handles)]], me) for k in node[3]]
                self.last[(*path, at)] = me
                handles.append((*path, at))
                parts.append([me])
            else:
                inner = [self._iteration(node, i, handles, (*path, at)) for i in range(node[1])]
                parts.append([t for part in inner for t in part])
                if node[0] == "seq":
                    self._order(inner)
        return parts

    def _iteration(self, node: Any, i: int, handles: list[Any], path: Any) -> list[int]:
        parts = self._walk(node[2], i, handles, path)
        if node[0] == "seq":
            self._order(parts)
        return [t for part in parts for t in part]

    def _order(self, parts: list[list[int]]) -> None:
        self.before += [(a, b) for j, part in enumerate(parts) for k in parts[:j] for a in k for b in part]

    def conflicts(self) -> list[tuple[int, int]]:
        pairs = []
        for b, (reads, writes) in enumerate(self.touched):
            for a, (read, wrote) in enumerate(self.touched[:b]):
                if writes[0] & (read[0] | wrote[0]) or wrote[0] & reads[0]:
                    pairs.append((a, b))
        return pairs

    def closure(self, more: list[tuple[int, int]] = []) -> Any:  # noqa: B006
        reach = np.eye(len(self.touched), dtype=bool)
        for a, b in sorted({*self.before, *more}, key=lambda edge: edge[1]):
            reach[:, b] |= reach[:, a]
        return reach

    def identical(self, a: int, b: int) -> bool:
        """Does some tile of one task equal one of the other's, one of them written?"""
        (r, w), (x, y) = self.touched[a], self.touched[b]
        return w in (x, y) or y == r


def _arrangement(numbers: Any) -> Any:
    return tuple(sorted(numbers.reshape(-1).tolist()))


def check_races_of(program: Program) -> tuple[Snapshot, list[tuple[int, int]]]:
    """Its snapshot, and the pairs of tasks that conflict without an order: races.check finds one of them."""
    snapshot = program.workload().compile().snapshot()
    program.walk()
    reach = program.closure()
    racing = [(a, b) for a, b in program.conflicts() if not reach[a, b]]
    try:
        races.check(snapshot)
    except RaceError as error:
        assert error.tasks in racing
    else:
        assert not racing
    return snapshot, racing


@settings(max_examples=70, deadline=None)
@given(forests, st.lists(st.integers(0, 7), min_size=2, max_size=4), st.booleans())
@example([("seq", 2, [("task", (0, 0, 0, True), (1, 0, 0, True), [])])], [0, 0], False)
def test_against_element_sets(forest: Any, views: list[int], edges: bool) -> None:
    program = Program(forest, views, edges)
    snapshot, racing = check_races_of(program)
    inferred = [(a, b) for a, b in program.conflicts() if program.identical(a, b)]
    unseen = [(a, b) for a, b in racing if (a, b) not in inferred]
    try:
        races.check(snapshot, exact=True)
    except ScheduleError as error:
        assert any(f"#{a} and #{b} overlap" in error.message for a, b in unseen)
    else:
        closed = program.closure(inferred)
        assert not [(a, b) for a, b in unseen if not closed[a, b]]


# ---- what the user sees


@kernel
def copy(x: In[Tile[2, 8, F32]], out: Out[Tile[2, 8, F32]]) -> None:
    pto.store(out, x)


def tensor(rows: int, value: float = 0.0) -> Tensor:
    return Tensor(data=np.full((rows, 8), value, np.float32), shape=(rows, 8), dtype=F32)


def shifted(n: int) -> tuple[Any, Tensor]:
    x, y = tensor(2 * n, 1.0), tensor(2 * n)

    @workload
    def shift() -> None:
        for i in P(n):
            copy[i](x=x[2 * i : 2 * i + 2], out=y[2 * i : 2 * i + 2])
        for i in P(n - 1):
            copy[i](x=y[2 * i + 1 : 2 * i + 3], out=x[2 * i : 2 * i + 2])

    return shift(), y


def test_an_error_names_both_tasks() -> None:
    program = shifted(4)[0].compile()
    with pytest.raises(RaceError) as caught:
        program.check_races()
    error = caught.value
    assert (error.tasks, error.kernels, error.axes) == ((0, 4), ("copy", "copy"), ((0,), (0,)))
    assert (error.tensor, error.region, error.task_id) == ("x", ((1, 2), (0, 8)), 4)
    assert "[1, 0:8] of f32[8, 8]: #0 copy[0] writes it as out, #4 copy[0] reads it as x" in error.message
    assert "y[2 * i + 1 : 2 * i + 3]" in str(error) and error.line is not None
    assert f"test_races.py:{error.line.line - 2}" in error.message  # the other call's line


@pytest.mark.parametrize("target", ["cpu_sim", "numpy"])
@pytest.mark.parametrize("check", ["races", ("races",), ["races"]])
def test_a_checked_program_writes_nothing_when_it_races(target: str, check: Any) -> None:
    work, y = shifted(4)
    program = work.compile(target, check=check)
    program.execute()
    with pytest.raises(RaceError):
        program.synchronize()
    assert (y.data == 0).all()


def test_a_checked_program_without_races_runs() -> None:
    work, y = shifted(1)
    program = work.compile(check="races")
    program.execute()
    program.synchronize()
    assert (y.data == 1).all()
    program.check_races()


@pytest.mark.parametrize("check", ["race", 3, ("races", "hazard"), True])
def test_an_unknown_check_is_an_error(check: Any) -> None:
    with pytest.raises(CompileError, match="'races': two tasks.*'hazards'"):
        shifted(2)[0].compile(check=check)
    shifted(2)[0].compile(check=None)
    shifted(2)[0].compile(check=())


def test_hazards() -> None:
    work, y = shifted(4)
    exact = work.task_graph(deps=Deps.infer_tensor_map_exact())
    program = exact.compile(check=("hazards",))
    program.execute()
    with pytest.raises(ScheduleError, match=r"#1 and #4 overlap(.|\n)*infer_bytes_overlap"):
        program.synchronize()
    assert (y.data == 0).all()
    with pytest.raises(ScheduleError, match="#1 and #4 overlap"):
        program.simulate()
    assert exact.compile().simulate().unseen_overlaps == 3
    overlap = Schedule(task_graph=TaskGraphConfig(deps=Deps.infer_bytes_overlap()))
    assert program.simulate(overlap).unseen_overlaps == 0
    run = work.task_graph(deps=Deps.infer_bytes_overlap()).compile(check="hazards")
    run.execute()
    run.synchronize()
    with pytest.raises(CompileError, match="this schedule infers no edges"):
        work.compile(check="hazards")


def test_the_same_tile_is_no_hazard() -> None:
    x, y = tensor(2, 1.0), tensor(2)

    @workload
    def twice() -> None:
        for i in P(4):
            copy[i](x=x, out=y)

    program = twice().task_graph(deps=Deps.infer_tensor_map_exact()).compile(check="hazards")
    program.execute()
    program.synchronize()
    with pytest.raises(RaceError):
        program.check_races()


def test_many_tasks_and_machine_code_agree() -> None:
    """The same passes compiled; the last two of 60,000 tasks race."""
    n = 30_000
    x, y = tensor(2 * n), tensor(2 * n)

    def work(step: int) -> Any:
        @workload
        def there_and_back() -> None:
            for _ in P.seq(2):
                for i in P(n):
                    copy[i](x=x[2 * i : 2 * i + 2], out=y[2 * i : 2 * i + 2])
            copy[n](x=x[0:2], out=y[2 * n - step : 2 * n - step + 2])

        return there_and_back()

    with pytest.raises(RaceError) as caught:
        work(2).compile().check_races()
    assert caught.value.tasks == (2 * n - 1, 2 * n)
    assert caught.value.region == ((2 * n - 2, 2 * n), (0, 8))


def test_programs_steered_by_their_results_are_checked_afterwards() -> None:
    x, y, flag = tensor(4, 1.0), tensor(4), tensor(2)

    @workload
    def steered() -> None:
        copy[0](x=x[0:2], out=flag)
        slot_load_u64(0, flag, 0, 0)
        with P.when(slot_u64(0) != 0):
            copy[1](x=flag, out=y[2:4])  # comes after #0, as the slot does
            copy[2](x=x[0:2], out=y[0:2])
        copy[3](x=flag, out=y[0:2])

    program = steered().compile(check="races")
    program.execute()
    with pytest.raises(RaceError, match=r"#0 and #3(.|\n)*have run by now"):
        program.synchronize()
    assert (y.data == 1).all()  # type: ignore[index]
    with pytest.raises(RaceError):
        program.check_races()


# ---- cells


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([4, 8, 12, 32, -32, 48, 128]),
                          st.sampled_from([4, 4, 4, 8, -4, 16]), st.integers(1, 5), st.integers(1, 5)),
                min_size=2, max_size=8), st.booleans(), st.booleans())  # fmt: skip
def test_tiles_share_a_cell_exactly_if_they_share_a_byte(tiles: Any, flat: bool, trees: bool) -> None:
    words = np.array([(1000 + 4 * at, outer, inner, many, few) for at, outer, inner, many, few in tiles], np.int64)
    elements = [
        {a + o * r + i * c + byte for r in range(m) for c in range(f) for byte in range(4)}
        for a, o, i, m, f in words.tolist()
    ]
    lines = cells.normal(np.zeros(len(words), np.int64), np.full(len(words), 4), words)
    with pytest.MonkeyPatch.context() as patch:
        if trees:
            patch.setattr(cells, "_FEW_PIECES", 0)
            patch.setattr(cells, "_CHUNK", 7)
        cut = cells.cut(lines, [[1000]], np.ones(len(words), np.int64), flat)
    assert not flat or cut.parts == 1
    pieces = [np.divmod(cut.piece[a:b], cut.parts) for a, b in zip(cut.first[:-1], cut.first[1:], strict=True)]
    for mine, (node, mask) in zip(elements, pieces, strict=True):
        for its, (other, partial) in zip(elements, pieces, strict=True):
            met = (node[:, None] == other) & (mask[:, None] & partial == 0)
            assert met.any() == bool(mine & its)


# ---- explicit edges: each call writes a tile of its own and reads that of an earlier one, after some others

calls = st.tuples(st.just("task"), st.integers(0, 30), st.lists(st.integers(0, 6), max_size=2))
linked = st.lists(st.recursive(
    calls,
    lambda child: st.tuples(st.sampled_from(["P", "seq", "seq"]), st.integers(1, 2), st.lists(child, min_size=1,
                                                                                            max_size=4)),
    max_leaves=10,
), min_size=2, max_size=6)  # fmt: skip


class Linked(Program):
    """The same, with tiles by call. Iterations of one loop write the same tiles, so only sequential ones repeat."""

    def __init__(self, forest: Any) -> None:
        super().__init__(forest, [0], True)
        self.data = Tensor(data=np.zeros((200, 3), np.float32), shape=(200, 3), dtype=F32)

    def _emit(self, forest: Any, index: Any, handles: list[Any]) -> None:
        handles = list(handles)
        for node in forest:
            if node[0] == "task":
                me, self.made = self.made, self.made + 1
                after = [handles[-1 - k % len(handles)] for k in node[2]] if handles else []
                source, target = (self.data[2 * k : 2 * k + 2] for k in (node[1] % me if me else 99, me))
                handles.append(touch[0](x=source, out=target, **({"after": after} if after else {})))
            else:
                for i in P(1) if node[0] == "P" else P.seq(node[1]):
                    self._emit(node[2], i, handles)

    made = 0

    def _walk(self, forest: Any, index: Any, handles: list[Any], path: Any) -> list[list[int]]:
        handles, parts = list(handles), []
        for at, node in enumerate(forest):
            if node[0] == "task":
                me, call = len(self.touched), self.calls.setdefault((*path, at), len(self.calls))
                sets = [np.arange(6) + 6 * k for k in (node[1] % call if call else 99, call)]
                self.touched.append(tuple((frozenset(s.tolist()), _arrangement(s)) for s in sets))
                if handles:
                    self.before += [(self.last[handles[-1 - k % len(handles)]], me) for k in node[2]]
                self.last[(*path, at)] = me
                handles.append((*path, at))
                parts.append([me])
            else:
                times = 1 if node[0] == "P" else node[1]
                inner = [self._iteration(node, i, handles, (*path, at)) for i in range(times)]
                parts.append([t for part in inner for t in part])
                if node[0] == "seq":
                    self._order(inner)
        return parts

    def walk(self) -> None:
        self.calls: dict[Any, int] = {}
        super().walk()


@settings(max_examples=60, deadline=None)
@given(linked)
def test_explicit_edges_against_a_closure(forest: Any) -> None:
    check_races_of(Linked(forest))


def test_what_would_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.array([(4 * at, pitch, 4, 5, 3) for at, pitch in enumerate([40, 28] * 20)], np.int64)
    lines = cells.normal(np.zeros(40, np.int64), np.full(40, 4), words)
    for limit, message in (("MOST_LINES", "strides do not divide"), ("MOST_PIECES", "cut along the same lines")):
        with monkeypatch.context() as patch:
            patch.setattr(cells, limit, 10)
            with pytest.raises(ExecutionError, match=message):
                cells.cut(lines, [[0]], np.ones(40, np.int64))
