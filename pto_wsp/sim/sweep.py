"""Sweep: one workload under many schedules, here, in other processes or on a cluster; one record for each.

    records = pto_wsp.sweep(program, pto_wsp.schedule_grid(dispatch=[...], window=[8, 64, 512]))
    pandas.DataFrame(records).sort_values("makespan")

Nothing is executed: the clock runs on a snapshot of the program. To other processes it travels as printed text, and so
do the schedules: an executor needs to know nothing of this package but how to import it. What a record holds is the
same whoever made it, except for the wall time. Start reading at `sweep`.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pto_wsp.errors import IRConversionError, PtoError, ScheduleError, UsageError, show_user_frames
from pto_wsp.schedule import Schedule, TaskGraphConfig, TaskWindow
from pto_wsp.sim.progress import Progress, someone_watches
from pto_wsp.sim.simulation import Simulation, Snapshot

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from pto_wsp.scalar_expr import LoopVar

__all__ = ["SweepInterrupted", "schedule_grid", "sweep"]

REASONS = ("WINDOW_FULL", "DEPENDENCY", "WORKER_BUSY", "RATE_LIMIT", "START", "CHANNEL_EMPTY", "CHANNEL_FULL")

_LITTLE_TEXT = 1 << 26  # characters of programs that are sent in all
_FEWEST_CHUNKS = 16

Job = tuple[str, str]  # name of a schedule, and the schedule as text
Named = tuple[str, str, Schedule]  # the same, and the schedule itself
Record = dict[str, Any]


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep. A KeyboardInterrupt, no PtoError: what does not ask for it ends, as it does without us.

    records  those that were there already, in the order of the schedules
    """

    def __init__(self, records: list[Record], of: int) -> None:
        super().__init__(f"sweep stopped after {len(records)} of {of} schedules; .records has what they gave")
        self.records = records


@show_user_frames()
def sweep(
    program: Any,
    schedules: Sequence[Schedule] | Mapping[str, Schedule],
    *,
    cycles: Any = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> list[Record]:
    """Simulate a program under each of these schedules.

    program    a Program as it is now (sizes, symbols, data, and what its last run has decided), or a snapshot of one
    schedules  a list, or a dict of names; `schedule_grid(...)` makes all combinations of some choices
    cycles     that tasks take, as in `program.simulate(cycles=...)`
    executor   any concurrent.futures.Executor: a ProcessPoolExecutor, `client.get_executor()` of a Dask cluster; None:
               one after the other in this process
    progress   True or False: a progress bar; None: in terminals and notebooks
    returns    a dict for each schedule, in their order, all with the same keys; pandas.DataFrame reads the list
               schedule, directives       its name, and all of it as text
               engine, workers, window
               tasks, makespan            cycles
               utilisation                busy share of the workers, 0 to 1
               critical_path, critical_path_tasks   cycles of the longest chain, and how many tasks are on it
               lower_bound, bound_by      a makespan that cannot be beaten, and why: the greatest of `lower_bounds`
               window_full_stalls, window_full_cycles, ...   how often and how long tasks stalled, by reason
               window_high_water, ready_high_water           most in the window, most tasks ready, at one time
               steals, unseen_overlaps    see ProgramStats
               simulate_ms                wall time
               error                      None; or why this schedule could not be simulated: the numbers are None then

    A schedule that cannot be simulated, and a worker process that dies, cost only the records they concern; a warning
    at the end says how many. Ctrl-C raises SweepInterrupted, which has the finished records.

    raises  UsageError for what is no program or no schedule, and for an executor that takes no work; what
            `program.snapshot()` raises
    """
    snapshot = _snapshot_of(program)
    snapshot = snapshot if cycles is None else snapshot.with_cycles(cycles)
    named = _named(schedules, snapshot)
    shown = someone_watches() if progress is None else bool(progress)
    bar = Progress(f"sweep {snapshot.name}", "schedules") if shown else None
    with bar or nullcontext():
        if executor is None:
            records = _serial(snapshot, named, bar)
        else:
            records = _elsewhere(snapshot, named, executor, bar)
    failed = [record for record in records if record["error"] is not None]
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(records)} schedules could not be simulated, see 'error' in their records. First: "
            f"{failed[0]['schedule']}: {failed[0]['error']}", stacklevel=3,
        )  # fmt: skip
    return records


