"""The checks that `compile(check=...)` asks for: what they are called, and when they make sense."""

from __future__ import annotations

from typing import Any

from pto_wsp.errors import CompileError, RaceError, ScheduleError
from pto_wsp.schedule import DepsMode
from pto_wsp.sim.settings import Settings
from pto_wsp.sim.simulation import Snapshot

__all__ = ["look_for", "wanted"]

CHECKS = {
    "races": "two tasks that nothing puts in order touch the same elements, one of them writing",
    "hazards": "two tasks overlap without touching identical regions, where edges are inferred from identical ones",
}


def wanted(given: Any, settings: Settings) -> tuple[str, ...]:
    """The checks that a program was compiled with.

    raises  CompileError for what is no check; ScheduleError for one that has no meaning under the schedule
    """
    names = (given,) if given is None or isinstance(given, str) else given
    if not isinstance(names, (tuple, list)) or any(name is not None and name not in CHECKS for name in names):
        known = "; ".join(f"{name!r}: {meaning}" for name, meaning in CHECKS.items())
        raise CompileError(f"compile(check={given!r}): a check, or a tuple of them, is one of {known}")
    if "hazards" in names and settings.infer is None:
        raise ScheduleError(
            "check='hazards' looks for overlaps that Deps.infer_tensor_map_exact() cannot see, and this schedule "
            "infers no edges. Use check='races', which looks for all tasks that are not in order.", "deps"
        )  # fmt: skip
    return tuple(name for name in names if name is not None)


def look_for(checks: tuple[str, ...], snapshot: Snapshot, settings: Settings, have_run: bool = False) -> None:
    """Check a program as it is at one moment.

    have_run  the tasks are known only because they have run
    raises    RaceError, ScheduleError for what the checks find
    """
    from pto_wsp.sim import races  # late: programs that are not checked need not load it

    try:
        if "races" in checks:
            races.check(snapshot)
        if "hazards" in checks and settings.infer is DepsMode.INFER_TENSOR_MAP_EXACT:
            races.check(snapshot, exact=True)
    except (RaceError, ScheduleError) as error:
        if have_run:
            error.args = (f"{error.message} The program is steered by its own results, so its tasks have run by now.",)
        raise
