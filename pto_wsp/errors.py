"""One family of errors, each able to show the user's own source line.

Every error of this package is a `PtoError`.  An error that knows where the user asked for the failing thing
carries a `SourceLine`; `str(error)` then shows that line with a caret, the message below it:

    rmsnorm.py:14, tracing kernel rmsnorm_tile
        y = pto.mul(x, pto.rsqrt(m))
            ^^^^^^^^^^^^^^^^^^^^^^^^
    TypeCheckError: mul needs tiles of one type; got tile<32x128xf32> and tile<32x1xf32>.

Several classes also derive from a built-in error, so that `except ValueError` works where Python's own
functions would raise one.  Entry points wrap themselves in `show_user_frames()`: the traceback that a user
sees then holds the user's frames only.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable
from contextlib import ContextDecorator
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

__all__ = [
    "ArgumentError",
    "ArityError",
    "AxisError",
    "ChannelClosed",
    "ChannelError",
    "ChannelFull",
    "CompileError",
    "Deadlock",
    "ExecutionError",
    "IRConversionError",
    "KernelError",
    "LayoutIncompatibleError",
    "OperandError",
    "PolicyError",
    "PtoError",
    "RaceError",
    "RegionError",
    "ScalarOverflowError",
    "ScheduleError",
    "SourceLine",
    "TensorError",
    "TileAsBoolError",
    "TileUseError",
    "TypeCheckError",
    "UnknownOperationError",
    "UsageError",
    "WindowOverflow",
    "show_user_frames",
]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STANDARD_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_LINES_SHOWN = 6  # a longer statement is cut, with "..." in place of the rest


# -------------------------------------------------------------------------------------------- the user's line


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A place in the user's code.

    line, end_line       1-based
    column, end_column   0-based, in UTF-8 bytes, as `code.co_positions()` gives them; None when unknown
    function             name of the function the line belongs to
    """

    file: str
    line: int
    end_line: int
    column: int | None
    end_column: int | None
    function: str

    @property
    def text(self) -> str:
        """The statement's source lines, or "" when no source is at hand. Works for notebook cells."""
        lines = [linecache.getline(self.file, n) for n in range(self.line, self.end_line + 1)]
        return "".join(lines).rstrip()

    @property
    def place(self) -> str:
        """`path:line`, the path as short as it can be; `cell 3:line` in a notebook."""
        return f"{_readable(self.file)}:{self.line}"

    def excerpt(self, doing: str = "") -> str:
        """Place, source text and carets, without a final newline.

        doing   what was going on, e.g. "tracing kernel softmax"; follows the place in the first line
        """
        head = f"{self.place}, {doing}" if doing else self.place
        return "\n".join([head, *self._marked()])

    def _marked(self) -> list[str]:
        """The source lines, indented by four, each with its carets below."""
        rows = self.text.splitlines()
        if not rows:
            return []
        carets = [_carets(row, *self._span(row, i, len(rows))) for i, row in enumerate(rows)]
        indent = min((len(row) - len(row.lstrip()) for row in rows if row.strip()), default=0)
        marked: list[str] = []
        for row, caret in list(zip(rows, carets, strict=True))[:_LINES_SHOWN]:
            marked.append(("    " + row[indent:]).rstrip())
            if caret.strip():
                marked.append("    " + caret[indent:])
        return marked if len(rows) <= _LINES_SHOWN else [*marked, "    ..."]

    def _span(self, row: str, i: int, count: int) -> tuple[int, int]:
        """First and last+1 character of `row` to mark; row `i` of `count`."""
        if self.column is None or self.end_column is None:
            return 0, 0
        start = _characters(row, self.column) if i == 0 else 0
        return start, _characters(row, self.end_column) if i == count - 1 else len(row)

    def __str__(self) -> str:
        return self.place


def _characters(row: str, column: int) -> int:
    """Byte offset in UTF-8 -> character offset."""
    return len(row.encode()[:column].decode(errors="replace"))


def _carets(row: str, start: int, end: int) -> str:
    """Carets under row[start:end] but not under blanks at its ends; tabs are kept so that columns line up."""
    start = max(start, len(row) - len(row.lstrip()))
    end = min(end, len(row.rstrip()))
    padding = "".join("\t" if c == "\t" else " " for c in row[:start])
    return padding + "^" * max(0, end - start)


