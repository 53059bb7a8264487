"""Custom kernels in the emitted tree: the user's C++, word for word, inside the calling convention of aicore.py.

A body (cpp_src, cpp_body_path) becomes the inside of a function that has the user's names as parameters:

    pipe                     AscendC::TPipe *
    x, for each tile         const GmTile &: x.addr, x.rowStride, x.colStride (elements), x.rows, x.cols (valid)
    eps, for each scalar     float or an integer;   n, for each Constexpr: a constant
    workspace                GM_ADDR, when the kernel asks for some

Bodies written for `uint64_t f(const KernelTaskDesc *task, CSPTContext *cspt)` find `task`, `cspt` (which has the pipe)
and `cycles` instead; the device keeps no simulated time, so what they count is dropped. A translation unit, from
cpp_tu_path, defines a function of that form under the kernel's name, or `namespace pto_<kernel>` with a
`Run(pipe, tiles, scalars)` of its own. Start reading at `emit`.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from pto_wsp.ascend.lines import WIDTH, signature
from pto_wsp.ascend.names import Names, comment, place_of
from pto_wsp.ascend.source import GM_TILE, KERNEL_TYPES, KernelSource, entry_of, params_of
from pto_wsp.errors import CompileError
from pto_wsp.trace.custom import CustomBody
from pto_wsp.trace.graph import KernelGraph

__all__ = ["emit"]

_KEYWORDS = frozenset("""
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class compl
concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete do
double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable namespace
new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires return
short signed sizeof static static_assert static_cast struct switch template this thread_local throw true try typedef
typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq
linux unix i386 errno assert signbit NULL EOF stdin stdout stderr pipe workspace
""".split())
_LOCALS = frozenset("task cspt cycles args tensors strides Word".split())  # of the functions below

TASK = """\
#ifndef PTO_WSP_TASK_DESC
#define PTO_WSP_TASK_DESC
#define PTO_WSP_KERNEL_ATTR __aicore__ inline
// A task as custom kernels see it. args: (rows, cols) of every tile, then the
// scalars: scalar k is args[num_axis_args + k].
struct KernelTaskDesc {
  const uint64_t *args;
  uint32_t num_args, num_axis_args;
  __gm__ void *const *tensor_ptrs;
  const int64_t *tensor_strides;  // row stride, column stride of every tile
  uint32_t num_tensors;
  uint32_t kernel_id;
  uint64_t task_id;
};
struct CSPTContext {
  AscendC::TPipe *pipe;
};
#endif
"""


def emit(graph: KernelGraph, name: str, apart: Collection[str] = ()) -> KernelSource:
    """The source of a custom kernel, called like every other.

    raises  CompileError for a kernel without C++, for constants that C++ has no literal of, and for a translation unit
            that does not define what its kernel is called by
    """
    body = graph.custom
    assert body is not None
    if body.cpp is None:
        raise CompileError(
            f"kernel {graph.name} has a body for the CPU only. For the NPU give it C++ as well: @kernel(cpp_src=...,"
            " cpu=...)."
        ).at(body.line)
    params = {key: replace(p, apart=p.name in apart) for key, p in params_of(graph).items()}
    called = _names(graph, body, body.form == "unit" or _is_old_form(body))
    header = _header(graph, body, name, params, called)
    core = KERNEL_TYPES[body.core]
    entry = f"{name}_task" if body.form == "unit" else name  # a unit may have taken the kernel's name
    text = entry_of(entry, params, core, body.workspace_bytes > 0).replace(f"pto_{entry}::", f"pto_{name}::")
    return KernelSource(
        name, header, f"{header}\n{text}", entry, tuple(params.values()), body.core, core, body.workspace_bytes,
        "custom kernel: its buffers are placed by the user's code", files=_files(body),
    )  # fmt: skip


def _names(graph: KernelGraph, body: CustomBody, old: bool) -> dict[int, str]:
    """What parameters are called, by id of their nodes: as the user calls them, where C++ allows that."""
    names = Names(_KEYWORDS | _LOCALS if old else _KEYWORDS)
    plain = [p for p in graph.params if _is_plain(p.name) and not (old and p.name in _LOCALS)]
    for p in plain:
        names.keep(p.name)
    names.keep(*(name for _, name, _ in body.constants))
    return {id(p.node): p.name if p in plain else names.new(p.name) for p in graph.params}


def _is_plain(name: str) -> bool:
    return bool(re.fullmatch(r"(?!__)[A-Za-z_]\w*", name, re.ASCII)) and name not in _KEYWORDS


# ---- the file ------------------------------------------------------------------------------------------------------


def _header(graph: KernelGraph, body: CustomBody, name: str, params: dict[int, Any], called: dict[int, str]) -> str:
    guard = f"PTO_WSP_KERNEL_{name.upper()}_H_"
    unit, old = body.form == "unit", _is_old_form(body)
    place, what = place_of(body.line).rsplit(":", 1)[0], "translation unit" if unit else "body"
    lines = [f"// Kernel {comment(graph.name)}{', ' + place if place else ''}. Written by pto_wsp.",
             f"// Custom kernel (Path A): the user's {what}, word for word.", "//"]
    for key, p in params.items():
        kind = f"{p.direction} tile {p.rows}x{p.cols} {p.dtype}" if p.is_tile else f"scalar {p.dtype}"
        was = f" (parameter {comment(p.name)})" if called[key] != p.name else ""
        lines.append(f"//   {called[key]}: {kind}{was}")
    includes = [f"#include {i}" if i.startswith("<") else f'#include "{i}"' for i in body.includes]
    inside = _unit(graph, body, name, params, called) if unit else _body(body, name, params, called, old)
    parts = [*lines, f"#ifndef {guard}", f"#define {guard}", "", '#include "kernel_operator.h"', *includes, "",
             GM_TILE, *([TASK] if unit or old else []), *inside, "", f"#endif  // {guard}"]
    return "\n".join(parts) + "\n"


def _is_old_form(body: CustomBody) -> bool:
    """Does the text use the parameters and the result of `uint64_t f(const KernelTaskDesc *task, ...)`?"""
    code = _code(body)
    if re.search(r"\b(?:task|cspt)\s*->", code):
        return body.form == "body"
    counts = re.search(r"\bcycles\s*\+?=", code) and not re.search(r"\b(?!return\b)\w+\s+cycles\b", code)
    return body.form == "body" and bool(counts)


def _code(body: CustomBody) -> str:
    """The C++ text without comments."""
    assert body.cpp is not None
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", body.cpp, flags=re.DOTALL)


def _verbatim(body: CustomBody) -> list[str]:
    assert body.cpp is not None
    of = f" of {comment(os.path.basename(body.path))}" if body.path else ""
    return [f"// ---- begin{of}", body.cpp.removesuffix("\n"), f"// ---- end{of}"]


def _body(body: CustomBody, name: str, params: dict[int, Any], called: dict[int, str], old: bool) -> list[str]:
    """Run, with the user's text inside."""
    head = [f"namespace pto_{name} {{", "", "using namespace AscendC;", ""]
    if not old:
        code = _code(body)
        run = signature("__aicore__ inline void Run(", _parameters(body, params, called, code), ") {")
        return [*head, run, *_constants(body), *_verbatim(body), "}", "", f"}}  // namespace pto_{name}"]
    _refuse_axes(body)
    inner = ["__aicore__ inline uint64_t Body([[maybe_unused]] const KernelTaskDesc *task,",
             "                                [[maybe_unused]] CSPTContext *cspt) {",
             *_constants(body), "  uint64_t cycles = 0;", *_verbatim(body), "  return cycles;", "}", ""]
    return [*head, *inner, *_run(body, params, called, "Body(&task, &cspt)"), "", f"}}  // namespace pto_{name}"]


