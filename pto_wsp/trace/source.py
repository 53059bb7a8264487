"""Which line of the user's code is asking? Found on the stack, cheaply, notebooks and the prompt included.

`where()` is called for every traced operation, so that an error found three passes later can still show the line
that caused it. The answer is the innermost frame that is neither ours nor the standard library's.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from pto_wsp.errors import PtoError, SourceLine

Columns = tuple[int | None, int | None, int | None, int | None]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)

_files: dict[str, bool] = {}  # file name -> is it the user's?
_positions: dict[int, tuple[CodeType, list[Columns], dict[int, SourceLine]]] = {}  # id of a code object -> its lines
_lock = threading.Lock()
_POSITIONS_KEPT = 512  # code objects; the oldest is dropped first


def where() -> SourceLine:
    """The user's line that is running now: the innermost frame outside pto_wsp and the standard library."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_users(frame):
            return _line_of(frame)
        frame = frame.f_back
    return SourceLine("<unknown>", 0, 0, None, None, "<unknown>")


def where_is(code: CodeType) -> SourceLine:
    """The line on which a function begins: for errors about its signature."""
    return SourceLine(code.co_filename, code.co_firstlineno, code.co_firstlineno, None, None, code.co_name)


def is_user_file(file: str) -> bool:
    """Whether code of this file belongs to the user, and not to this package or the Python library."""
    if file.startswith("<frozen "):
        return False
    if not os.path.isabs(file):
        return not os.path.abspath(file).startswith(_PACKAGE) if file.endswith(".py") else True
    path = os.path.abspath(file)
    if path.startswith(_PACKAGE):
        return False
    return not path.startswith(_STDLIB) or any(part in path for part in _INSTALLED)


def _is_users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    users = _files.get(file)
    if users is None:
        users = _files[file] = is_user_file(file)
    if users and file[0] == "<":                                # "<string>": perhaps a dataclass of ours generated it
        return not str(frame.f_globals.get("__name__")).startswith("pto_wsp.")
    return users


@contextmanager
def line_for_errors(doing: str) -> Iterator[None]:
    """Errors of ours that leave the block know the user's line; those that do not yet get it from their traceback."""
    try:
        yield
    except PtoError as error:
        error.at(line_of_error(error), doing)
        raise


def line_of_error(error: BaseException) -> SourceLine | None:
    """The user's innermost line in an error's traceback; None when there is none."""
    last, trace = None, error.__traceback__
    while trace is not None:
        if _is_users(trace.tb_frame):
            last = trace
        trace = trace.tb_next
    return _line_of(last.tb_frame, last.tb_lasti, last.tb_lineno) if last is not None else None


def _line_of(frame: FrameType, instruction: int | None = None, line: int | None = None) -> SourceLine:
    """The line of a frame, where it stands now or stood at an instruction."""
    code, instruction = frame.f_code, frame.f_lasti if instruction is None else instruction
    kept = _positions.get(id(code))
    if kept is None or kept[0] is not code:
        with _lock:
            kept = _positions[id(code)] = (code, _columns(code), {})
            if len(_positions) > _POSITIONS_KEPT:
                del _positions[next(iter(_positions))]
    _, columns, lines = kept
    found = lines.get(instruction)
    if found is None:
        at = max(instruction, 0) // 2
        first, last, column, end_column = columns[at] if at < len(columns) else (None, None, None, None)
        first = first or line or frame.f_lineno or code.co_firstlineno
        found = SourceLine(code.co_filename, first, last or first, column, end_column, code.co_name)
        lines[instruction] = found
    return found


def _columns(code: CodeType) -> list[Columns]:
    """Line, end line, column and end column of each instruction; nothing on Python 3.10, which knows lines only."""
    if sys.version_info >= (3, 11):
        return list(code.co_positions())
    return []
