"""LLVM text in the making, one node of a workload tree at a time.

Two marks make the text of one node independent of the place where it will stand:

    ~   begins every local name: %~3, label L~3. A piece that becomes part of another gets a number put behind its
        marks, so names stay unique and equal nodes have equal text
    §   stands for a number that belongs to this node alone; the numbers themselves are in Piece.data, in order

`finish` replaces the marks in the text of a whole function.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Lines", "Piece", "finish"]

_DATUM = re.compile(r"^  (\S+) = add i64 §, 0$", re.M)


@dataclass(frozen=True, slots=True)
class Piece:
    """Straight or branching code with one entry, at its top, and one exit, at its end."""

    text: str = ""
    data: tuple[int, ...] = ()


class Lines:
    """Builds a Piece line by line."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._data: list[int] = []
        self._names = 0

    def put(self, line: str) -> None:
        self._text.append(f"  {line}")

    def value(self, operation: str) -> str:
        """A line that makes a value; its name."""
        name = self._name("%")
        self._text.append(f"  {name} = {operation}")
        return name

    def fresh(self) -> str:
        """A name for a value that a later line will make."""
        return self._name("%")

    def every(self, conditions: Sequence[str]) -> str:
        """The i1 that holds when all of them do."""
        joined = conditions[0] if conditions else "true"
        for condition in conditions[1:]:
            joined = self.value(f"and i1 {joined}, {condition}")
        return joined

    def datum(self, number: int) -> str:
        """The name of a constant that belongs to this node alone."""
        self._data.append(number)
        return self.value("add i64 §, 0")

    def label(self) -> str:
        """A fresh block name, to be used as `br label %name` and `start(name)`."""
        return self._name("L")

    def start(self, label: str) -> None:
        """Begin a block; the block before must have ended."""
        self._text.append(f"{label}:")

    def branch(self, condition: str, then: str, other: str) -> None:
        self.put(f"br i1 {condition}, label %{then}, label %{other}")

    def jump(self, label: str) -> None:
        self.put(f"br label %{label}")

    def add(self, piece: Piece) -> None:
        """A piece, its names made unique."""
        if piece.text:
            self._names += 1
            self._text.append(piece.text.replace("~", f"~{self._names}."))
            self._data.extend(piece.data)

    def add_template(self, text: str, numbers: str) -> None:
        """The text of a piece that reads its data from a table; `numbers`: a variable, the address of the table."""
        self._names += 1
        count = itertools.count()

        def read(found: re.Match[str]) -> str:
            name = found.group(1)
            return (
                f"  {name}.table = load ptr, ptr {numbers}\n"
                f"  {name}.place = getelementptr i64, ptr {name}.table, i64 {next(count)}\n"
                f"  {name} = load i64, ptr {name}.place"
            )

        self._text.append(_DATUM.sub(read, text.replace("~", f"~{self._names}.")))

    def piece(self) -> Piece:
        return Piece("\n".join(self._text), tuple(self._data))

    def _name(self, sigil: str) -> str:
        self._names += 1
        return f"{sigil}~{self._names}"


def finish(piece: Piece) -> str:
    """The text with its numbers in place and its names as LLVM wants them."""
    return "".join(_interleaved(piece.text.split("§"), map(str, piece.data))).replace("~", "v")


def _interleaved(parts: list[str], between: Iterable[str]) -> Iterable[str]:
    yield parts[0]
    for operand, part in zip(between, parts[1:], strict=True):
        yield operand
        yield part