def _unit(graph: KernelGraph, body: CustomBody, name: str, params: dict[int, Any], called: dict[int, str]) -> list[str]:
    """The user's translation unit, and a Run that calls it."""
    code = _code(body)
    if re.search(rf"\bnamespace\s+pto_{re.escape(graph.name)}\b", code) and re.search(r"\bRun\s*\(", code):
        other = f"namespace pto_{name} {{\nusing pto_{graph.name}::Run;\n}}  // namespace pto_{name}"
        return [*_verbatim(body), *(["", other] if name != graph.name else [])]
    if not re.search(rf"\b{re.escape(graph.name)}\s*\([^)]*\bKernelTaskDesc\b", code):
        raise CompileError(
            f"kernel {graph.name}: {os.path.basename(body.path)} does not define what the kernel is called by. Write"
            f' extern "C" PTO_WSP_KERNEL_ATTR uint64_t {graph.name}(const KernelTaskDesc *task, CSPTContext *cspt)'
            f" {{...}}, or namespace pto_{graph.name} with __aicore__ inline void Run(AscendC::TPipe *pipe,"
            " const GmTile &..., scalars...)."
        ).at(body.line)
    _refuse_axes(body)
    return [*_verbatim(body), "", f"namespace pto_{name} {{", "", "using namespace AscendC;", "",
            *_run(body, params, called, f"::{graph.name}(&task, &cspt)"), "", f"}}  // namespace pto_{name}"]


