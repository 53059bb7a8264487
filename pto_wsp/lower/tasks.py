"""TaskTable: the tasks of a workload, a struct of arrays in bounded chunks.

The expander (lower/expand.py) fills a table with the next rows of the workload in program order, hands it to its
consumers and fills it again, so memory does not grow with the number of tasks. A row is a task, or an event: a place
where a parallel or a sequential block opens or closes.

Events appear only where nesting really alternates. Outside every block, rows are parallel: they share one ready time.
    ENTER_SEQUENTIAL a ENTER_PARALLEL b c EXIT d EXIT        a, then b and c side by side, then d

FORGET, with the number of a kernel call in `leaf`, says that the call stands in the branch that was not taken: tasks
whose `after` names it do not wait for a task that it was in an earlier iteration.

SLOT, with the number of a bindings.SlotUse in `leaf`, says that a slot changes: tasks that read it from here on wait
for what the use says. Where it is loaded, `args` begins with the element, as a tile. Only expansions that were asked
for the edges of slots have such rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.lower.places import address_of

__all__ = ["COLUMNS", "ENTER_PARALLEL", "ENTER_SEQUENTIAL", "EXIT", "FORGET", "SLOT", "TILE_WORDS", "TaskTable"]

ENTER_PARALLEL, ENTER_SEQUENTIAL, EXIT, FORGET, SLOT = -1, -2, -3, -4, -5

TILE_WORDS = 5
"""Words of args per tile parameter: address, row stride, column stride (bytes), valid rows, valid columns."""


COLUMNS = ("kernel", "leaf", "tail", "cycles", "keys", "axes", "args")


@dataclass(eq=False)
class TaskTable:
    """Rows 0 .. count-1 of one chunk; what is beyond `count` has no meaning.

    Columns are reused for the next chunk: a consumer that keeps something copies it.
    """

    kernel: NDArray[np.int32]  # [rows] index into the program's kernels, or an event (negative)
    leaf: NDArray[np.int32]  # [rows] which kernel call of the workload tree; see FORGET and SLOT
    tail: NDArray[np.uint8]  # [rows] 1 when some tile of the task is partial
    cycles: NDArray[np.int64]  # [rows] duration of the task
    keys: NDArray[np.uint64]  # [keys, rows] numbers that the schedule wants to know of each task
    axes: NDArray[np.int64]  # [rows, most axis values] the values in k[...]
    args: NDArray[np.int64]  # [rows, words] what the kernel's machine code receives
    count: int = 0
    first_task: int = 0  # number of the first task of this chunk; tasks are the rows with kernel >= 0
    notes: Any = None  # what somebody has found out about these rows; gone when they are filled again

    @classmethod
    def empty(cls, capacity: int, words: int, axes: int, keys: int = 0) -> TaskTable:
        """A table of `capacity` rows, tasks of `words` argument words, `axes` axis values and `keys` keys."""
        return cls(
            kernel=np.empty(capacity, np.int32),
            leaf=np.empty(capacity, np.int32),
            tail=np.empty(capacity, np.uint8),
            cycles=np.empty(capacity, np.int64),
            keys=np.empty((keys, capacity), np.uint64),
            axes=np.empty((capacity, axes), np.int64),
            args=np.empty((capacity, words), np.int64),
        )

    def part(self, begin: int, end: int) -> TaskTable:
        """A table of these rows; it shares the columns' memory."""
        some, before = slice(begin, end), int(np.count_nonzero(self.kernel[:begin] >= 0))
        return TaskTable(
            self.kernel[some], self.leaf[some], self.tail[some], self.cycles[some], self.keys[:, some], self.axes[some],
            self.args[some], end - begin, self.first_task + before,
        )  # fmt: skip

    def row(self, row: int) -> TaskTable:
        """A table of this one row."""
        return self.part(row, row + 1)

    @cached_property
    def words(self) -> NDArray[np.int64]:
        """For native code: the address of each of COLUMNS, the number of rows, the widths of `axes` and `args`."""
        places = [address_of(getattr(self, column)) for column in COLUMNS]
        return np.array([*places, self.capacity, self.axes.shape[1], self.args.shape[1]], np.int64)

    @property
    def capacity(self) -> int:
        return len(self.kernel)

    @property
    def task_count(self) -> int:
        """Tasks in this chunk."""
        return int(np.count_nonzero(self.kernel[: self.count] >= 0))