def schedule_grid(
    *,
    dispatch: Any = None,
    streams: Any = 1,
    stream_by: Any = None,
    timing: Any = None,
    machine: Any = None,
    **graph: Any,
) -> list[Schedule]:
    """Every combination of some choices. The last option varies fastest.

    Each option is one value or a list of values; None stands for "not given". The first five are those of Schedule, the
    others those of `task_graph(...)`: deps, window (also a number of tasks), pools, ready, start, trace.

        schedule_grid(dispatch=[DispatchPolicy.round_robin(n) for n in (2, 4, 8)], window=[None, 16, 64])
    """
    outer = {"dispatch": dispatch, "streams": streams, "stream_by": stream_by, "timing": timing, "machine": machine}
    outer = {name: value for name, value in outer.items() if name != "machine" or value is not None}
    choices = {name: _choices(value) for name, value in {**outer, **graph}.items()}
    made = []
    for values in itertools.product(*choices.values()):
        given = {n: v for n, v in zip(choices, values, strict=True) if v is not None}
        inner = {name: given.pop(name) for name in graph if name in given}
        if isinstance(inner.get("window"), int):
            inner["window"] = TaskWindow(inner["window"])
        if inner:
            given["task_graph"] = TaskGraphConfig(**inner)
        made.append(Schedule(**given))
    return made


def _choices(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, range, set, frozenset)) else [value]


# ---- what is simulated ---------------------------------------------------------------------------------------------


def _snapshot_of(program: Any) -> Snapshot:
    if isinstance(program, Snapshot):
        return program
    if not callable(getattr(program, "snapshot", None)):
        hint = "; compile it first" if hasattr(program, "compile") else ""
        raise UsageError(f"sweep() needs a Program, as workload.compile() makes; got {program!r}{hint}")
    found = program.snapshot()
    assert isinstance(found, Snapshot)
    return found


def _named(schedules: Any, snapshot: Snapshot) -> list[Named]:
    """Schedules with their names, those of a dict or else what they print as, and what they print as."""
    if isinstance(schedules, Schedule) or isinstance(schedules, (str, bytes)):
        raise UsageError(f"sweep() needs a list or a dict of schedules; got {schedules!r}")
    try:
        pairs = list(schedules.items()) if isinstance(schedules, Mapping) else [(None, s) for s in schedules]
    except TypeError:
        raise UsageError(f"sweep() needs a list or a dict of schedules; got {schedules!r}") from None
    for name, schedule in pairs:
        if not isinstance(schedule, Schedule):
            hint = "; a workload has one: workload.schedule" if hasattr(schedule, "schedule") else ""
            which = "" if name is None else f" as {name!r}"
            raise UsageError(f"sweep() needs Schedule(DispatchPolicy..., ...) objects; got {schedule!r}{which}{hint}")
    loops = snapshot.loops
    texts = [_name(schedule, loops) for _, schedule in pairs]
    return [(t if name is None else str(name), t, s) for t, (name, s) in zip(texts, pairs, strict=True)]


def _name(schedule: Schedule, loops: Sequence[LoopVar]) -> str:
    from pto_wsp.sim.schedule_text import print_schedule

    try:
        return print_schedule(schedule, loops)
    except (IRConversionError, ScheduleError):  # a key that runs as Python, or fails: it has no text
        return repr(schedule)


# ---- records -------------------------------------------------------------------------------------------------------


def _record(snapshot: Snapshot, name: str, directives: str, schedule: Schedule) -> Record:
    """The record of one schedule."""
    record = _empty(name, directives)
    try:
        found = snapshot.simulate(schedule)
    except Exception as error:
        return {**record, "error": _text(error)}
    return {**record, **_numbers(found)}


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.message if isinstance(error, PtoError) else error}"


def _empty(name: str, directives: str) -> Record:
    stalls = [f"{reason.lower()}_{what}" for reason in REASONS for what in ("stalls", "cycles")]
    numbers = [
        "engine", "workers", "window", "tasks", "makespan", "utilisation", "critical_path", "critical_path_tasks",
        "lower_bound", "bound_by", *stalls, "window_high_water", "ready_high_water", "steals", "unseen_overlaps",
        "simulate_ms",
    ]  # fmt: skip
    return {"schedule": name, "directives": directives, **dict.fromkeys(numbers), "error": None}


def _numbers(found: Simulation) -> Record:
    settings, bounds = found.schedule, dict(found.lower_bounds)
    assert settings is not None
    stalls = {stall.reason: stall for stall in found.stalls}
    record = {
        "engine": settings.engine, "workers": found.workers, "window": settings.window, "tasks": found.task_count,
        "makespan": found.total_cycles, "utilisation": found.utilisation, "critical_path": found.critical_path_cycles,
        "critical_path_tasks": found.critical_path_tasks,
        "lower_bound": max(bounds.values(), default=0), "bound_by": max(bounds, key=bounds.__getitem__, default=""),
    }  # fmt: skip
    for reason in REASONS:
        stall = stalls.get(reason)
        record[f"{reason.lower()}_stalls"] = stall.count if stall else 0
        record[f"{reason.lower()}_cycles"] = stall.cycles if stall else 0
    for reason, column in (("WINDOW_FULL", "window_high_water"), ("WORKER_BUSY", "ready_high_water")):
        record[column] = stalls[reason].high_water if reason in stalls else 0
    more = {"steals": found.steals, "unseen_overlaps": found.unseen_overlaps, "simulate_ms": found.execute_time_ms}
    return {**record, **more}


