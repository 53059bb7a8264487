"""Names and texts of the user's in a C++ file: identifiers that cannot clash, comments that cannot end early.

Emitted identifiers begin with a lower-case letter and everything of AscendC's does not, so only C++'s own words and the
few lower-case names of the toolchain have to be kept out.
"""

from __future__ import annotations

import ast
import os
import re
import textwrap

from pto_wsp.errors import SourceLine
from pto_wsp.trace.graph import Node

_CPP = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t
char32_t class compl concept const consteval constexpr constinit const_cast continue co_await
co_return co_yield decltype default delete do double dynamic_cast else enum explicit export extern
false float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr
operator or or_eq private protected public register reinterpret_cast requires return short signed
sizeof static static_assert static_cast struct switch template this thread_local throw true try
typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq main std
linux unix i386 near far errno assert printf signbit min max abs exp log sin cos tan tanh sqrt pow
floor ceil round trunc erf index y0 y1 yn j0 j1 jn stdin stdout stderr half bfloat16_t float16_t
bfloat16 int4b_t int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t size_t ptrdiff_t
""".split()
_OWN = "pipe workspace first n r c count arena kept part both id sum best next".split()
RESERVED = frozenset(_CPP + _OWN)  # inside a function
RESERVED_OUTSIDE = frozenset([*_CPP, "pipe", "workspace"])  # for parameters, which get a suffix inside

MOST_NAME = 48
MOST_COMMENT = 70


def identifier(text: str) -> str:
    """`text` as an identifier: ASCII letters, digits and single underscores, a lower-case letter first."""
    name = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9]", "_", text)).strip("_")[:MOST_NAME].rstrip("_")
    if not name:
        return "unnamed"
    if name[0].isdigit():
        name = "v" + name
    if name[0].isupper():
        name = name[0].lower() + name[1:]
    return name


class Names:
    """Identifiers given out in one scope, each once."""

    def __init__(self, taken: frozenset[str] = RESERVED) -> None:
        self._taken = set(taken)

    def new(self, text: str, *suffixes: str) -> str:
        """An identifier like `text` that nobody has yet; the same with each suffix is taken too."""
        base = identifier(text)
        name, number = base, 1
        while any(name + suffix in self._taken for suffix in ("", *suffixes)):
            number += 1
            name = f"{base}_{number}"
        self.keep(name, *(name + suffix for suffix in suffixes))
        return name

    def keep(self, *names: str) -> None:
        """Nobody is given these."""
        self._taken.update(names)


def comment(text: str, most: int = MOST_COMMENT) -> str:
    """`text` for the end of a // comment: one line of printable ASCII that does not continue on the next."""
    line = " ".join(text.split())
    line = "".join(c if " " <= c <= "~" else "?" for c in line)
    line = line.replace("\\", "/").replace("??", "? ?").replace("??", "? ?")
    return line if len(line) <= most else line[: most - 3] + "..."


def place_of(line: SourceLine | None) -> str:
    """`rmsnorm.py:9`, without the folders: the same wherever the program stands."""
    if line is None:
        return ""
    return comment(f"{os.path.basename(line.file)}:{line.line}")


def source_of(line: SourceLine | None) -> str:
    """The user's statement, shortened to one line."""
    return "" if line is None else line.text.strip()


def assigned_name(node: Node) -> str | None:
    """`sq` when the user's line is `sq = ...`: what the line's last value is called."""
    text = source_of(node.line)
    if not text:
        return None
    try:
        statement = ast.parse(textwrap.dedent(text)).body[0]
    except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError):
        return None
    if (
        isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
    ):
        return statement.targets[0].id
    return None
