"""manifest.json of an emitted project: what the numbers in its sources stand for, in the user's words.

Plain JSON values only, in a fixed order; no paths of this machine, times or object ids. Start reading at `describe`.
"""

from __future__ import annotations

from typing import Any

from pto_wsp.ascend.emission import Emission, EmittedCall, EmittedKernel, Orders
from pto_wsp.ascend.names import place_of
from pto_wsp.types import Ragged, Symbol, Tensor

__all__ = ["describe", "orders"]

ARCHITECTURE = "dav-2201"
PTO_HEADER = "pto/pto-inst.hpp"


def describe(e: Emission, version: str) -> dict[str, Any]:
    """All of the manifest but the list of files."""
    return {
        "program": {"title": e.title, "name": e.name},
        "generator": {"name": "pto_wsp", "version": version},
        "target": {"architecture": ARCHITECTURE, "chips": ["Ascend 910B (A2)", "Ascend 910C (A3)"]},
        "schedule": orders(e.orders),
        "kernels": [_kernel(k) for k in e.kernels],
        "calls": [_call(e, c) for c in e.calls],
        "tensors": [
            {
                "id": t.number,
                "name": t.name,
                "constant": t.enum,
                "dtype": t.dtype.value,
                "shape": list(t.shape),
                "direction": t.direction,
                "file": f"{t.name}.bin",
            }
            for t in e.tensors
        ],
        "symbols": [
            {"id": s.number, "name": s.name, "constant": s.enum, "holds": "f32 bits" if s.is_float else "u64"}
            for s in e.symbols
        ],
        "sizes": [
            {"id": s.number, "name": s.name, "constant": s.enum, "default": s.default, "line": place_of(s.loop.line)}
            for s in e.sizes
        ],
        "axes": [
            {
                "id": a.number,
                "name": a.name,
                "constant": a.enum,
                "kind": "ragged" if isinstance(a.axis, Ragged) else "sparse",
                "files": {part: f"{a.name}.{part}.bin" for part in a.parts},
                "dtype": "i32",
            }
            for a in e.axes
        ],
        "slots": [{"id": number, "slot": slot} for number, slot in enumerate(e.slots)],
        "table": {"tasks": e.table_tasks, "operands": e.operands, "arguments": e.args},
        "workspace_bytes": e.workspace_bytes,
    }


def orders(o: Orders) -> dict[str, Any]:
    """The schedule as the device keeps it."""
    window = None
    if o.window is not None:
        window = {"size": o.window.size, "unit": o.window.unit, "mode": o.window.mode.name}
    return {
        "dispatch": o.dispatch,
        "targets": o.targets,
        "key": None if o.key is None else str(o.key),
        "window": window,
        "streams": o.streams,
        "stream_key": None if o.stream_key is None else str(o.stream_key),
        "explicit_edges": o.explicit,
        "deps": None if o.deps is None else o.deps.value,
        "data_edges": "always",
        "feeding": "mailboxes" if o.mailboxes else "levels",
    }


def _kernel(k: EmittedKernel) -> dict[str, Any]:
    return {
        "id": k.number,
        "name": k.name,
        "constant": k.enum,
        "file": k.header,
        "form": _form(k),
        "includes": [path for path, _ in k.source.files],
        "function": f"pto_{k.source.name}::Run",
        "line": place_of(k.line),
        "core": k.core,
        "kernel_type": k.source.kernel_type,
        "workspace_bytes": k.source.workspace_bytes,
        "parameters": [
            {
                "name": p.name,
                "identifier": p.identifier,
                "kind": "tile" if p.is_tile else "scalar",
                "direction": p.direction,
                "dtype": p.dtype.value,
                "c_type": p.c_type,
                "shape": [p.rows, p.cols] if p.is_tile else None,
                "elements_apart": p.apart,
            }
            for p in k.source.params
        ],
        "buffers": [
            {
                "tile": r.name,
                "memory": r.memory,
                "offset": r.offset,
                "bytes": r.bytes,
                "live": r.live,
                "holds": r.what,
            }
            for r in k.source.rows
        ],
    }


def _form(k: EmittedKernel) -> str:
    if k.graph.custom is not None:
        return "custom C++"
    return "PTO-ISA" if PTO_HEADER in k.source.header else "AscendC"


def _call(e: Emission, c: EmittedCall) -> dict[str, Any]:
    return {
        "id": c.number,
        "kernel": c.kernel.number,
        "line": place_of(c.task.line),
        "loops": [v.name for v in c.loops],
        "axes": [str(a) for a in c.task.axes],
        "arguments": {name: _argument(e, value) for name, value in c.task.args},
    }


def _argument(e: Emission, value: Any) -> str:
    """As the user wrote it, tensors by their name in this project."""
    if isinstance(value, Tensor):
        name = e.tensors[e.number_of[id(value.base)]].name
        return name + "".join(f"[{_index(i)}]" for i in value.index_exprs)
    return value.sym if isinstance(value, Symbol) else str(value)


def _index(index: Any) -> str:
    if isinstance(index, tuple):
        return ", ".join(_index(i) for i in index)
    if isinstance(index, slice):
        ends = ["" if end is None else str(end) for end in (index.start, index.stop)]
        return ":".join(ends)
    return str(index)