# ---- here ----------------------------------------------------------------------------------------------------------


def _serial(snapshot: Snapshot, named: Sequence[Named], bar: Progress | None) -> list[Record]:
    records: list[Record] = []
    try:
        for name, directives, schedule in named:
            records.append(_record(snapshot, name, directives, schedule))
            if bar is not None:
                bar.show(len(records), len(named))
    except KeyboardInterrupt:
        raise SweepInterrupted(records, len(named)) from None
    return records


# ---- elsewhere -----------------------------------------------------------------------------------------------------


def _elsewhere(
    snapshot: Snapshot, named: Sequence[Named], executor: Executor, bar: Progress | None
) -> list[Record]:
    from pto_wsp.sim.schedule_text import print_schedule
    from pto_wsp.sim.snapshot_text import print_snapshot

    records: dict[int, Record] = {}
    jobs: list[tuple[int, Job]] = []
    loops = snapshot.loops
    for number, (name, directives, schedule) in enumerate(named):
        try:
            jobs.append((number, (name, print_schedule(schedule, loops))))
        except (IRConversionError, ScheduleError) as error:
            records[number] = {**_empty(name, directives), "error": _text(error)}
    text = print_snapshot(snapshot, schedule=False)
    futures: dict[Future[list[Record]], list[tuple[int, Job]]] = {}
    try:
        for chunk in _chunks(jobs, len(text)):
            _submit(executor, text, chunk, futures, records)
        for future in _finished(futures):
            _collect(future, futures.pop(future), records)
            if bar is not None:
                bar.show(len(records), len(named))
    except KeyboardInterrupt:
        for future, chunk in futures.items():
            if not future.cancel() and future.done() and future.exception() is None:
                _collect(future, chunk, records)
        raise SweepInterrupted([records[k] for k in sorted(records)], len(named)) from None
    return [records[number] for number in range(len(named))]


def _chunks(jobs: list[tuple[int, Job]], characters: int) -> Iterator[list[tuple[int, Job]]]:
    """Jobs that are sent together: one by one, unless the program is so long that it should not be sent so often."""
    count = max(_FEWEST_CHUNKS, _LITTLE_TEXT // max(characters, 1))
    size = -(-len(jobs) // count) or 1
    return (jobs[k : k + size] for k in range(0, len(jobs), size))


def _submit(
    executor: Executor, text: str, chunk: list[tuple[int, Job]], futures: dict[Any, Any], records: dict[int, Record]
) -> None:
    from concurrent.futures import BrokenExecutor

    try:
        futures[executor.submit(simulate_jobs, text, [job for _, job in chunk])] = chunk
    except BrokenExecutor as error:  # a worker has died meanwhile
        _lost(chunk, error, records)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise UsageError(f"the executor {executor!r} of sweep() takes no work: {error}") from error


def _finished(futures: Mapping[Future[list[Record]], Any]) -> Iterator[Future[list[Record]]]:
    """The futures, as they are done."""
    from concurrent.futures import FIRST_COMPLETED, wait

    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
        yield from done


def _collect(future: Future[list[Record]], chunk: list[tuple[int, Job]], records: dict[int, Record]) -> None:
    try:
        found = future.result()
    except Exception as error:  # also CancelledError, of an executor that was shut down
        _lost(chunk, error, records)
        return
    for (number, _), record in zip(chunk, found, strict=True):
        records[number] = record


def _lost(chunk: list[tuple[int, Job]], error: BaseException, records: dict[int, Record]) -> None:
    why = f"the worker process that was to simulate it did not answer: {_text(error)}"
    for number, (name, directives) in chunk:
        records[number] = {**_empty(name, directives), "error": why}


def simulate_jobs(text: str, jobs: Sequence[Job]) -> list[Record]:
    """What a worker does: simulate a program, given as text, under schedules given as text."""
    from pto_wsp.sim.schedule_text import parse_schedule

    snapshot = _parsed(text)
    loops = snapshot.loops
    return [_record(snapshot, name, text, parse_schedule(text, loops)) for name, text in jobs]


@lru_cache(maxsize=2)
def _parsed(text: str) -> Snapshot:
    return Snapshot.parse(text)
