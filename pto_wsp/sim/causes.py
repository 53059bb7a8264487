"""Causes: whose end (or start) was each task waiting for? And the chain of causes that the makespan consists of.

In: when and where each task ran, and what it waited for. Out: per task the number of another task, or -1. The dataflow
engine and the clock of a pipeline record causes themselves; the in-order engine says only the reason, so the task is
found again here. Start reading at `of_in_order`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.lower.tasks import ENTER_SEQUENTIAL, EXIT
from pto_wsp.sim.inorder import Starts, Wait
from pto_wsp.sim.loops import Loop

__all__ = ["chain", "of_in_order", "of_rate_limit"]

_Int = NDArray[np.int64]

FRAME = 3  # words: sequential, the task that the next part waits for, the one that ended last in this block
DEPENDENCY, IN_ORDER, WINDOW_FULL = int(Wait.DEPENDENCY), int(Wait.IN_ORDER), int(Wait.WINDOW_FULL)


def follow(tasks: int, count: int, events: Any, start: Any, end: Any, wait: Any, frames: Any, cause: Any) -> int:
    """Causes of the tasks that waited for predecessors, or for the issue of an earlier task.

    events   pairs: a block that opens or closes, and the number of the next task
    cause    in: of tasks that waited for the window, the task that left it; else -1. Out: for all of them
    """
    frames[0], frames[1], frames[2] = 0, -1, -1
    frame, task, clock, mover = 0, 0, 0, -1
    for at in range(0, count + 1, 2):
        until = events[at + 1] if at < count else tasks
        while task < until:
            ready = frames[frame + 1]
            if ready >= 0 and end[ready] > clock:
                clock, mover = end[ready], ready
            if wait[task] == WINDOW_FULL:
                clock, mover = start[task], cause[task]
            elif wait[task] == DEPENDENCY:
                cause[task] = ready
            elif wait[task] == IN_ORDER and clock == start[task]:
                cause[task] = mover
            done = frames[frame + 2]
            if done < 0 or end[done] < end[task]:
                frames[frame + 2] = task
            if frames[frame] == 1:
                frames[frame + 1] = frames[frame + 2]
            task += 1
        if at < count and events[at] == EXIT:
            inner = frames[frame + 2]
            frame = max(frame - FRAME, 0)
            done = frames[frame + 2]
            if inner >= 0 and (done < 0 or end[done] < end[inner]):
                frames[frame + 2] = inner
            if frames[frame] == 1:
                frames[frame + 1] = frames[frame + 2]
        elif at < count:
            frames[frame + FRAME] = 1 if events[at] == ENTER_SEQUENTIAL else 0
            frames[frame + FRAME + 1] = frames[frame + FRAME + 2] = frames[frame + 1]
            frame += FRAME
    return 0


_FOLLOW = Loop(follow, "i64", "i64", "i64[]", "i64[]", "i64[]", "u8[]", "i64[]", "i64[]")


def of_in_order(events: _Int, starts: Starts, end: _Int, lanes: Sequence[_Int]) -> _Int:
    """The cause of each task under the in-order engine.

    events  pairs of a block that opens or closes and the number of the next task
    lanes   per worker its tasks, in the order they ran
    """
    start, wait, tasks = starts.start, starts.wait, len(end)
    cause = np.full(tasks, -1, np.int64)
    if not tasks:
        return cause
    for lane in lanes:
        cause[lane[1:]] = lane[:-1]
    cause[wait != Wait.WORKER_BUSY] = -1
    ended = _first_to_end(start, end)
    full = wait == Wait.WINDOW_FULL
    cause[full] = ended[full]
    frames = np.zeros(FRAME * (len(events) + 1), np.int64)
    _FOLLOW(tasks + len(events), tasks, len(events), np.append(events, [0, 0]), start, end, wait, frames, cause)
    unknown = (wait == Wait.IN_ORDER) & (cause < 0)  # held up by a task that waited for the window, then for its worker
    cause[unknown] = ended[unknown]
    return cause


def _first_to_end(start: _Int, end: _Int) -> _Int:
    """For each task the first in program order of those that ended as it started, -1 unless it comes before."""
    order = np.argsort(end, kind="stable")
    at = np.searchsorted(end[order], start)
    found = order[np.minimum(at, len(order) - 1)]
    return np.where((end[found] == start) & (found < np.arange(len(end))), found, -1)


def of_rate_limit(cause: _Int, start: _Int, wait: NDArray[np.uint8]) -> _Int:
    """The same, where tasks that waited for the rate limit have the one that started before them as cause."""
    limited = wait == Wait.RATE_LIMIT
    if not limited.any():
        return cause
    order = np.argsort(start, kind="stable")
    before = np.full(len(start), -1, np.int64)
    before[order[1:]] = order[:-1]
    return np.where(limited, before, cause)


def chain(cause: _Int, end: _Int) -> _Int:
    """From the task that ends last (of several, the first in program order) back along the causes, in time order."""
    if not len(end):
        return np.zeros(0, np.int64)
    task, found = int(np.argmax(end)), list[int]()
    while task >= 0 and len(found) <= len(end):
        found.append(task)
        task = int(cause[task])
    return np.array(found[::-1], np.int64)