def _readable(file: str) -> str:
    """A file as the user knows it: the number of a notebook's cell, or the path from where they stand."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None and hasattr(shell, "get_ipython") else None
    cells = getattr(getattr(running, "compile", None), "_filename_map", {})
    if file in cells:
        return f"cell {cells[file]}"
    if not os.path.isabs(file):
        return file
    try:
        short = os.path.relpath(file)
    except (ValueError, OSError):  # another drive; a working directory that is gone
        return file
    return file if short.startswith("..") else short


# ---------------------------------------------------------------------------------------------- the family

_Error = TypeVar("_Error", bound="PtoError")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class PtoError(Exception):
    """Base of every error of this package.

    line    the user's line that asked for the failing thing, or None
    doing   what was going on there, e.g. "tracing kernel softmax"
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.line: SourceLine | None = None
        self.doing: str = ""

    @property
    def message(self) -> str:
        """The message alone, without the source excerpt."""
        return str(self.args[0]) if self.args else ""

    def at(self: _Error, line: SourceLine | None, doing: str = "") -> _Error:
        """Attach the user's line and return self: `raise OperandError("...").at(line)`.

        The first line attached stays, since it is the closest to the cause; a later `doing` fills a missing
        one.
        """
        self.line = self.line or line
        self.doing = self.doing or doing
        return self

    def __str__(self) -> str:
        if self.line is None:
            return self.message
        return f"{self.line.excerpt(self.doing)}\n{type(self).__name__}: {self.message}"


class CompileError(PtoError):
    """A workload or kernel cannot be compiled."""

    def __init__(self, message: str = "", workload_name: str | None = None, target: str | None = None) -> None:
        super().__init__(message)
        self.workload_name = workload_name
        self.target = target


