"""Copies of [rows, cols] elements between any two strides: machine code that all kernels share.

A kernel calls `pto_wsp_copy_<bytes of an element>` (lower/transfers.py) where its operands may have to be copied, which
is in most kernels and mostly does not happen, and to transpose. Matrix products call `pto_wsp_pack_...`
(lower/packing.py) likewise. The functions are not part of each kernel: those that one calls are compiled once on a
machine, and linked when the kernel is loaded.

    void pto_wsp_copy_4(ptr to, i64 to_rows, i64 to_cols, ptr from, i64 from_rows, i64 from_cols, i64 rows, i64 cols)

Strides are in bytes and of any sign; the two regions must not overlap.
"""

from __future__ import annotations

import re
from typing import Any

from pto_wsp.lower import ir
from pto_wsp.types import DType

__all__ = ["address", "declared", "is_ready", "is_shared", "names_in", "prepare"]

ELEMENTS = {d.itemsize: d for d in (DType.I8, DType.I16, DType.I32, DType.I64)}
_NAME = r"pto_wsp_(?:copy_[1248]|pack_[a-z0-9_]+)"
_WORD, _POINTER = ir.IntType(64), ir.PointerType()
_PARAMETERS = {kind: [_POINTER, _WORD, _WORD, _POINTER, _WORD, _WORD, _WORD] + [_WORD] * (kind != "pack")
               for kind in ("copy", "pack")}


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
    prepare(symbol)
    return int(_CODES[symbol].address(symbol))


def prepare(symbol: str) -> dict[str, float]:
    """Make one of the functions ready to be called; the milliseconds that each step took, none if it was ready."""
    from pto_wsp.lower import jit

    if symbol in _CODES:
        return {}
    code = _CODES[symbol] = jit.load(f"pto_wsp function {symbol}", lambda: _ir(symbol), kind="shared")
    return dict(code.phases)


def is_ready(symbol: str) -> bool:
    """Was it prepared? Not so while its own code is being linked."""
    return symbol in _CODES


_CODES: dict[str, Any] = {}  # by symbol


def _ir(symbol: str) -> str:
    """The LLVM IR of one of them, for this machine."""
    from pto_wsp.lower import jit, packing, transfers, vectors

    kind, what = symbol.removeprefix("pto_wsp_").split("_", 1)
    module = ir.Module()
    if kind == "copy":
        transfers.emit_copy(declared(module, kind, what), ELEMENTS[int(what)])
    else:
        packing.emit_packer(declared(module, kind, what), what, vectors.Target.of(*jit.cpu_features(jit.HOST)))
    return str(module)
