"""The host side of an emitted project: what is special to a program. The rest lies in tree/, the same for all programs.

`program_h` writes the tables that host/main.cpp works with; `fixed` gives the files of tree/ and of the shim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from pto_wsp.ascend.build import shim_folder
from pto_wsp.ascend.emission import Emission
from pto_wsp.ascend.manifest import ARCHITECTURE, PTO_HEADER
from pto_wsp.ascend.names import comment, place_of
from pto_wsp.types import Ragged

WIDTH = 80

__all__ = ["c_string", "filled", "fixed", "program_h", "words"]


def fixed() -> dict[str, str]:
    """The files that are the same in every project, but for @NAME@ and the like: path -> text."""
    return dict(_files(Path(__file__).parent / "tree")) | {
        f"check/shim/{path}": text for path, text in _files(shim_folder()).items()
    }


@cache
def _files(root: Path) -> dict[str, str]:
    found = (p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in sorted(found)}


def filled(text: str, words: Mapping[str, str]) -> str:
    """`text` with every @NAME@ replaced, once."""
    return re.sub("@([A-Z]+)@", lambda found: words.get(found[1], found[0]), text)


def c_string(text: str) -> str:
    """`text` as a C string literal: printable ASCII, everything else as octal escapes of its UTF-8 bytes."""
    written = []
    for byte in text.encode(errors="surrogatepass"):
        char = chr(byte)
        plain = " " <= char <= "~" and char not in '"\\?'
        written.append(char if plain else f"\\{byte:03o}")
    return '"' + "".join(written) + '"'


def program_h(e: Emission) -> str:
    """host/program.h: names, shapes and sizes, in the order of plan.h."""
    return "\n".join(
        [
            f"// {comment(e.title)}: names, shapes and sizes.",
            "// Numbered as in plan.h. Written by pto_wsp.",
            "#pragma once",
            "",
            "#include <array>",
            "#include <cstdint>",
            "",
            "namespace program {",
            "",
            f"constexpr char kTitle[] = {c_string(comment(e.title))};",
            "// Most dimensions of a tensor, rows of the task table; whether a worker is a",
            "// group of one cube and two vector cores.",
            f"constexpr uint32_t kRank = {max(e.rank, 1)};",
            f"constexpr uint32_t kTableTasks = {e.table_tasks};",
            f"constexpr bool kHasCube = {_bool(e.has_cube)};",
            "",
            _TENSOR,
            *_table("Tensor", "kTensors", _tensors(e)),
            "",
            "struct Symbol {",
            "  const char* name;",
            "  const char* constant;",
            "  bool isFloat;",
            "};",
            *_table("Symbol", "kSymbols", _symbols(e)),
            "",
            "struct Size {",
            "  const char* name;",
            "  const char* constant;",
            "  int64_t trips;  // unless the command line says otherwise",
            "};",
            *_table("Size", "kSizes", _sizes(e)),
            "",
            "struct Axis {",
            "  const char* name;",
            "  const char* parts[2];  // its arrays",
            "};",
            *_table("Axis", "kAxes", _axes(e)),
            "",
            "struct Kernel {",
            "  const char* name;",
            "};",
            *_table("Kernel", "kKernels", [[c_string(k.name)] for k in e.kernels]),
            "",
            "// A kernel call of the workload: its line in the user's source, how many",
            "// arguments its tasks have, scalars first, and its tile parameters.",
            "struct Call {",
            "  const char* name;",
            "  const char* line;",
            "  uint32_t kernel, scalars, axes;",
            f"  const char* operands[{max(e.operands, 1)}];",
            "};",
            *_table("Call", "kCalls", _calls(e)),
            "",
            "}  // namespace program",
            "",
        ]
    )


_TENSOR = """\
struct Tensor {
  const char* name;
  const char* constant;
  const char* dtype;
  uint32_t elementBytes;
  uint32_t rank;
  int64_t shape[kRank];
  bool read;
  bool written;
};"""


def _table(kind: str, name: str, rows: Iterable[list[str]]) -> list[str]:
    lines = [line for row in rows for line in _row(row)]
    count = sum(line.startswith("    {") for line in lines)
    if not lines:
        return [f"constexpr std::array<{kind}, 0> {name} = {{}};"]
    return [f"constexpr std::array<{kind}, {count}> {name} = {{{{", *lines, "}};"]


def _row(cells: list[str]) -> list[str]:
    """{a, b, c}, on as many lines as it needs."""
    lines, line = [], "    {"
    for cell in cells:
        if len(line) + len(cell) + 2 > WIDTH and line.strip() != "{":
            lines.append(line.rstrip())
            line = "     "
        line += cell + ", "
    return [*lines, line[:-2] + "},"]


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _tensors(e: Emission) -> Iterable[list[str]]:
    for t in e.tensors:
        shape = "{" + ", ".join(map(str, t.shape or (0,))) + "}"
        yield [
            c_string(t.name),
            c_string(t.enum),
            c_string(t.dtype.value),
            str(t.dtype.itemsize),
            str(t.rank),
            shape,
            _bool(t.direction != "out"),
            _bool(t.direction != "in"),
        ]


def _symbols(e: Emission) -> Iterable[list[str]]:
    for s in e.symbols:
        yield [c_string(s.name), c_string(s.enum), _bool(s.is_float)]


def _sizes(e: Emission) -> Iterable[list[str]]:
    for s in e.sizes:
        yield [c_string(s.name), c_string(s.enum), str(s.default)]


def _axes(e: Emission) -> Iterable[list[str]]:
    for a in e.axes:
        parts = [c_string(part) for part in a.parts] + ["nullptr"] * (2 - len(a.parts))
        yield [c_string(a.name), "{" + ", ".join(parts) + "}"]


def _calls(e: Emission) -> Iterable[list[str]]:
    for c in e.calls:
        operands = [c_string(b.param.name) for b in c.tiles] + ["nullptr"] * (max(e.operands, 1) - len(c.tiles))
        yield [
            c_string(c.kernel.name),
            c_string(place_of(c.task.line)),
            str(c.kernel.number),
            str(len(c.scalars)),
            str(len(c.task.axes)),
            "{" + ", ".join(operands) + "}",
        ]


# ---- README.md -------------------------------------------------------------------------------------------------------


def words(e: Emission, version: str) -> dict[str, str]:
    """What stands for @NAME@ and the like in the files of tree/."""
    example = [f" \\\n        --symbol {_shell(s.name)}={'1.0' if s.is_float else '1'}" for s in e.symbols]
    kernels = f"{len(e.kernels)} kernel{'s' * (len(e.kernels) != 1)}"
    calls = f"{len(e.calls)} kernel call{'s' * (len(e.calls) != 1)}"
    return {
        "NAME": e.name,
        "TITLE": _markdown(e.title),
        "VERSION": version,
        "ARCHITECTURE": ARCHITECTURE,
        "SUMMARY": f"{kernels}, {calls}, {len(e.tensors)} arrays.",
        "EXAMPLE": "".join(example),
        "HEADERS": _headers(e),
        "TABLES": "\n\n".join(_readme_tables(e)),
        "TASKS": str(e.table_tasks),
        "FEEDING": _MAILBOXES if e.orders.mailboxes else "",
        "SCHEDULE": "\n".join(_schedule(e)),
    }


_MAILBOXES = """
This project feeds its workers through mailboxes: `worker` starts first and waits, `expand` runs beside it and hands
out one task at a time. Both have to be resident at once, and the vendor does not promise that kernels of the control
CPU may run for long: test it on your driver. Without `mailboxes=True` a project needs documented calls only.
"""


def _headers(e: Emission) -> str:
    if not any(PTO_HEADER in k.source.header for k in e.kernels):
        return "Headers that lie elsewhere: `-DPTO_WSP_INCLUDE_DIRS=folder`."
    return f"Some kernels include `{PTO_HEADER}`: give the folder of PTO-ISA with `-DPTO_WSP_INCLUDE_DIRS=folder`."


def _markdown(text: str) -> str:
    """A text of the user's inside a line of Markdown."""
    plain = comment(text)
    return "".join("\\" + c if c in "\\`*_{}[]<>#|!&" else c for c in plain)


