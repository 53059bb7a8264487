"""Programs whose next tasks depend on the results of earlier ones: run as they unfold, and played again.

Where a slot is loaded from memory that tasks write, or tasks write the data of a ragged or sparse axis, the tasks so
far have to be run before the next ones are known. A Recording does that and keeps what was read; with this Log the
clock can run again, under any schedule, without running the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError
from pto_wsp.lower import control
from pto_wsp.lower.expand import Data
from pto_wsp.lower.tasks import TaskTable

__all__ = ["Log", "Recording", "Replaying"]

_PAGE = 1 << 16  # values


class Log:
    """What a run has read, in program order."""

    def __init__(self) -> None:
        self.pages: list[NDArray[Any]] = []  # values of slots, in the smallest type that holds them
        self.axes: list[Data] = []  # data of axes

    def add(self, values: NDArray[np.uint64]) -> None:
        self.pages.append(values.astype(np.min_scalar_type(int(values.max(initial=0)))))


class Recording:
    """A lower.expand.Host that runs the tasks.

    execute  runs the tasks of a table
    machine  address of native.run_rows, and those of the functions, the scratch memory and the count of tasks for it;
             zeros when tasks are to be run by `execute` only
    """

    def __init__(self, execute: Callable[[TaskTable], None], machine: Callable[[], tuple[int, int, int, int]]) -> None:
        self.log = Log()
        self._execute, self._machine = execute, machine
        self._page = np.zeros(_PAGE, np.uint64)
        self._latest: dict[int, Data] = {}  # per axis

    def begin(self, words: NDArray[np.int64]) -> None:
        words[control.MODE], words[control.LOG] = control.RECORD, self._page.ctypes.data
        words[control.ROOM] = len(self._page)
        self._set_machine(words)

    def run(self, table: TaskTable, begin: int, end: int, words: NDArray[np.int64]) -> None:
        if end > begin:
            self._execute(table.part(begin, end))
        self._set_machine(words)

    def axis(self, number: int, read: Callable[[], Data]) -> Data:
        found, before = read(), self._latest.get(number)
        if before is None or not all(map(np.array_equal, found, before)):
            self._latest[number] = before = found
        self.log.axes.append(before)
        return before

    def turn(self, words: NDArray[np.int64]) -> None:
        self.log.add(self._page[: words[control.CURSOR]])
        words[control.CURSOR] = 0

    def end(self, words: NDArray[np.int64]) -> None:
        self.turn(words)

    def _set_machine(self, words: NDArray[np.int64]) -> None:
        """Scratch memory may have moved when another kernel was compiled."""
        words[control.RUN : control.PROGRESS + 1] = self._machine()


class Replaying:
    """A lower.expand.Host that runs no task: what the program reads comes from a log."""

    def __init__(self, log: Log) -> None:
        self._pages, self._axes = iter(log.pages), iter(log.axes)
        self._page = np.zeros(0, np.uint64)

    def begin(self, words: NDArray[np.int64]) -> None:
        words[control.MODE] = control.REPLAY

    def run(self, table: TaskTable, begin: int, end: int, words: NDArray[np.int64]) -> None:
        pass

    def axis(self, number: int, read: Callable[[], Data]) -> Data:
        found = next(self._axes, None)
        if found is None:
            raise _different()
        return found

    def turn(self, words: NDArray[np.int64]) -> None:
        found = next((page for page in self._pages if len(page)), None)
        if found is None:
            raise _different()
        self._page = found.astype(np.uint64)
        words[control.LOG], words[control.ROOM] = self._page.ctypes.data, len(self._page)
        words[control.CURSOR] = 0

    def end(self, words: NDArray[np.int64]) -> None:
        pass


def _different() -> ExecutionError:
    return ExecutionError("this run reads more than the recorded one did: its inputs have changed; execute() again")
