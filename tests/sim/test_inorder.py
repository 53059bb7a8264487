"""The in-order engine against a slow model written from the rules alone, and against published totals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp.errors import ExecutionError, ScheduleError, WindowOverflow
from pto_wsp.lower.tasks import ENTER_PARALLEL, ENTER_SEQUENTIAL, EXIT
from pto_wsp.schedule import WindowMode
from pto_wsp.sim import inorder
from pto_wsp.sim.inorder import Counters, InOrderEngine, Starts, Wait

# ---- trees: ("task", duration, key) | ("par", child, ...) | ("seq", child, ...) ----

Tree = tuple[Any, ...]


def task(duration: int, key: int = 0) -> Tree:
    return ("task", duration, key)


def par(*children: Tree) -> Tree:
    return ("par", *children)


def seq(*children: Tree) -> Tree:
    return ("seq", *children)


class NoRoom(Exception):
    """The window has no room for a task."""


@dataclass
class Oracle:
    """The abstract machine, word by word: a clock, a multiset of end times, free times per worker."""

    workers: int
    window: int
    keyed: bool
    mode: WindowMode = WindowMode.STALL
    weigh: Callable[[int], int] = lambda duration: 1  # what a task takes of the window

    def __post_init__(self) -> None:
        self.clock, self.turn = 0, 0
        self.free, self.count = [0] * self.workers, [0] * self.workers
        self.flight: list[tuple[int, int]] = []  # end, weight
        self.spans: list[tuple[int, int, int]] = []  # worker, begin, end
        self.most = self.overflows = 0

    def tick(self, t: int) -> None:
        self.clock = max(self.clock, t)
        self.flight = [(end, weight) for end, weight in self.flight if end > self.clock]

    def issue(self, duration: int, key: int, ready: int) -> int:
        self.tick(ready)
        weight = self.weigh(duration)
        if self.window > 0:
            while self.held() + weight > self.window and self.mode is not WindowMode.BENCHMARK:
                if self.mode is WindowMode.ABORT or not self.flight:
                    raise NoRoom
                self.tick(min(self.flight)[0])
            self.overflows += self.held() + weight > self.window
        if self.keyed:
            w = (key % 2**64) % self.workers
        else:
            w, self.turn = self.turn % self.workers, self.turn + 1
        begin = max(self.clock, self.free[w])
        end = begin + duration
        self.free[w] = end
        self.flight.append((end, weight))
        self.most = max(self.most, self.held())
        self.count[w] += 1
        self.spans.append((w, begin, end))
        return end

    def held(self) -> int:
        return sum(weight for _, weight in self.flight)

    def time(self, node: Tree, ready: int) -> int:
        kind, *rest = node
        if kind == "task":
            return self.issue(rest[0], rest[1], ready)
        if kind == "par":
            return max([ready] + [self.time(child, ready) for child in rest])
        for child in rest:
            ready = self.time(child, ready)
        return ready


def path(node: Tree) -> int:
    """Completion with a worker for every task."""
    kind, *rest = node
    if kind == "task":
        return int(rest[0])
    return max([0, *map(path, rest)]) if kind == "par" else sum(map(path, rest))


def rows_of(node: Tree) -> list[tuple[int, int, int]]:
    """(kernel, cycles, key) rows of the tree, with an event pair around every block."""
    kind, *rest = node
    if kind == "task":
        return [(0, rest[0], rest[1] % 2**64)]
    inner = [row for child in rest for row in rows_of(child)]
    return [(ENTER_PARALLEL if kind == "par" else ENTER_SEQUENTIAL, 0, 0), *inner, (EXIT, 0, 0)]


def simulate(
    tree: Tree, workers: int = 1, window: int = 0, keyed: bool = False, chunk: int = 1 << 16,
    mode: WindowMode = WindowMode.STALL, weigh: Callable[[Any], Any] | None = None,
) -> tuple[Counters, list[tuple[int, int, int]], list[Wait]]:
    """Counters, spans (worker, begin, end) and wait reasons, with the table cut into chunks."""
    engine = InOrderEngine(workers, window, keyed, unit="tasks" if weigh is None else "bytes", mode=mode)
    rows = rows_of(tree)
    spans, waits = [], []
    for first in range(0, len(rows), chunk):
        columns = zip(*rows[first : first + chunk], strict=True)
        kernel, cycles, key = map(np.array, columns, (np.int32, np.int64, np.uint64))
        starts = engine.play(kernel, cycles, key, True, None if weigh is None else weigh(cycles))
        assert isinstance(starts, Starts)
        for i in np.flatnonzero(kernel >= 0):
            begin = int(starts.start[i])
            spans.append((int(starts.worker[i]), begin, begin + int(cycles[i])))
            waits.append(Wait(starts.wait[i]))
    return engine.counters(), spans, waits


def trees() -> st.SearchStrategy[Tree]:
    tasks = st.builds(task, st.integers(0, 30), st.integers(-5, 2**64 - 1) | st.integers(0, 7))
    return st.recursive(
        tasks,
        lambda inner: st.lists(inner, max_size=5).flatmap(lambda c: st.sampled_from([par(*c), seq(*c)])),
        max_leaves=30,
    )


@given(
    trees(),
    st.integers(1, 5),
    st.sampled_from([0, 1, 2, 3, 5, 8192]),
    st.booleans(),
    st.sampled_from([1, 3, 1000]),
)
def test_engine_equals_the_rules(tree: Tree, workers: int, window: int, keyed: bool, chunk: int) -> None:
    oracle = Oracle(workers, window, keyed)
    total = oracle.time(tree, 0)
    counters, spans, _ = simulate(tree, workers, window, keyed, chunk)
    assert counters.total_cycles == total == max([0, *oracle.free])
    assert spans == oracle.spans
    assert list(counters.tasks) == oracle.count
    assert list(counters.busy) == [sum(e - b for w, b, e in spans if w == lane) for lane in range(workers)]
    assert counters.most_in_window == (oracle.most if window else 0)
    chain, durations = counters.critical_path.tolist(), [end - begin for _, begin, end in spans]
    assert counters.critical_path_cycles == path(tree) == sum(durations[k] for k in chain)
    assert (chain, len(chain)) == (sorted(set(chain)), counters.critical_path_tasks)
    assert counters.parallel_tasks == sum(
        any(b <= begin < e for w, b, e in spans[:i] if w != worker)
        for i, (worker, begin, _) in enumerate(spans)
    )


@given(
    trees(), st.integers(1, 5), st.integers(1, 9), st.booleans(), st.sampled_from([1, 3, 1000]),
    st.sampled_from(list(WindowMode)), st.booleans(),
)  # fmt: skip
def test_windows_of_any_unit_and_mode(
    tree: Tree, workers: int, window: int, keyed: bool, chunk: int, mode: WindowMode, weighed: bool
) -> None:
    def weigh(duration: Any) -> Any:
        return duration % 4

    oracle = Oracle(workers, window, keyed, mode, weigh) if weighed else Oracle(workers, window, keyed, mode)
    try:
        oracle.time(tree, 0)
    except NoRoom:
        with pytest.raises(WindowOverflow if mode is WindowMode.ABORT else ScheduleError):
            simulate(tree, workers, window, keyed, chunk, mode, weigh if weighed else None)
        return
    counters, spans, _ = simulate(tree, workers, window, keyed, chunk, mode, weigh if weighed else None)
    assert spans == oracle.spans
    assert (counters.most_in_window, counters.overflows) == (oracle.most, oracle.overflows)
    if mode is WindowMode.BENCHMARK:
        assert spans == simulate(tree, workers, 0, keyed, chunk)[1]


@given(trees(), st.integers(1, 5), st.sampled_from([0, 1, 2, 3, 5]), st.booleans())
def test_invariants(tree: Tree, workers: int, window: int, keyed: bool) -> None:
    counters, spans, waits = simulate(tree, workers, window, keyed)
    assert max(counters.critical_path_cycles, -(-counters.work_cycles // workers)) <= counters.total_cycles
    assert counters.total_cycles <= counters.work_cycles
    for (worker, begin, _), wait in zip(spans, waits, strict=True):
        assert (wait is Wait.NOTHING) == (begin == 0)
        if wait in (Wait.DEPENDENCY, Wait.WINDOW_FULL):
            assert any(end == begin for _, _, end in spans)
        if wait is Wait.WORKER_BUSY:
            assert any(end == begin for other, _, end in spans if other == worker)
        if wait is Wait.WINDOW_FULL:
            assert window > 0


@pytest.mark.parametrize("way", ["plain", "compiled"])
def test_plain_and_compiled_agree(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = inorder.PLAY.plain if way == "plain" else inorder.PLAY.compiled()
    monkeypatch.setattr(inorder.PLAY, "choose", lambda count: run)
    random = np.random.default_rng(7)

    def tree(depth: int) -> Tree:
        if depth == 0:
            return task(int(random.integers(0, 1000)), int(random.integers(0, 2**63)))
        return (("par", "seq")[random.integers(2)], *(tree(depth - 1) for _ in range(random.integers(0, 6))))

    for workers, window, keyed in ((1, 0, False), (4, 3, False), (7, 64, True), (3, 1, True)):
        root = par(*(tree(5) for _ in range(12)))
        oracle = Oracle(workers, window, keyed)
        total = oracle.time(root, 0)
        counters, spans, _ = simulate(root, workers, window, keyed, chunk=997)
        assert counters.total_cycles == total
        assert spans == oracle.spans


# ---- totals published with the rules ----

DURATIONS = (14, 6, 8, 6, 14, 8)


@pytest.mark.parametrize(
    ("workers", "totals"),
    [(1, (56, 56, 56, 56)), (2, (36, 36, 36, 56)), (3, (20, 22, 28, 56))],
)
def test_six_tasks_round_robin(workers: int, totals: tuple[int, ...]) -> None:
    tree = par(*(task(d) for d in DURATIONS))
    assert tuple(simulate(tree, workers, window)[0].total_cycles for window in (0, 3, 2, 1)) == totals


def test_trace_of_three_workers_window_two() -> None:
    counters, spans, waits = simulate(par(*(task(d) for d in DURATIONS)), workers=3, window=2)
    assert spans == [(0, 0, 14), (1, 0, 6), (2, 6, 14), (0, 14, 20), (1, 14, 28), (2, 20, 28)]
    assert waits[:3] == [Wait.NOTHING, Wait.NOTHING, Wait.WINDOW_FULL]
    assert counters.window_stalls == 3
    assert counters.window_stalled_cycles == 6 + 8 + 6


def test_head_of_line_blocking() -> None:
    """Two chains on two workers take 50 and not 30: the second chain waits for the issue clock."""
    round_robin = par(*(seq(*(task(10) for _ in range(3))) for _ in range(2)))
    by_outer = par(*(seq(*(task(10, key) for _ in range(3))) for key in range(2)))
    assert simulate(round_robin, workers=2)[0].total_cycles == 50
    counters, _, waits = simulate(by_outer, workers=2, keyed=True)
    assert counters.total_cycles == 50
    late = [Wait.DEPENDENCY] * 2
    assert waits == [Wait.NOTHING, *late, Wait.IN_ORDER, *late]


@pytest.mark.parametrize(("workers", "total"), [(3, 20), (1000, 10)])
def test_more_workers_than_tasks(workers: int, total: int) -> None:
    assert simulate(par(*[task(10)] * 6), workers)[0].total_cycles == total


@pytest.mark.parametrize(("pick", "workers", "total"), [(lambda b, h: b, 2, 30), (lambda b, h: h, 3, 20)])
def test_affinity_on_outer_and_inner_axis(pick: Any, workers: int, total: int) -> None:
    tree = par(*(par(*(task(10, pick(b, h)) for h in range(3))) for b in range(2)))
    assert simulate(tree, workers, keyed=True)[0].total_cycles == total


@pytest.mark.parametrize(
    ("keys", "total"), [((0,) * 6, 60), (tuple(range(6)), 10), (tuple(range(0, 18, 3)), 30)]
)
def test_keys_pick_the_worker(keys: tuple[int, ...], total: int) -> None:
    assert simulate(par(*(task(10, key) for key in keys)), workers=6, keyed=True)[0].total_cycles == total


def test_negative_key_is_taken_modulo_two_to_the_64() -> None:
    assert simulate(task(1, -1), workers=3, keyed=True)[1][0][0] == 0
    assert simulate(task(1, -3), workers=4, keyed=True)[1][0][0] == 1


def test_unordered_producer_and_consumer() -> None:
    both = par(task(10), task(15))
    assert simulate(both, workers=1)[0].total_cycles == 25
    assert simulate(both, workers=2)[0].total_cycles == 15


def test_two_chains_issued_one_after_the_other_or_interleaved() -> None:
    c = 8
    chains = par(seq(task(c, 0), task(c, 0)), seq(task(c, 1), task(c, 1)))
    interleaved = seq(par(task(c, 0), task(c, 1)), par(task(c, 0), task(c, 1)))
    assert simulate(chains, workers=2, keyed=True)[0].total_cycles == 3 * c
    assert simulate(interleaved, workers=2, keyed=True)[0].total_cycles == 2 * c


def test_empty_blocks_complete_when_ready() -> None:
    assert simulate(par())[0].total_cycles == 0
    assert simulate(seq(task(3), par(), seq(), task(4)), workers=2)[0].total_cycles == 7


def test_deep_nesting_grows_the_stack() -> None:
    tree = task(5)
    for level in range(300):
        tree = seq(task(1), tree) if level % 2 else par(tree, task(1))
    assert simulate(tree, workers=2, chunk=7)[0].total_cycles == Oracle(2, 0, False).time(tree, 0)


def test_clock_overflow_is_an_error() -> None:
    engine = InOrderEngine()
    half = np.array([2**62, 2**62], np.int64)
    with pytest.raises(ExecutionError, match="cycles"):
        engine.play(np.zeros(2, np.int32), half)


def test_unclosed_block_is_our_bug() -> None:
    engine = InOrderEngine()
    engine.play(np.array([ENTER_PARALLEL], np.int32), np.zeros(1, np.int64))
    with pytest.raises(AssertionError, match="not closed"):
        engine.counters()


def test_durations_are_added_up_exactly() -> None:
    """A sum in floating point would forget the small ones beside a large one."""
    kernel, cycles = np.zeros(3000, np.int32), np.ones(3000, np.int64)
    cycles[0] = 2**63 - 3000
    engine = InOrderEngine()
    engine.play(kernel, cycles)
    assert engine.counters().total_cycles == 2**63 - 1
    cycles[0] += 1
    with pytest.raises(ExecutionError, match="the clock counts to 2"):
        InOrderEngine().play(kernel, cycles)