def _shell(text: str) -> str:
    plain = comment(text)
    return plain if plain.isidentifier() else "'" + plain.replace("'", "'\\''") + "'"


def _readme_tables(e: Emission) -> Iterable[str]:
    kinds = {"in": "read", "out": "written", "inout": "read and written"}
    lines = ["| file | elements | use |", "| --- | --- | --- |"]
    for t in e.tensors:
        lines.append(f"| `{t.name}.bin` | {t.dtype} {list(t.shape)} | {kinds[t.direction]} |")
    for a in e.axes:
        kind = "ragged" if isinstance(a.axis, Ragged) else "sparse"
        lines += [f"| `{a.name}.{part}.bin` | i32 | {part} of the {kind} axis of loop {a.name} |" for part in a.parts]
    yield "\n".join(lines)
    lines = ["| option | value |", "| --- | --- |"]
    for s in e.symbols:
        lines.append(f"| `--symbol {_in_code(s.name)}=V` | {'a float' if s.is_float else 'an integer'}, 0 unless set |")
    for size in e.sizes:
        lines.append(f"| `--size {_in_code(size.name)}=N` | trips of the loop at {place_of(size.loop.line)}, "
                     f"{size.default} unless set |")
    if len(lines) > 2:
        yield "\n".join(lines)


def _in_code(text: str) -> str:
    return comment(text).replace("`", "'").replace("|", "/")


def _schedule(e: Emission) -> Iterable[str]:
    o = e.orders
    if o.key is not None:
        key = _in_code(str(o.key))
        yield f"- dispatch: {o.dispatch}, a task goes to worker `{key}` modulo {o.targets}, as unsigned 64-bit number"
    else:
        yield f"- dispatch: {o.dispatch}" + (f", {o.targets} workers in turn" if o.targets > 1 else "")
    if o.window is None:
        yield f"- window: none; the table holds {e.table_tasks} tasks at a time"
    else:
        where = "are given out and not finished" if o.mailboxes else "are in a round"
        yield f"- window: {o.window.size} {o.window.unit}, {o.window.mode.name}: no more {where}"
    if o.streams:
        by = "the task's number" if o.stream_key is None else f"`{_in_code(str(o.stream_key))}`"
        yield f"- streams: {o.streams} in-order queues, by {by}"
    if o.explicit:
        yield "- edges named by `after=[...]` are kept"