def _run(body: CustomBody, params: dict[int, Any], called: dict[int, str], call: str) -> list[str]:
    """Run, which describes the task and makes the call."""
    tiles = [called[key] for key, p in params.items() if p.is_tile]
    words = [f"{tile}.{extent}" for tile in tiles for extent in ("rows", "cols")]
    words += [_word(p, called[key]) for key, p in params.items() if not p.is_tile]
    lines = []
    if any(not p.is_tile and p.c_type == "float" for p in params.values()):
        lines += ["  union Word {", "    float number;", "    uint32_t bits;", "  };"]
    count, ids = len(words), len(tiles)
    lines += _listed("const uint64_t args[]", words or ["0"])
    lines += _listed("__gm__ void *const tensors[]", [f"{t}.addr" for t in tiles] or ["nullptr"])
    lines += _listed("const int64_t strides[]", [f"{t}.{s}Stride" for t in tiles for s in ("row", "col")] or ["0"])
    lines += [f"  const KernelTaskDesc task = {{args, {count}, {2 * ids}, tensors, strides, {ids}, 0, 0}};",
              "  CSPTContext cspt = {pipe};", f"  {call};"]
    parameters = _parameters(body, params, called, "\n".join(lines))
    return [signature("__aicore__ inline void Run(", parameters, ") {"), *lines, "}"]


def _listed(what: str, values: list[str]) -> list[str]:
    """An array and its values, on as many lines as they need."""
    line = f"  {what} = {{{', '.join(values)}}};"
    if len(line) <= WIDTH:
        return [line]
    rows = textwrap.wrap(", ".join(values) + "};", WIDTH - 6, break_long_words=False, break_on_hyphens=False)
    return [f"  {what} = {{", *(f"      {row}" for row in rows)]


def _word(param: Any, name: str) -> str:
    """A scalar as an argument word: a float as its bits, an i32 as its low 32 bits."""
    if param.c_type == "float":
        return f"Word{{{name}}}.bits"
    if param.c_type in ("int8_t", "int16_t", "int32_t"):
        return f"static_cast<uint32_t>({name})"
    return name if param.c_type.startswith("u") else f"static_cast<uint64_t>({name})"


def _parameters(body: CustomBody, params: dict[int, Any], called: dict[int, str], code: str) -> list[str]:
    """Run's, in its order; those that the code does not mention may stay unused."""
    found = [("TPipe *", "pipe")]
    found += [("const GmTile &", called[key]) for key, p in params.items() if p.is_tile]
    found += [(f"{p.c_type} ", called[key]) for key, p in params.items() if not p.is_tile]
    found += [("GM_ADDR ", "workspace")] * (body.workspace_bytes > 0)
    return [f"{kind}{name}" if re.search(rf"\b{name}\b", code) else f"[[maybe_unused]] {kind}{name}"
            for kind, name in found]  # fmt: skip


def _constants(body: CustomBody) -> list[str]:
    """The Constexpr parameters.

    raises  CompileError for a value that C++ has no literal of
    """
    lines = []
    for _, name, value in body.constants:
        if not _is_plain(name):
            raise CompileError(f"kernel {body.name}: a C++ body cannot have a constant called {name!r}.").at(body.line)
        if isinstance(value, bool):
            text = f"bool {name} = {str(value).lower()}"
        elif isinstance(value, int) and -(1 << 63) < value < 1 << 63:
            text = f"int64_t {name} = {value}"
        elif isinstance(value, float) and value - value == 0:
            text = f"float {name} = {value!r}f"
        else:
            raise CompileError(
                f"kernel {body.name}: {name} = {value!r} (Constexpr) has no form in C++; a C++ body can have integers,"
                " finite floats and bools."
            ).at(body.line)
        lines.append(f"  [[maybe_unused]] constexpr {text};")
    return lines


def _refuse_axes(body: CustomBody) -> None:
    """raises CompileError for a body that reads its axis values, which are not among a task's arguments"""
    found = re.search(r"\btask\s*->\s*args\s*\[\s*(\d+)\s*\]", _code(body))
    if found is not None:
        raise CompileError(
            f"kernel {body.name}: its C++ reads task->args[{found[1]}]. Axis values are not passed to a kernel here, so"
            " fixed positions mean something else: give the value as a Scalar parameter, scalar k is"
            " task->args[task->num_axis_args + k]."
        ).at(body.line)


def _files(body: CustomBody) -> tuple[tuple[str, str], ...]:
    """Included files that lie beside the body or the user's program: they go into the tree."""
    places = [os.path.dirname(body.path)] if body.path else []
    places += [os.path.dirname(body.line.file)] if body.line is not None else []
    found = []
    for name in body.includes:
        path = next((Path(place, name) for place in places if Path(place, name).is_file()), None)
        if path is None or name.startswith("<"):
            continue
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise CompileError(
                f"kernel {body.name}: cpp_includes names {name!r}, which has no place in the emitted tree; put the file"
                " beside the body and include it by its name."
            ).at(body.line)
        found.append((f"kernels/{name}", _text(path, body)))
    return tuple(found)


def _text(path: Path, body: CustomBody) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CompileError(f"kernel {body.name}: {path} cannot be read as UTF-8 text: {error}.").at(body.line) from None
