"""Executable memory: an ELF object file, linked at a fixed address of this process.

In: object code (bytes).  Out: Image: function addresses, unmapped when the Image is dropped.

LLVM's own loaders would do this too, but importing them costs more than a whole warm compile; a kernel needs six kinds
of relocation. Only memory copies and the functions that IEEE 754 defines to the last bit (fma, floor, ...; used on CPUs
that lack the instruction) may be missing from an object, and our own shared code (lower/copies.py): there is no way to
reach another part of libm from here, which is what keeps results the same on every machine.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from pto_wsp.errors import CompileError
from pto_wsp.lower import copies

__all__ = ["Image", "can_link", "link"]

_EXACT = tuple(name + suffix for name in ("fma", "floor", "ceil", "trunc", "rint") for suffix in ("", "f"))
_LIBC = ("memcpy", "memmove", "memset", *_EXACT)
_WRITABLE, _ALLOCATED, _EXECUTABLE = 1, 2, 4  # sh_flags
_NO_BITS = 8  # sh_type: variables that begin as zeros
_RELA, _SYMTAB = 4, 2  # sh_type
_ABS64, _PC32, _PLT32, _GOT, _GOT_X, _GOT_REX = 1, 2, 4, 9, 41, 42  # R_X86_64_*
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")


def can_link(code: bytes) -> bool:
    """True for an x86-64 ELF object on a system that maps memory as POSIX says."""
    return code[:6] == b"\x7fELF\x02\x01" and code[18:20] == b"\x3e\x00" and sys.platform != "win32"


@dataclass(eq=False)
class Image:
    """Linked code. The memory lives as long as this object."""

    address: Callable[[str], int]  # of a global function it defines; KeyError for others
    size: int  # bytes; 0 when LLVM holds the memory
    _memory: object = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    section: int  # 0 = undefined
    value: int
    is_global: bool


def link(code: bytes) -> Image:
    """Place the object's sections in fresh memory, apply its relocations, make it executable.

    raises CompileError when the object needs a symbol that kernels may not call
    """
    if not can_link(code):
        return _link_by_llvm(code)
    sections = _sections(code)
    symbols = _symbols(code, sections)
    places, end = _layout(code, sections)
    stubs = {name: end + 16 * i for i, name in enumerate(_missing(symbols))}
    memory = mmap.mmap(-1, max(end + 16 * len(stubs), 1))
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for index, place in places.items():
        kind, start, size = sections[index][1], sections[index][4], sections[index][5]
        if kind != _NO_BITS:
            memory[place : place + size] = code[start : start + size]
    for name, place in stubs.items():  # jmp *2(%rip); ud2; address, 8-byte aligned: serves calls and GOT loads
        memory[place : place + 16] = b"\xff\x25\x02\x00\x00\x00\x0f\x0b" + struct.pack("<Q", _outside(name))
    where = [_where(s, places, stubs) for s in symbols]
    for section in sections:
        if section[1] == _RELA and section[7] in places:
            _relocate(code, section, places[section[7]], base, memory, where, symbols, stubs)
    _protect(base, len(memory))
    found = {s.name: base + where[i] for i, s in enumerate(symbols) if s.is_global and s.section in places}
    return Image(found.__getitem__, len(memory), memory)


def _link_by_llvm(code: bytes) -> Image:
    """The same by LLVM's own loader, on other architectures and object formats."""
    import llvmlite.binding as llvm

    host = llvm.Target.from_default_triple().create_target_machine()
    for name in filter(copies.is_ready, copies.names_in(code)):
        llvm.add_symbol(name, copies.address(name))
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly("", llvm.create_context()), host)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()

    def address(symbol: str) -> int:
        found = engine.get_function_address(symbol)
        if not found:
            raise KeyError(symbol)
        return int(found)

    return Image(address, 0, engine)


