"""A simulated run: the tasks of a program at one moment, played by an engine. No kernel runs, no array is written.

    snapshot = program.snapshot()                    the tasks, sizes and decisions of this moment
    result = snapshot.simulate(schedule, cycles)     the clock: stats, and the timeline on demand

Start reading at `Snapshot.simulate`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pto_wsp.errors import ScheduleError, UsageError
from pto_wsp.lower.expand import Expansion, Inputs, expand
from pto_wsp.lower.places import Place, Placed
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.scalar_expr import LoopVar
from pto_wsp.schedule import Schedule
from pto_wsp.sim import channels, regions
from pto_wsp.sim.cycles import Durations, durations_of
from pto_wsp.sim.dataflow import DataflowEngine
from pto_wsp.sim.decisions import Log, Recording, Replaying
from pto_wsp.sim.hazards import TileUses
from pto_wsp.sim.inorder import InOrderEngine, Starts
from pto_wsp.sim.keys import Keys, columns_of, shape_of, warn_of_unknown_names
from pto_wsp.sim.settings import EXEC_UNITS, Settings, brief, check_explicit_edges
from pto_wsp.sim.stats import ProgramStats
from pto_wsp.sim.timeline import Recorder, Timeline
from pto_wsp.trace.tree import Connect, Loop, SlotLoad, WorkloadTree, walk
from pto_wsp.types import Ragged, Sparse, Tensor

if TYPE_CHECKING:
    from pto_wsp.sim.why import Reports, TaskReport

__all__ = [
    "Expansions",
    "Replay",
    "Simulation",
    "Snapshot",
    "clock_of",
    "engine_of",
    "play",
    "record_loads",
    "tile_uses",
]


# ---- a program at one moment ---------------------------------------------------------------------------------------

OWN_CYCLES = Durations()
MOST_EXPANSIONS = 64
"""Pieces of machine code that a program keeps for its schedules."""


class Expansions:
    """The expansions of one tree, made once for each set of keys and cycles."""

    def __init__(self, tree: WorkloadTree) -> None:
        self.tree = tree
        self._made: dict[Any, Expansion] = {}

    def of(self, settings: Settings, cycles: Durations = OWN_CYCLES) -> Expansion:
        """The expansion that gives the tasks the keys of a schedule, and these cycles; with what slots wait for, where
        the engine knows that.
        """
        columns = columns_of((*settings.keys, *cycles.keys), self.tree)
        slot_edges = self._has_slots and settings.engine == "dataflow"
        what = (slot_edges, cycles.shape(), *map(shape_of, columns))
        if what not in self._made:
            warn_of_unknown_names((*settings.keys, *cycles.keys), self.tree)
            self._made[what] = expand(self.tree, columns, channels.ChannelEngine.of, cycles.exprs, slot_edges)
            while len(self._made) > MOST_EXPANSIONS:
                del self._made[next(iter(self._made))]
        return self._made[what]

    def of_any(self) -> Expansion:
        """Some expansion that knows all edges that the workload states, for those who need no keys."""
        found = (made for what, made in self._made.items() if what[0] == self._has_slots)
        return next(found, None) or self.of(Settings("", 1, 0, "dataflow" if self._has_slots else "in-order"))

    @cached_property
    def _has_slots(self) -> bool:
        root = self.tree.root
        return not isinstance(root, Connect) and any(isinstance(node, SlotLoad) for node in walk(root))


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """All that the clock needs to know of a program at one moment. Arrays are not part of it, only where they lie.

    schedule   the program's own
    places     where the array of each base tensor lies
    sizes      trip count of each DenseDyn loop;  symbols  64-bit words by name
    data       of ragged and sparse axes: the arrays by name, and the number of rows as "outer"
    volatile   axes whose data the program's own tasks write
    log        what has been loaded into slots, and the data of volatile axes; None: there is nothing of the kind
    cycles     of the tasks, where they are not those of their kernels
    hazards    a schedule that cannot see some hazards is an error, as compile(check="hazards") wants it
    """

    name: str
    expansions: Expansions
    schedule: Schedule
    places: Mapping[Tensor, Place]
    sizes: Mapping[Loop, int] = field(default_factory=dict)
    symbols: Mapping[str, int] = field(default_factory=dict)
    data: Mapping[Ragged | Sparse, Mapping[str, Any]] = field(default_factory=dict)
    volatile: frozenset[Ragged | Sparse] = frozenset()
    log: Log | None = None
    cycles: Durations = OWN_CYCLES
    hazards: bool = False

    @property
    def tree(self) -> WorkloadTree:
        """The workload."""
        return self.expansions.tree

    @property
    def loops(self) -> list[LoopVar]:
        """The variables of its loops, in the order of its text."""
        return [node.var for node in walk(self.tree.root) if isinstance(node, Loop)]

    def __str__(self) -> str:
        """All of it as text, for another process or a file; see snapshot_text.py."""
        from pto_wsp.sim.snapshot_text import print_snapshot

        return print_snapshot(self)

    @staticmethod
    def parse(text: str) -> Snapshot:
        """The snapshot that `str` has written. Text of any origin can be read: nothing in it is run.

        raises  GraphTextError, which shows the place in the text
        """
        from pto_wsp.sim.snapshot_text import parse_snapshot

        return parse_snapshot(text)

    def with_cycles(self, cycles: Any) -> Snapshot:
        """The same program where tasks take other cycles, see `durations_of`; None: those of the kernels."""
        return replace(self, cycles=durations_of(cycles, self.tree))

    def simulate(self, schedule: Schedule | None = None, cycles: Any = None) -> Simulation:
        """Run the clock under another schedule, or under the program's own.

        cycles  of the tasks, see `durations_of`; None: those of the snapshot
        raises  ScheduleError for what a schedule cannot do; RegionError for a task outside its array
        """
        if cycles is not None:
            return self.with_cycles(cycles).simulate(schedule)
        begin = time.perf_counter_ns()
        if schedule is not None and not isinstance(schedule, Schedule):
            raise UsageError(f"simulate() needs a Schedule(DispatchPolicy..., ...); got {schedule!r}")
        settings = channels.settled(self.tree, schedule or self.schedule, said=schedule is None)
        if self.cycles and settings.find("cycles") is not None:
            raise ScheduleError("cycles= and TracePolicy.cycles(...) both say what a task takes; give one", "trace")
        if self.cycles and self.log is not None and isinstance(self.tree.root, Connect):
            raise UsageError(
                f"{self.name} is a pipeline that loads slots or axes from tensors: what it reads depends on when it "
                "reads, so with other cycles it would have to run again"
            )
        expansion = self.expansions.of(settings, self.cycles)
        check_explicit_edges(settings, expansion.calls)
        replay = Replay(self, settings, expansion)
        engine = replay.run()
        if self.hazards:
            from pto_wsp.sim import checks

            checks.look_for(("hazards",), self, settings)
        spent = (time.perf_counter_ns() - begin) / 1e6
        stats = ProgramStats.of(engine.counters(), 0.0, spent)
        return Simulation(**{f.name: getattr(stats, f.name) for f in fields(stats)}, schedule=settings, _replay=replay)

    def __repr__(self) -> str:
        return f"<snapshot of {self.name}: kernel calls: {len(self.tree.tasks)}, tensors: {len(self.places)}>"

    def inputs(self, expansion: Expansion) -> Inputs:
        """The run-time inputs as an expansion wants them."""
        places = [self.places[tensor] for tensor in expansion.tensors]
        spaces, _ = regions.spaces_of(places)
        return expansion.inputs(places, self.sizes, self.symbols, self.data, spaces.tolist(), self.volatile)


def record_loads(expansion: Expansion, inputs: Inputs) -> Log:
    """What a workload loads into slots from memory that its tasks do not write."""
    recording = Recording(_ignore, lambda: (0, 0, 0, 0))
    expansion.run(inputs, expansion.table(), _ignore, host=recording)
    return recording.log


def _ignore(table: TaskTable) -> None:
    pass


# ---- one run of the clock ------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Simulation(ProgramStats):
    """What `program.simulate` found: the stats of a run under a schedule, and its timeline."""

    schedule: Settings | None = None
    _replay: Replay | None = None

    @property
    def stats(self) -> ProgramStats:
        """These stats."""
        return self

    def timeline(self) -> Timeline:
        """When each task would run, and where."""
        assert self._replay is not None
        return self._replay.timeline()

    def task(self, number: int) -> TaskReport:
        """One task by its number in program order: where and when it ran, and why it started then.

        raises  UsageError when there is no such task
        """
        assert self._replay is not None
        return self._replay.reports.task(number)


@dataclass(frozen=True, eq=False)
class Replay:
    """A snapshot under one schedule; the clock can run any number of times."""

    snapshot: Snapshot
    settings: Settings
    expansion: Expansion

    def run(self, record: bool = False, consume: Callable[[TaskTable, Starts | None], None] | None = None) -> Any:
        """Run the clock; the engine afterwards. `consume` gets each chunk, and the starts of its tasks."""
        snapshot, expansion = self.snapshot, self.expansion
        places = [snapshot.places[tensor] for tensor in expansion.tensors]
        inputs = snapshot.inputs(expansion)
        engine = engine_of(self.settings, expansion, tile_uses(self.settings, expansion, places), inputs, record)

        functions = snapshot.cycles.functions
        keys = Keys(snapshot.cycles.keys, expansion.keys, expansion.calls, symbols=inputs.symbols)

        def tick(table: TaskTable) -> None:
            if functions:
                snapshot.cycles.apply(table, expansion.calls, keys)
            starts = play(engine, table, record)
            if consume is not None:
                consume(table, starts)

        log = snapshot.log
        host = None if log is None else Replaying(log)
        expansion.run(inputs, expansion.table(), tick, host=host, clock=clock_of(engine))
        return engine

    @cached_property
    def reports(self) -> Reports:
        """What is said about single tasks."""
        from pto_wsp.sim.why import Reports

        return Reports(self, self.timeline())

    def timeline(self) -> Timeline:
        """When each task would run, and where."""
        recorder = Recorder()
        engine = self.run(True, recorder.add)
        calls = tuple((call.name, len(call.task.axes)) for call in self.expansion.calls)
        starts, cause = engine.starts() if isinstance(engine, DataflowEngine) else (None, None)
        counters = engine.counters()
        lanes = counters.lane_names
        found = recorder.timeline(self.snapshot.name, len(counters.tasks), calls, starts, cause)
        bounds = ProgramStats.of(counters).lower_bounds
        return replace(found, lanes=lanes, title=brief(self.settings), bounds=bounds)


def tile_uses(settings: Settings, expansion: Expansion, arrays: Sequence[Placed]) -> TileUses | None:
    """What edges are inferred from, and windows counted in; where the schedule wants that."""
    needed = settings.infer is not None or settings.unit != "tasks" or expansion.slot_uses
    return TileUses(expansion.calls, arrays, expansion.slot_uses) if needed else None


Engine = InOrderEngine | DataflowEngine | channels.ChannelEngine


def engine_of(
    settings: Settings, expansion: Expansion, uses: TileUses | None, inputs: Inputs, record: bool = False
) -> Engine:
    """The engine that a schedule asks for; in a pipeline, the clock of its processes."""
    if expansion.pipeline is not None:
        return channels.ChannelEngine.of(expansion.pipeline, inputs)
    keys = Keys(settings.keys, expansion.keys, expansion.calls, settings.workers, inputs.symbols)
    if settings.engine == "dataflow":
        units = [EXEC_UNITS.index("cube" if kernel.uses_cube else "vector") for kernel in expansion.kernels]
        return DataflowEngine(settings, expansion.calls, keys, uses, units, record, expansion.slot_uses)
    return InOrderEngine(
        settings.workers, settings.window, False, keys if settings.keyed else None, settings.unit, settings.mode, uses
    )


def clock_of(engine: Engine) -> channels.ChannelEngine | None:
    """The engine as what expansion has to ask, where that is so."""
    return engine if isinstance(engine, channels.ChannelEngine) else None


def play(engine: Engine, table: TaskTable, record: bool = False) -> Starts | None:
    """One chunk; the starts of its tasks if they are wanted and known by now."""
    if isinstance(engine, channels.ChannelEngine):  # it has played them while they were made
        return engine.starts
    if isinstance(engine, DataflowEngine):
        engine.play(table)
        return None
    return engine.play_table(table, record)
