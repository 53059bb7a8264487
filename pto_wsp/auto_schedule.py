"""Trying schedules automatically: a small search space, every configuration simulated, the fewest cycles win.

    best = auto_schedule(my_workload())                       the same workload, with the best configuration applied

    space = SearchSpace().add_dispatch(["round_robin", "work_steal"], [4, 8]).add_streams([1, 2])
    config, summary = AutoScheduler(my_workload()).explore(space)

No array changes: the clock decides, so that the winner is the same on every host. A workload that is steered by its own
results runs once, and its arrays are put back. For more than these few directives, all cores or a cluster, see
`pto_wsp.sweep`, which this uses.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pto_wsp.errors import PolicyError, PtoError, UsageError, show_user_frames
from pto_wsp.schedule import DispatchPolicy, Schedule, TimingPolicy
from pto_wsp.sim.machine import A2A3
from pto_wsp.sim.simulation import Snapshot
from pto_wsp.sim.sweep import sweep
from pto_wsp.trace.tree import SlotLoad, TaskCall, walk
from pto_wsp.types import Tensor

if TYPE_CHECKING:
    from pto_wsp.trace.workload import Workload

__all__ = [
    "AutoScheduler", "ExplorationResult", "ExplorationSummary", "ScheduleConfig", "SearchSpace", "auto_schedule",
]  # fmt: skip

_DISPATCH = ("round_robin", "affinity", "hash", "dispatch_by", "work_steal")
_TIMING = ("immediate", "batched", "interleaved", "rate_limit")


@dataclass(frozen=True)
class ScheduleConfig:
    """One point of the search space.

    dispatch        round_robin, work_steal, or affinity, hash, dispatch_by: by the first axis value of the task
    dispatch_param  number of workers
    timing          immediate, batched, interleaved or rate_limit, with timing_param as its number

    raises  PolicyError for a name that does not exist
    """

    streams: int = 1
    dispatch: str = "round_robin"
    dispatch_param: int = 4
    timing: str = "immediate"
    timing_param: float | None = None

    def __post_init__(self) -> None:
        for what, name, known in (("dispatch", self.dispatch, _DISPATCH), ("timing", self.timing, _TIMING)):
            if name not in known:
                raise PolicyError(f"{what} of a ScheduleConfig is one of {', '.join(known)}; got {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Its fields by name."""
        return asdict(self)

    def schedule(self) -> Schedule:
        """The schedule that it stands for."""
        if self.dispatch in ("round_robin", "work_steal"):
            policy = getattr(DispatchPolicy, self.dispatch)(self.dispatch_param)
        else:
            policy = getattr(DispatchPolicy, self.dispatch)(lambda t: t.params[0], self.dispatch_param)
        timing = None if self.timing == "immediate" else getattr(TimingPolicy, self.timing)(self.timing_param)
        return Schedule(policy, streams=self.streams, timing=timing)


@dataclass
class ExplorationResult:
    """What one configuration gave."""

    config: ScheduleConfig
    execute_time_ms: float = 0.0
    """Simulated time: cycles at 1.85 GHz."""
    compile_time_ms: float = 0.0
    """Wall time of the simulation."""
    task_count: int = 0
    error: str | None = None
    total_cycles: int = 0

    @property
    def total_time_ms(self) -> float:
        """Simulated time, which configurations are ranked by; infinite for one that failed."""
        return self.execute_time_ms if self.success else math.inf

    @property
    def success(self) -> bool:
        return self.error is None


@dataclass
class ExplorationSummary:
    """What an exploration gave. The baseline is the workload's own schedule."""

    results: list[ExplorationResult] = field(default_factory=list)
    best_config: ScheduleConfig | None = None
    best_time_ms: float = math.inf
    baseline_time_ms: float | None = None
    speedup: float = 1.0

    def top_configs(self, n: int = 5) -> list[tuple[ScheduleConfig, float]]:
        """The best configurations and their simulated milliseconds, best first; those that failed are left out."""
        ranked = sorted((r for r in self.results if r.success), key=lambda r: r.total_cycles)
        return [(result.config, result.execute_time_ms) for result in ranked[:n]]

    def print_summary(self) -> None:
        """Print the best configurations."""
        failed = sum(not result.success for result in self.results)
        print(f"{len(self.results)} configurations" + (f", {failed} failed" if failed else ""))
        if self.baseline_time_ms is not None:
            print(f"  {self.baseline_time_ms:12.6f} ms  the workload's own schedule")
        for config, ms in self.top_configs():
            print(f"  {ms:12.6f} ms  {config}")
        if self.best_config is not None:
            print(f"  the best is {self.speedup:.2f} times as fast as the workload's own schedule")


