"""Arguments of the user's: is it an int, is it a sequence of them? What is not gets an error that says what was given.

`what` names the argument in the message, as the subject of "... is an int; got 'x'".
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def as_int(value: Any) -> int | None:
    """The value as an int when it is one (numpy integers too), else None. A bool is not."""
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:  # a class that has __index__ for its instances, an array that is no scalar, no number at all
        return None


def integer(value: Any, what: str, least: int | None = None, most: int | None = None) -> int:
    """The value as an int. raises TypeError when it is none, ValueError when it is not from `least` to `most`"""
    number = as_int(value)
    if number is None:
        raise TypeError(f"{what} is an int; got {value!r}")
    if least is not None and number < least:
        raise ValueError(f"{what} is {least} or more; got {number}")
    if most is not None and number > most:
        raise ValueError(f"{what} is at most {most:,}; got {number:,}")
    return number


def integers(values: Any, what: str, least: int | None = None) -> tuple[int, ...]:
    """The values as a tuple of ints. raises TypeError when they are none, ValueError for one below `least`"""
    numbers = tuple(map(as_int, values)) if is_sequence(values) else (None,)
    if None in numbers:
        raise TypeError(f"{what} is a sequence of ints, such as (4, 8); got {values!r}")
    found = tuple(number for number in numbers if number is not None)
    if least is not None and any(number < least for number in found):
        raise ValueError(f"{what} is a sequence of ints, each {least} or more; got {found}")
    return found


def is_sequence(value: Any) -> bool:
    """Is it a list of things? Texts and dicts are iterable too, and never meant."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict)) and not _without_rank(value)


def _without_rank(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 0


def instance(value: Any, kind: type[T], what: str) -> T:
    """The value. raises TypeError when it is not of that kind"""
    if not isinstance(value, kind):
        raise TypeError(f"{what} is a {kind.__name__}; got {value!r}")
    return value