class TypeCheckError(CompileError):
    """Types, shapes or layouts do not fit together."""

    def __init__(self, message: str = "", expected: Any = None, actual: Any = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class OperandError(TypeCheckError, ValueError):
    """An operation was given an operand of a wrong shape, dtype or value."""


class ScalarOverflowError(OperandError, OverflowError):
    """A number does not fit the dtype of a scalar parameter."""


class ArityError(OperandError, TypeError):
    """An operation was called with a wrong number of operands."""


class ArgumentError(TypeCheckError, TypeError):
    """The arguments of a call do not fit the parameters."""


class UnknownOperationError(TypeCheckError, AttributeError):
    """An operation that does not exist."""


class TensorError(TypeCheckError, TypeError, ValueError):
    """Data, shape, dtype and layout of a Tensor do not agree."""


class TileAsBoolError(TypeCheckError, TypeError):
    """A tile or a symbolic value was used as a Python bool: in `if`, `and`, `or`, `not` or `in`."""


class TileUseError(TypeCheckError, TypeError):
    """A tile was used in a way that needs its numbers, which it does not have while its kernel is traced."""


class LayoutIncompatibleError(TypeCheckError, TypeError):
    """Two layouts have no join: one dimension would have to be distributed in two ways."""


class IRConversionError(CompileError):
    """A construct has no form in the graph it should become part of."""


class AxisError(PtoError, ValueError, TypeError):
    """An axis was given a size or data that cannot be iterated."""


class ExecutionError(PtoError):
    """A run failed."""

    def __init__(self, message: str = "", task_id: int | None = None, kernel_name: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.kernel_name = kernel_name


class KernelError(ExecutionError):
    """A kernel failed while it ran."""


class RegionError(ExecutionError):
    """A task would touch elements outside its array.

    axes     the values in `kernel[...]` of the task
    tensor   the kernel's parameter that the array was bound to
    """

    def __init__(
        self,
        message: str = "",
        task_id: int | None = None,
        kernel_name: str | None = None,
        axes: tuple[int, ...] = (),
        tensor: str | None = None,
    ) -> None:
        super().__init__(message, task_id, kernel_name)
        self.axes = axes
        self.tensor = tensor


class RaceError(ExecutionError):
    """Two tasks that nothing puts in order touch the same elements, at least one of them writing.

    tasks, kernels, axes   of both: numbers in program order, kernel names, the values in `kernel[...]`
    tensor                 the parameter of the second task that the array was bound to
    region                 per dimension of that array, first and last+1 index of the elements that both touch
    """

    def __init__(
        self,
        message: str = "",
        tasks: tuple[int, int] = (-1, -1),
        kernels: tuple[str, str] = ("", ""),
        axes: tuple[tuple[int, ...], tuple[int, ...]] = ((), ()),
        tensor: str | None = None,
        region: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__(message, tasks[1], kernels[1] or None)
        self.tasks, self.kernels, self.axes = tasks, kernels, axes
        self.tensor, self.region = tensor, region


class ScheduleError(PtoError):
    """A schedule asks for something contradictory or unsupported."""

    def __init__(self, message: str = "", primitive: str | None = None, target: str | None = None) -> None:
        super().__init__(message)
        self.primitive = primitive
        self.target = target


class PolicyError(CompileError, ScheduleError, ValueError, TypeError):
    """A scheduling policy was given a value that it cannot have, or something else was given for a policy."""


class WindowOverflow(ExecutionError, ScheduleError):
    """A task did not fit into a task window of mode ABORT.

    task_id  number of the task in program order
    """


class Deadlock(ExecutionError, ScheduleError):
    """A simulation can make no progress: tasks are left, and none of them can ever start."""


class UsageError(PtoError, RuntimeError):
    """A part of the interface was used in a place where it has no meaning."""


class ChannelError(PtoError):
    """Base of the channel errors."""


class ChannelClosed(ChannelError):
    """Something was sent into, or waited for on, a closed channel."""

    def __init__(self, message: str = "Operation on closed channel", channel_name: str | None = None) -> None:
        super().__init__(message)
        self.channel_name = channel_name


class ChannelFull(ChannelError):
    """A channel has no room."""

    def __init__(
        self, message: str = "Channel is full", channel_name: str | None = None, capacity: int | None = None
    ) -> None:
        super().__init__(message)
        self.channel_name = channel_name
        self.capacity = capacity


# ---------------------------------------------------------------------------------------------- tracebacks


class show_user_frames(ContextDecorator):
    """Context manager and decorator for entry points: take our own frames out of an error's traceback.

    Touches a `PtoError`, and any error that the user's own code raised further in; our own bugs keep their
    frames. The unabridged traceback stays reachable as `error.full_traceback`.
    """

    def __enter__(self) -> show_user_frames:
        return self

    def __call__(self, function: _Function) -> _Function:
        @wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:  # the context manager without its calls
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                self.__exit__(type(error), error, error.__traceback__)
                raise

        return inner  # type: ignore[return-value]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not (isinstance(error, PtoError) or _raised_by_user(trace)):
            return
        if getattr(error, "full_traceback", None) is None:
            error.full_traceback = trace  # type: ignore[attr-defined]
        # From Python 3.11 on, leaving __exit__ raises the error again with whatever traceback it holds now.
        error.__traceback__ = _user_frames(trace)
        cause = error.__cause__
        while isinstance(cause, PtoError):                  # the same failure, before it was wrapped
            cause.__traceback__, cause = _user_frames(cause.__traceback__), cause.__cause__
        if sys.version_info < (3, 11):
            raise error


def _is_ours(trace: TracebackType) -> bool:
    if str(trace.tb_frame.f_globals.get("__name__")).startswith("pto_wsp."):  # also what a dataclass of ours generated
        return True
    return os.path.abspath(trace.tb_frame.f_code.co_filename).startswith(_PACKAGE)


def _is_library(trace: TracebackType) -> bool:
    file = trace.tb_frame.f_code.co_filename
    return "site-packages" in file or file.startswith((_STANDARD_LIBRARY, "<frozen"))


def _raised_by_user(trace: TracebackType | None) -> bool:
    """Was the innermost frame that is no library's the user's, not ours?"""
    innermost = None
    while trace is not None:
        innermost = innermost if _is_library(trace) else trace
        trace = trace.tb_next
    return innermost is not None and not _is_ours(innermost)


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    """The same traceback without our frames and without those of the context manager itself."""
    kept: list[TracebackType] = []
    while trace is not None:
        if not _is_ours(trace) and trace.tb_frame.f_globals.get("__name__") != "contextlib":
            kept.append(trace)
        trace = trace.tb_next
    head: TracebackType | None = None
    for entry in reversed(kept):
        head = TracebackType(head, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return head
