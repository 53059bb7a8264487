"""Python loops over arrays that become machine code when that pays: the engines, and passes over all tasks.

Machine code runs fifty times faster, but takes milliseconds to load, and a tenth of a second or more to make where that
has never been done (lower/python_loops.py). So the first steps of a process are plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pto_wsp.lower import python_loops

__all__ = ["Loop"]

_HANDING_OVER = 20  # steps of plain Python that take as long as making lists of arrays and arrays of lists


class Loop:
    """A function of ints and arrays, plain Python while it has little to do.

    types    of its arguments, as python_loops.compiled wants them
    loading  steps of plain Python, since the process began, after which machine code is used if there is some on disk
    making   steps after which it is made
    """

    def __init__(self, function: Callable[..., int], *types: str, loading: int = 2_000, making: int = 20_000) -> None:
        self.function, self.types, self.loading, self.making = function, types, loading, making
        self.played = 0  # steps of plain Python so far
        self._code: Callable[..., int] | None = None
        self._sought = False  # on disk, which is done once

    def __call__(self, steps: int, *given: Any) -> int:
        """Run it; `steps`: about how many it will take."""
        return self.choose(steps)(*given)

    def choose(self, steps: int) -> Callable[..., int]:
        """Plain Python or machine code, whichever is done sooner with so many more steps."""
        code = self.machine_code(steps)
        if code is not None:
            return code
        self.played += steps + _HANDING_OVER
        return self.plain

    def machine_code(self, steps: int = 0) -> Callable[..., int] | None:
        """Machine code if it is worth having for so many more steps; else None. Where it is switched off: None."""
        steps += self.played
        if self._code is None and steps >= self.making:
            self._code = self.compiled()
        elif self._code is None and steps >= self.loading and not self._sought:
            self._code, self._sought = python_loops.from_cache(self.function, self.types), True
        return None if self._code is self.function else self._code

    def compiled(self) -> Callable[..., int]:
        """Machine code, made if need be; where it is switched off the function itself."""
        return python_loops.compiled(self.function, self.types)

    def plain(self, *given: Any) -> int:
        """The function on lists, which plain Python reads and writes several times faster than arrays."""
        lists = [value.tolist() if isinstance(value, np.ndarray) else value for value in given]
        result = self.function(*lists)
        for value, changed in zip(given, lists, strict=True):
            if isinstance(value, np.ndarray):
                value[:] = changed
        return result
