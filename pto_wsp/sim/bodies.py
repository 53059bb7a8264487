"""What went wrong inside the CPU body of a custom kernel: which task it was, and where in the user's code.

The machine code of a body notes that it failed, and stops the run (lower/custom.py). Here that becomes a KernelError.
numba keeps the line of a `raise` statement, but not that of an index out of bounds: then the body is run once more, as
plain Python on copies of the task's arrays, to find it. Start reading at `raise_failure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pto_wsp.errors import KernelError, SourceLine
from pto_wsp.lower import custom
from pto_wsp.lower.expand import Call, Expansion
from pto_wsp.lower.tasks import TILE_WORDS, TaskTable
from pto_wsp.trace.custom import call as run_body
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.types import DType

__all__ = ["failed", "raise_failure", "scalar_of", "tile_of"]


def raise_failure(expansion: Expansion, table: TaskTable, records: Sequence[NDArray[np.int64]]) -> None:
    """raises KernelError for the first task, in program order, whose body one of the records says to have failed

    Failures of tasks that are not in the table are left alone: it may be a part of one.
    """
    begin, size = int(table.args.ctypes.data), table.args.strides[0]
    found = [r for r in records if r[custom.FAILED] and 0 <= int(r[custom.ARGS]) - begin < table.capacity * size]
    if not found:
        return
    record = min(found, key=lambda r: int(r[custom.ARGS]))
    row = (int(record[custom.ARGS]) - begin) // size
    error = custom.raised(int(record[custom.CODE]), int(record[custom.INFO]))
    for done in found:
        done[custom.FAILED] = 0
    use = expansion.kernels[int(table.kernel[row])]
    function = use.graph.custom.function if use.graph.custom is not None else None
    line = _line_in(error.__traceback__, function.__code__.co_filename) if function is not None else None
    if line is None:
        line, error = _again(use.graph, table.args[row], error)
    task = table.first_task + int(np.count_nonzero(table.kernel[:row] >= 0))
    call = expansion.calls[int(table.leaf[row])]
    raise failed(call, table.axes[row].tolist(), task, error, line) from error


def failed(call: Call, axes: Sequence[int], task: int, error: BaseException, line: SourceLine | None) -> KernelError:
    """A kernel's own code raised something.

    axes   the values in `kernel[...]`, at least; line: of the user's code that raised it, if it is known
    """
    values = ", ".join(str(axis) for axis in axes[: len(call.task.axes)])
    name = f"{call.name}[{values}]" if values else call.name
    message = f"{name}, task {task}, failed: {type(error).__name__}: {error}"
    made = KernelError(message, task_id=task, kernel_name=call.name)
    return made.at(line or call.task.line, f"running {name}")


def _again(graph: KernelGraph, words: NDArray[np.int64], error: BaseException) -> tuple[SourceLine, BaseException]:
    """Where the body fails as plain Python, and with what; its first line, if it does not."""
    assert graph.custom is not None
    code = graph.custom.function.__code__
    first = SourceLine(code.co_filename, code.co_firstlineno, code.co_firstlineno, None, None, code.co_name)
    tiles = len(graph.tile_params)
    arrays = [tile_of(words[TILE_WORDS * i : TILE_WORDS * (i + 1)].tolist(), p.type.dtype).copy()
              for i, p in enumerate(graph.tile_params)]
    numbers = zip(graph.scalar_params, words[TILE_WORDS * tiles :], strict=False)
    scalars = [scalar_of(word, p.type.dtype) for p, word in numbers]
    try:
        with np.errstate(all="ignore"):
            run_body(graph, arrays, scalars)
    except Exception as second:
        line = _line_in(second.__traceback__, code.co_filename)
        if line is not None and isinstance(second, type(error)):
            return line, second
    return first, error


def _line_in(trace: TracebackType | None, file: str) -> SourceLine | None:
    """The innermost line of a traceback that lies in a file."""
    found = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == file:
            found = SourceLine(file, trace.tb_lineno, trace.tb_lineno, None, None, code.co_name)
        trace = trace.tb_next
    return found


# ---- argument words ------------------------------------------------------------------------------------------------


class _Memory:
    """A region of memory as NumPy's array protocol describes it."""

    def __init__(self, address: int, shape: tuple[int, int], strides: tuple[int, int], itemsize: int) -> None:
        self.__array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "strides": strides,
            "typestr": f"<u{itemsize}",
            "version": 3,
        }


def tile_of(words: list[int], dtype: DType) -> NDArray[Any]:
    """The tile that five argument words describe; it writes through to the user's array, which outlives it."""
    address, row_stride, column_stride, rows, columns = words
    memory = _Memory(address, (rows, columns), (row_stride, column_stride), dtype.itemsize)
    return np.asarray(memory).view(dtype.numpy)


def scalar_of(word: np.int64, dtype: DType) -> Any:
    """The number in the low bytes of an argument word."""
    return np.frombuffer(word.tobytes()[: dtype.itemsize], dtype.numpy)[0].item()
