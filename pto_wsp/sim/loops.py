"""A Python loop over arrays that becomes machine code when that pays: for passes over all tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pto_wsp.lower import python_loops

__all__ = ["Loop"]

WORTH_LOADING, WORTH_MAKING = 2_000, 20_000
"""Steps of plain Python, since the process began, after which machine code is used if there is some, or made."""


class Loop:
    """A function of ints and arrays, plain Python while it has little to do.

    types   of its arguments, as python_loops.compiled wants them
    """

    def __init__(self, function: Callable[..., int], *types: str) -> None:
        self._function, self._types, self._played = function, types, 0
        self._made: Callable[..., int] | None = None

    def __call__(self, work: int, *given: Any) -> int:
        """Run it; `work`: about how many steps it will take."""
        self._played += work
        if self._made is None and self._played > WORTH_LOADING:
            self._made = python_loops.from_cache(self._function, self._types)
        if self._made is None and self._played > WORTH_MAKING:
            self._made = python_loops.compiled(self._function, self._types)
        if self._made is not None:
            return self._made(*given)
        lists = [value.tolist() if isinstance(value, np.ndarray) else value for value in given]
        result = self._function(*lists)
        for value, changed in zip(given, lists, strict=True):
            if isinstance(value, np.ndarray):
                value[:] = changed
        return result