def _sections(code: bytes) -> list[tuple[int, ...]]:
    """(name, type, flags, address, offset, size, link, info, align, entry size) each."""
    (offset,) = struct.unpack_from("<Q", code, 40)
    (count,) = struct.unpack_from("<H", code, 60)
    return [_SECTION.unpack_from(code, offset + 64 * i) for i in range(count)]


def _symbols(code: bytes, sections: list[tuple[int, ...]]) -> list[_Symbol]:
    table = next((s for s in sections if s[1] == _SYMTAB), None)
    if table is None:
        return []
    names = sections[table[6]][4]
    found = []
    for name, info, _other, section, value, _size in _SYMBOL.iter_unpack(code[table[4] : table[4] + table[5]]):
        found.append(_Symbol(_text_at(code, names + name), section if section < 0xFF00 else 0, value, info >> 4 != 0))
    return found


def _text_at(code: bytes, place: int) -> str:
    return code[place : code.index(b"\0", place)].decode()


def _layout(code: bytes, sections: list[tuple[int, ...]]) -> tuple[dict[int, int], int]:
    """Offsets of the sections that belong in memory; unwind tables are left out, nothing throws.

    Constants come first, at the beginning of a page. A CPU compares the low 12 bits of addresses to find a load that
    has to wait for a store. Where what a kernel keeps on its stack lay at the same place of a page as its constants,
    it was half as fast: native.ON_A_PAGE puts the stack at the end of one.
    """
    names = sections[struct.unpack_from("<H", code, 62)[0]][4]
    places: dict[int, int] = {}
    end = 0
    for index, section in sorted(enumerate(sections), key=lambda numbered: numbered[1][2] & _EXECUTABLE):
        if section[2] & _WRITABLE and section[5] and not _text_at(code, names + section[0]).startswith(".data.rel.ro"):
            raise CompileError("machine code has variables of its own, which threads would share.")
        unwind = section[1] == 0x70000001
        if section[2] & _ALLOCATED and section[5] and not unwind:
            align = max(section[8], 16)
            places[index] = end = -(-end // align) * align
            end += section[5]
    return places, -(-end // 16) * 16


def _missing(symbols: list[_Symbol]) -> list[str]:
    names = [s.name for s in symbols if s.section == 0 and s.name and s.is_global]
    strange = [n for n in names if n not in _LIBC and not copies.is_shared(n)]
    if strange:
        raise CompileError(f"machine code calls {', '.join(strange)}, which kernels may not call.")
    return names


def _outside(name: str) -> int:
    """Address of a function that is not in the object."""
    if copies.is_shared(name):
        return copies.address(name)
    address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    assert address
    return address


def _where(symbol: _Symbol, places: dict[int, int], stubs: dict[str, int]) -> int:
    if symbol.section in places:
        return places[symbol.section] + symbol.value
    return stubs.get(symbol.name, -1)


def _relocate(code, section, target, base, memory, where, symbols, stubs) -> None:  # type: ignore[no-untyped-def]
    start, size = section[4], section[5]
    for offset, info, addend in _RELOCATION.iter_unpack(code[start : start + size]):
        kind, symbol, place = info & 0xFFFFFFFF, info >> 32, target + offset
        value = where[symbol] + addend
        if kind in (_PC32, _PLT32):
            memory[place : place + 4] = struct.pack("<i", value - place)
        elif kind in (_GOT, _GOT_X, _GOT_REX) and symbols[symbol].name in stubs:
            memory[place : place + 4] = struct.pack("<i", value + 8 - place)
        elif kind == _ABS64:
            memory[place : place + 8] = struct.pack("<Q", base + value)
        else:
            raise CompileError(f"machine code has a relocation of kind {kind} that the loader does not know.")


def _protect(base: int, size: int) -> None:
    """Readable and executable, no longer writable."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    if libc.mprotect(base, pages, 1 | 4) != 0:
        raise CompileError(f"the system refuses executable memory (errno {ctypes.get_errno()}).")
