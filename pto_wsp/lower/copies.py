"""Copies of [rows, cols] elements between any two strides: machine code that all kernels share.

A kernel calls `pto_wsp_copy_<bytes of an element>` where its operands may have to be copied, which is in most kernels
and mostly does not happen; and `pto_wsp_transpose_<bytes>`, which does the same faster when one side is the transpose
of the other, where that is its work. Matrix products call `pto_wsp_pack_...` (lower/packing.py) likewise. The functions
are not part of each kernel: those that one calls are compiled once on a machine, and linked when the kernel is loaded.

    void pto_wsp_copy_4(ptr to, i64 to_rows, i64 to_cols, ptr from, i64 from_rows, i64 from_cols, i64 rows, i64 cols)

Strides are in bytes and of any sign; the two regions must not overlap.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.types import DType

__all__ = ["address", "declared", "is_shared", "names_in"]

ELEMENTS = {d.itemsize: d for d in (DType.I8, DType.I16, DType.I32, DType.I64)}
VECTOR_BYTES = 32
_NAME = r"pto_wsp_(?:(?:copy|transpose)_[1248]|pack_[a-z0-9_]+)"
_WORD, _POINTER = ir.IntType(64), ir.PointerType()
_PARAMETERS = {kind: [_POINTER, _WORD, _WORD, _POINTER, _WORD, _WORD, _WORD] + [_WORD] * (kind != "pack")
               for kind in ("copy", "transpose", "pack")}


def is_shared(symbol: str) -> bool:
    """Is it the name of such a function?"""
    return re.fullmatch(_NAME, symbol) is not None


def names_in(code: bytes) -> list[str]:
    """Names of shared functions in an object file."""
    return sorted({name.decode() for name in re.findall(_NAME.encode() + rb"(?=\0)", code)})


def declared(module: ir.Module, kind: str, what: int | str) -> ir.Function:
    """The function `kind` for elements of so many bytes (a packer: of that name), for calls from an LLVM module."""
    name = f"pto_wsp_{kind}_{what}"
    return module.declared(name, ir.FunctionType(ir.VoidType(), _PARAMETERS[kind]))


def address(symbol: str) -> int:
    """Address of one of the functions in this process."""
    return int(_code(symbol).address(symbol))


@cache
def _code(symbol: str) -> Any:
    from pto_wsp.lower import jit

    return jit.load(f"pto_wsp function {symbol}", lambda: _ir(symbol))


def _ir(symbol: str) -> str:
    """The LLVM IR of one of them, for this machine."""
    from pto_wsp.lower import jit, packing, vectors

    kind, what = symbol.removeprefix("pto_wsp_").split("_", 1)
    if kind == "copy":
        text = _COPY.replace("FOUR", "\n".join(_ELEMENT.format(i=i, next=i + 1) for i in range(4)))
        return text.replace("SYMBOL", symbol).replace("SIZE", what).replace("ELEMENT", f"i{8 * int(what)}")
    module, target = ir.Module(), vectors.Target.of(*jit.cpu_features(jit.HOST))
    if kind == "pack":
        packing.emit_packer(declared(module, kind, what), what, target)
    else:
        packing.emit_transpose(declared(module, kind, what), ELEMENTS[int(what)], VECTOR_BYTES // int(what), target)
    return str(module)


_ELEMENT = """\
  %value.{i} = load ELEMENT, ptr %here.{i}, align 1
  %here.{next} = getelementptr i8, ptr %here.{i}, i64 %from.cols
  store ELEMENT %value.{i}, ptr %there.{i}, align 1
  %there.{next} = getelementptr i8, ptr %there.{i}, i64 %to.cols"""
_COPY = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define void @SYMBOL(ptr %to, i64 %to.rows, i64 %to.cols, ptr %from, i64 %from.rows, i64 %from.cols,
                    i64 %rows, i64 %cols) {
entry:
  %bytes = mul i64 %cols, SIZE
  %there.contiguous = icmp eq i64 %to.cols, SIZE
  %here.contiguous = icmp eq i64 %from.cols, SIZE
  %contiguous = and i1 %there.contiguous, %here.contiguous
  %empty = icmp sle i64 %cols, 0
  br label %row
row:
  %r = phi i64 [0, %entry], [%r.next, %row.end]
  %there.row = phi ptr [%to, %entry], [%there.next, %row.end]
  %here.row = phi ptr [%from, %entry], [%here.next, %row.end]
  %more = icmp slt i64 %r, %rows
  br i1 %more, label %columns, label %done
columns:
  br i1 %empty, label %row.end, label %which
which:
  br i1 %contiguous, label %whole, label %turns
whole:
  call void @llvm.memcpy.p0.p0.i64(ptr %there.row, ptr %here.row, i64 %bytes, i1 false)
  br label %row.end
turns:
  %c = phi i64 [0, %which], [%c.next, %four]
  %there.0 = phi ptr [%there.row, %which], [%there.4, %four]
  %here.0 = phi ptr [%here.row, %which], [%here.4, %four]
  %c.next = add i64 %c, 4
  %enough = icmp sle i64 %c.next, %cols
  br i1 %enough, label %four, label %rest
four:
FOUR
  br label %turns
rest:
  %done.row = icmp eq i64 %c, %cols
  br i1 %done.row, label %row.end, label %one
one:
  %i = phi i64 [%c, %rest], [%i.next, %one]
  %there.one = phi ptr [%there.0, %rest], [%there.after, %one]
  %here.one = phi ptr [%here.0, %rest], [%here.after, %one]
  %value = load ELEMENT, ptr %here.one, align 1
  store ELEMENT %value, ptr %there.one, align 1
  %there.after = getelementptr i8, ptr %there.one, i64 %to.cols
  %here.after = getelementptr i8, ptr %here.one, i64 %from.cols
  %i.next = add i64 %i, 1
  %left = icmp slt i64 %i.next, %cols
  br i1 %left, label %one, label %row.end
row.end:
  %there.next = getelementptr i8, ptr %there.row, i64 %to.rows
  %here.next = getelementptr i8, ptr %here.row, i64 %from.rows
  %r.next = add i64 %r, 1
  br label %row
done:
  ret void
}
"""
