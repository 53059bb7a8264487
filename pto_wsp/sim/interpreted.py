"""target="numpy": the tasks of a table run as plain Python, one after the other, on views of the user's arrays.

The same table, the same checks and the same addresses as for machine code; only the kernels are different. So print
and breakpoint work inside a kernel, and what it does is what the op table says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import ExecutionError
from pto_wsp.lower.expand import Call, Expansion
from pto_wsp.lower.places import Place
from pto_wsp.lower.tasks import TILE_WORDS, TaskTable
from pto_wsp.sim.bodies import failed, scalar_of, tile_of
from pto_wsp.sim.execute import check_output
from pto_wsp.trace.source import line_of_error

__all__ = ["Interpreter"]


class Interpreter:
    """The kernels of one workload as Python; used like an Executor."""

    def __init__(self, expansion: Expansion) -> None:
        self.expansion = expansion
        for kernel in expansion.kernels:
            if kernel.graph.custom is not None:
                kernel.graph.custom.function  # noqa: B018  # a kernel without a CPU body is refused now
        self.phases: dict[str, float] = {}  # there is no machine code to make

    def bind(self, arrays: Sequence[NDArray[Any]], where: Sequence[Place]) -> None:
        """The arrays that the next chunks work on, see Executor.bind.

        raises  ExecutionError for an array that is written but read-only, or whose elements share memory
        """
        for call in self.expansion.calls:
            for binding in call.tiles:
                if call.writes(binding):
                    check_output(arrays[binding.tensor], call, binding)

    def run(self, table: TaskTable, stop: NDArray[np.int64], done: Callable[[int], None]) -> None:
        """Run the tasks of one chunk in program order, until `stop` is set; `done(1)` after each."""
        task = table.first_task
        for row in np.flatnonzero(table.kernel[: table.count] >= 0).tolist():
            if stop[0]:
                return
            self._task(self.expansion.calls[table.leaf[row]], table, row, task)
            done(1)
            task += 1

    def _task(self, call: Call, table: TaskTable, row: int, number: int) -> None:
        words = table.args[row]
        graph = self.expansion.kernels[call.kernel].graph
        given: dict[str, Any] = dict(call.task.args)
        tiles = len(graph.tile_params) * TILE_WORDS
        for i, param in enumerate(graph.tile_params):
            given[param.name] = tile_of(words[i * TILE_WORDS : (i + 1) * TILE_WORDS].tolist(), param.type.dtype)
        for param, word in zip(graph.scalar_params, words[tiles:], strict=False):
            given[param.name] = scalar_of(word, param.type.dtype)
        try:
            call.task.kernel.interpret(**given)
        except ExecutionError:
            raise
        except Exception as error:
            raise failed(call, table.axes[row].tolist(), number, error, line_of_error(error)) from error