class SearchSpace:
    """Configurations to try: every combination of the options. It starts with one configuration."""

    def __init__(self) -> None:
        self._streams: list[int] = [1]
        self._dispatch: list[tuple[str, int]] = [("round_robin", 4)]
        self._timing: list[tuple[str, float | None]] = [("immediate", None)]

    def add_streams(self, streams: Iterable[int]) -> SearchSpace:
        """These numbers of streams, in place of those so far."""
        self._streams = list(streams)
        return self

    def add_dispatch(self, names: Iterable[str], params: Iterable[int] = (4,)) -> SearchSpace:
        """These dispatch policies, each with these numbers of workers, in place of those so far."""
        self._dispatch = list(itertools.product(names, list(params)))
        return self

    def add_timing(self, names: Iterable[str], params: Iterable[float | None] = (None,)) -> SearchSpace:
        """These timing policies, each with these numbers, in place of those so far."""
        self._timing = list(itertools.product(names, list(params)))
        return self

    def enumerate_configs(self) -> list[ScheduleConfig]:
        """Every configuration."""
        options = itertools.product(self._streams, self._dispatch, self._timing)
        return [ScheduleConfig(s, *dispatch, *timing) for s, dispatch, timing in options]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._streams) * len(self._dispatch) * len(self._timing)


class AutoScheduler:
    """Searches schedules for a workload, which is compiled and never changed."""

    def __init__(self, workload: Workload) -> None:
        if not callable(getattr(workload, "compile", None)):
            raise UsageError(f"AutoScheduler takes a workload; got {workload!r}")
        self.workload = workload
        self._snapshot: Snapshot | None = None

    def register_kernel(self, name: str, impl: Any) -> None:
        """Not a way to give a kernel; write it with @kernel."""
        raise UsageError("register_kernel: a workload runs the kernels that it calls; write them with @kernel")

    @show_user_frames()
    def explore(
        self, space: SearchSpace, trials: int | None = None, warmup: int | None = None, verbose: bool = False
    ) -> tuple[ScheduleConfig, ExplorationSummary]:
        """The best configuration of a space, and what each gave. One that fails has an `error`.

        trials, warmup  simulated time is the same in every trial, so there is one; giving them warns
        raises          UsageError when no configuration could be simulated
        """
        if trials is not None or warmup is not None:
            warnings.warn("trials and warmup change nothing: simulated time is the same in every trial", stacklevel=3)
        snapshot = self._taken()
        summary = ExplorationSummary([self._tried(snapshot, config) for config in space.enumerate_configs()])
        best = min((r for r in summary.results if r.success), key=lambda r: r.total_cycles, default=None)
        if best is None:
            first = f": {summary.results[0].error}" if summary.results else ", as there is none"
            raise UsageError(f"none of {len(summary.results)} configurations could be simulated{first}")
        summary.best_config, summary.best_time_ms = best.config, best.execute_time_ms
        cycles = snapshot.simulate().total_cycles
        summary.baseline_time_ms = A2A3.microseconds(cycles) / 1e3
        summary.speedup = cycles / best.total_cycles if best.total_cycles else 1.0
        if verbose:
            summary.print_summary()
        return best.config, summary

    def find_best(self, max_streams: int = 8, trials: int | None = None) -> ScheduleConfig:
        """The best of a default space: up to `max_streams` streams, up to 16 workers, three dispatch policies."""
        streams = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= max_streams] or [1]
        policies = ("round_robin", "affinity", "work_steal")
        space = SearchSpace().add_streams(streams).add_dispatch(policies, (1, 2, 4, 8, 16))
        return self.explore(space, trials)[0]

    def _tried(self, snapshot: Snapshot, config: ScheduleConfig) -> ExplorationResult:
        try:
            schedule = config.schedule()
        except PtoError as error:
            return ExplorationResult(config, error=str(error))
        with warnings.catch_warnings():  # a failure is in its result
            warnings.simplefilter("ignore", UserWarning)
            (record,) = sweep(snapshot, [schedule], progress=False)
        if record["error"] is not None:
            return ExplorationResult(config, error=record["error"])
        ms = A2A3.microseconds(record["makespan"]) / 1e3
        return ExplorationResult(config, ms, record["simulate_ms"], record["tasks"], None, record["makespan"])

    def _taken(self) -> Snapshot:
        """The workload, ready for the clock."""
        if self._snapshot is None:
            program = self.workload.compile()
            try:
                self._snapshot = program.snapshot()
            except UsageError:  # its tasks depend on results: it has to run once, and arrays are put back afterwards
                self._snapshot = _run_and_put_back(program)
        return self._snapshot


def _run_and_put_back(program: Any) -> Snapshot:
    tensors = {}
    for node in walk(program.workload.tree().root):
        used = [v for _, v in node.args] if isinstance(node, TaskCall) else []
        used += [node.tensor] if isinstance(node, SlotLoad) else []
        tensors.update({id(t.base): t.base for t in used if isinstance(t, Tensor)})
    before = [(tensor.array(), tensor.array().copy()) for tensor in tensors.values()]
    try:
        program.execute()
        program.synchronize()
        found: Snapshot = program.snapshot()
    finally:
        for array, contents in before:
            if array.flags.writeable:
                array[...] = contents
    return found


def auto_schedule(workload: Workload, verbose: bool = False) -> Workload:
    """The workload, with the best configuration of AutoScheduler.find_best applied."""
    scheduler = AutoScheduler(workload)
    config = scheduler.find_best()
    if verbose:
        print(f"auto_schedule: {config}")
    schedule = config.schedule()
    assert schedule.dispatch is not None
    found = workload.dispatch(schedule.dispatch).streams(schedule.streams)
    return found if schedule.timing is None else found.timing(schedule.timing)
