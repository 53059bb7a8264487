"""Type checker: does a kernel call fit the kernel?

Called for every kernel call of a @workload body, where what it finds is collected, and once more when the
workload is compiled, where any finding is an error.  It says nothing about what only a run can know, such
as sizes of a DenseDyn axis or of arrays bound later.

    check_kernel_call(blur, axes, {"img": X[b], "out": Y[b]})  ->  [] or a list of TypeErrorInfo

A call is checked in steps; a wrong number of arguments ends it:

    arity, names    every parameter without a default gets one argument, by its name
    kinds           tensors for tiles, numbers, symbols and expressions for scalars; None passes, for
    building only tiles           dtype and shape of each view; a smaller view makes a partial tile, a
    larger one is refused directions      an output can be written layouts         the values that the
    kernel combines have a join bounds          indices that move with static loops stay inside the array,
    where the call is surely reached
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from pto_wsp.arguments import instance
from pto_wsp.errors import AxisError, LayoutIncompatibleError
from pto_wsp.layout import (
    DistElem,
    Layout,
    LayoutCompatibilityError,
    LayoutReplicate,
    LayoutShard,
    Replicate,
    Shard,
    TensorLayout,
    layout_join,
    tensor_layout_join,
)
from pto_wsp.scalar_expr import Expr, LoopVar, affine
from pto_wsp.types import Dense, DenseDyn, Index, ScalarType, Symbol, Tensor, TileType, loop_axis

__all__ = [
    "Layout",
    "LayoutCompatibilityError",
    "LayoutReplicate",
    "LayoutShard",
    "Replicate",
    "Shard",
    "TypeCheckContext",
    "TypeChecker",
    "TypeErrorInfo",
    "TypeErrorKind",
    "check_kernel_call",
    "check_layouts_compatible",
    "layout_join",
    "validate_axis_index",
]


class TypeErrorKind(Enum):
    """What does not fit."""

    ARITY_MISMATCH = "arity_mismatch"
    TYPE_MISMATCH = "type_mismatch"
    LAYOUT_INCOMPATIBLE = "layout_incompatible"
    AXIS_OUT_OF_BOUNDS = "axis_out_of_bounds"
    MISSING_ARGUMENT = "missing_argument"
    DIRECTION_VIOLATION = "direction_violation"
    SHAPE_MISMATCH = "shape_mismatch"


@dataclass
class TypeErrorInfo:
    """One finding. `message` says everything; the other fields say parts of it again, for programs."""

    kind: TypeErrorKind
    message: str
    location: str | None = None
    expected: Any = None
    got: Any = None
    hint: str | None = None

    def __str__(self) -> str:
        parts = [f"TypeError: {self.kind.value}"]
        parts += [f"  at {self.location}"] if self.location else []
        parts.append(f"  {self.message}")
        for label, value in (("Expected", self.expected), ("Got", self.got), ("Hint", self.hint)):
            parts += [] if value is None else [f"  {label}: {value}"]
        return "\n".join(parts)


@dataclass
class TypeCheckContext:
    """Where a checker looks, and what it does about what it finds.

    fail_fast          raise TypeError for the first finding
    current_location   goes into every finding, e.g. "<workload>.<kernel>"
    unconditional      the call is reached in every iteration of its loops, so loop bounds can be checked
    """

    fail_fast: bool = False
    workload_name: str = ""
    current_location: str = ""
    unconditional: bool = False


class TypeChecker:
    """Collects findings. Each check returns whether it found nothing."""

    def __init__(self, context: TypeCheckContext | None = None) -> None:
        self.ctx = TypeCheckContext() if context is None else instance(context, TypeCheckContext, "context")
        self.errors: list[TypeErrorInfo] = []

    def has_errors(self) -> bool:
        """Has a check found something?"""
        return bool(self.errors)

    def get_errors(self) -> list[TypeErrorInfo]:
        """A copy of the findings so far."""
        return list(self.errors)

    def clear_errors(self) -> None:
        """Forget what the checks have found."""
        self.errors.clear()

    def error(
        self,
        kind: TypeErrorKind,
        message: str,
        expected: Any = None,
        got: Any = None,
        hint: str | None = None,
    ) -> None:
        """Note a finding; with fail_fast raise the built-in TypeError."""
        self._note(TypeErrorInfo(kind, message, expected=expected, got=got, hint=hint))

    def _note(self, found: TypeErrorInfo) -> None:
        found.location = self.ctx.current_location or None
        self.errors.append(found)
        if self.ctx.fail_fast:
            raise TypeError(str(found))

    def _note_all(self, findings: Iterable[TypeErrorInfo]) -> bool:
        before = len(self.errors)
        for found in findings:
            self._note(found)
        return len(self.errors) == before

    # ---- checks

    def check_kernel_call(
        self, kernel: Any, axes: Sequence[Any], args: Mapping[str, Any], positional: Sequence[Any] = ()
    ) -> bool:
        """Do the arguments fit the kernel? True when this call is right, whatever was found before.

        args         by parameter name;  positional  those given by position
        """
        if not isinstance(args, Mapping):
            raise TypeError(f"arguments of a kernel call are a dict of name to tensor or number; got {args!r}")
        return self._note_all(_call_errors(kernel, tuple(positional), dict(args), self.ctx.unconditional))

    def check_axis_bounds(self, axis: Any, index: Any) -> bool:
        """0 <= index < size, for a Dense or DenseDyn axis and an int; anything else passes."""
        return self._note_all(_axis_errors(axis, index))

    def check_tensor_access(self, tensor: Any, indices: Any) -> bool:
        """No more indices than dimensions, and constant ones inside them. Other objects than tensors pass."""
        return self._note_all(_access_errors(tensor, indices))

    def check_shapes_compatible(self, s1: Sequence[int], s2: Sequence[int], context: str = "") -> bool:
        """Equal ranks and equal dimensions; -1 fits any."""
        return self._note_all(_shape_errors(tuple(s1), tuple(s2), context))


def check_kernel_call(
    kernel: Any, axes: Sequence[Any], args: Mapping[str, Any], fail_fast: bool = False
) -> list[TypeErrorInfo]:
    """What does not fit in a call; with fail_fast a TypeError for the first finding."""
    checker = TypeChecker(TypeCheckContext(fail_fast=fail_fast))
    checker.check_kernel_call(kernel, axes, args)
    return checker.get_errors()


def check_layouts_compatible(*tensors: Any) -> TensorLayout | None:
    """The join of the tensors' layouts; None when they have none, or there is no tensor. Ignores other objects."""
    layouts = [t.layout for t in tensors if isinstance(t, Tensor)]
    try:
        joined = layouts[0] if layouts else None
        for layout in layouts[1:]:
            joined = tensor_layout_join(joined, layout) if joined is not None else layout
        return joined
    except LayoutIncompatibleError:
        return None


def validate_axis_index(axis: Any, index: Any) -> bool:
    """True, or a TypeError when an int index is outside a Dense or DenseDyn axis."""
    return TypeChecker(TypeCheckContext(fail_fast=True)).check_axis_bounds(axis, index)


# ---------------------------------------------------------------------------------------------- calls


@dataclass(frozen=True)
class _Param:
    """What the checker knows of a kernel's parameter. inner: TileType, ScalarType, Tensor, another type, or None."""

    name: str
    direction: str
    inner: Any
    required: bool


Findings = Iterator[TypeErrorInfo]


def _call_errors(kernel: Any, positional: tuple[Any, ...], named: dict[str, Any], unconditional: bool) -> Findings:
    if isinstance(kernel, str):  # a kernel that is only a name, for building
        return
    name, params = getattr(kernel, "name", str(kernel)), _params(kernel)
    arity = list(_arity_errors(name, params, positional, named))
    if arity:
        yield from arity
        return
    given = {**dict(zip((p.name for p in params), positional, strict=False)), **named}
    yield from _name_errors(name, params, given)
    for param in params:
        if given.get(param.name) is not None:
            yield from _argument_errors(name, param, given[param.name], unconditional)
    yield from _layout_errors(name, kernel, params, given)


def _params(kernel: Any) -> tuple[_Param, ...]:
    """From the kernel's own list of parameters, or else from its function or its annotations."""
    known = getattr(kernel, "params", None)
    if known:
        return tuple(_Param(p.name, p.direction, p.inner_type, not getattr(p, "has_default", False)) for p in known)
    function = getattr(kernel, "func", None)
    if callable(function):
        listed = inspect.signature(function).parameters.values()
        return tuple(_param_of(p.name, p.annotation, p.default is p.empty) for p in listed)
    annotations: Mapping[str, Any] = getattr(kernel, "signature", None) or {}
    return tuple(_param_of(name, hint, True) for name, hint in annotations.items() if name != "return")


def _param_of(name: str, hint: Any, required: bool) -> _Param:
    direction = getattr(hint, "direction", "in")
    inner = getattr(hint, "inner", None)
    if inner is None:
        inner = Tensor if isinstance(hint, str) and "Tensor" in hint else hint
    return _Param(name, direction if isinstance(direction, str) else "in", inner, required)


def _arity_errors(
    name: str, params: tuple[_Param, ...], positional: tuple[Any, ...], named: dict[str, Any]
) -> Findings:
    count, required = len(positional) + len(named), sum(p.required for p in params)
    names = [p.name for p in params]
    if required <= count <= len(params) and len(positional) <= len(params):
        return
    left_out = [p.name for p in params[len(positional) :] if p.required and p.name not in named]
    unknown = [key for key in named if key not in names]
    wanted = str(required) if required == len(params) else f"{required} to {len(params)}"
    yield TypeErrorInfo(
        TypeErrorKind.ARITY_MISMATCH,
        f"{name} takes {wanted} arguments ({', '.join(names)}); got {count}"
        + (f"; missing: {', '.join(left_out)}" if left_out else "")
        + (f"; it has no parameter {', '.join(unknown)}" if unknown else ""),
        expected=wanted,
        got=count,
    )


def _name_errors(name: str, params: tuple[_Param, ...], given: dict[str, Any]) -> Findings:
    """The number fits, so a required parameter is missing, an unknown one is given, or one is misspelt: that is one
    finding, a missing argument."""
    import difflib

    names = [p.name for p in params]
    missing = [p.name for p in params if p.required and p.name not in given]
    for key in given:
        if key in names:
            continue
        close = difflib.get_close_matches(key, names, 1)
        hint = f"did you mean {close[0]!r}?" if close else None
        text = f"{name} has no parameter {key!r}; it has {', '.join(names)}"
        if missing:
            meant = close[0] if close and close[0] in missing else missing[0]
            missing.remove(meant)
            kind, text = TypeErrorKind.MISSING_ARGUMENT, f"{text}; no argument for {meant!r}"
        else:
            kind, meant = TypeErrorKind.ARITY_MISMATCH, ", ".join(names)
        yield TypeErrorInfo(kind, text, expected=meant, got=key, hint=hint)
    for parameter in missing:
        yield TypeErrorInfo(
            TypeErrorKind.MISSING_ARGUMENT, f"{name}: no argument for {parameter!r}", expected=parameter
        )


# ---------------------------------------------------------------------------------------------- one argument


def _argument_errors(kernel: str, param: _Param, value: Any, unconditional: bool) -> Findings:
    if isinstance(param.inner, TileType):
        if not isinstance(value, Tensor):
            yield _wrong_kind(kernel, param, value, "a Tensor")
            return
        yield from _tile_errors(kernel, param, value)
        yield from _direction_errors(kernel, param, value)
        if unconditional:
            yield from _bounds_errors(kernel, param, value)
    elif param.inner is Tensor:
        if not isinstance(value, Tensor):
            yield _wrong_kind(kernel, param, value, "a Tensor")
    elif isinstance(param.inner, ScalarType):
        if not isinstance(value, (numbers.Number, np.generic, Symbol, LoopVar, Expr)):
            yield _wrong_kind(kernel, param, value, "a number, a Symbol, or an expression of loop variables")


def _wrong_kind(kernel: str, param: _Param, value: Any, wanted: str) -> TypeErrorInfo:
    hint, shown = None, repr(value)
    if isinstance(value, np.ndarray):
        hint = "wrap the array: Tensor(data=x, shape=x.shape, dtype=DType.from_numpy(x.dtype))"
        shown = f"an array of shape {value.shape}"
    inner = "" if param.inner is Tensor else f" for {param.inner}"
    return TypeErrorInfo(
        TypeErrorKind.TYPE_MISMATCH,
        f"{kernel}: {param.name!r} needs {wanted}{inner}; got {shown}" + (f"; {hint}" if hint else ""),
        expected=wanted,
        got=type(value).__name__,
        hint=hint,
    )


def _tile_errors(kernel: str, param: _Param, view: Tensor) -> Findings:
    """Does the view's dtype and shape suit the tile?"""
    tile = param.inner
    if view.dtype is not tile.dtype:
        yield TypeErrorInfo(
            TypeErrorKind.TYPE_MISMATCH,
            f"{kernel}: {param.name!r} is {tile}, but the tensor holds {view.dtype}",
            expected=tile.dtype,
            got=view.dtype,
        )
    extents = _tile_extents(view, tile)
    if extents is None:
        yield TypeErrorInfo(
            TypeErrorKind.SHAPE_MISMATCH,
            f"{kernel}: {param.name!r} is {tile}, which takes two dimensions (one if it has a single row or "
            f"column); got a view of shape {view.shape}",
            expected=tile.shape,
            got=view.shape,
            hint="index the leading dimensions: X[i][j]",
        )
    elif any(isinstance(most, int) and n > most for n, most in zip(extents, tile.shape, strict=True)):
        yield TypeErrorInfo(
            TypeErrorKind.SHAPE_MISMATCH,
            f"{kernel}: {param.name!r} is {tile}, smaller than the view of shape {view.shape}, so the rest of the "
            "view would be left out; loop over tiles: X[i * rows : (i + 1) * rows]",
            expected=tile.shape,
            got=view.shape,
        )


def _tile_extents(view: Tensor, tile: TileType) -> tuple[int, int] | None:
    """(rows, columns) that the view has for the tile; None when its rank does not fit."""
    shape = view.shape
    if len(shape) > 2 and all(n == 1 for n in shape[:-2]):
        shape = shape[-2:]
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) == 1 and 1 in tile.shape:
        return (1, shape[0]) if tile.rows == 1 else (shape[0], 1)
    return (1, 1) if not shape and tile.shape == (1, 1) else None


def _direction_errors(kernel: str, param: _Param, view: Tensor) -> Findings:
    """Can an output be written?"""
    array = view.base.data
    if param.direction not in ("out", "inout") or array is None or not array.size:
        return
    why = None if array.flags.writeable else "read-only"
    if any(n > 1 and stride == 0 for n, stride in zip(array.shape, array.strides, strict=True)):
        why = "broadcast, so that several elements share one place in memory"
    if why:
        yield TypeErrorInfo(
            TypeErrorKind.DIRECTION_VIOLATION,
            f"{kernel}: {param.name!r} is written, but its array is {why}; bind a copy",
            expected="a writable array",
            got=why,
        )


def _bounds_errors(kernel: str, param: _Param, view: Tensor) -> Findings:
    """Does a window that moves with static loops leave its array?"""
    for dim, (entry, size) in enumerate(zip(view.window, view.base.shape, strict=True)):
        at, last = (entry.at, size - 1) if isinstance(entry, Index) else (entry.start, size)
        values = None if isinstance(at, int) else _values_of(at)
        if values is None or 0 <= values[0] and values[1] <= last:
            continue
        worst = values[0] if values[0] < 0 else values[1]
        yield TypeErrorInfo(
            TypeErrorKind.AXIS_OUT_OF_BOUNDS,
            f"{kernel}: {param.name!r}: index {at} of dimension {dim} reaches {worst}, "
            f"and the tensor has {size} elements there",
            expected=f"0 to {last}",
            got=worst,
        )


def _values_of(e: Expr) -> tuple[int, int] | None:
    """Least and greatest value of an expression over static loops; None when that is unknown or there is no value."""
    form = affine(e)
    if form is None:
        return None
    low = high = form[1]
    for var, factor in form[0].items():
        size = _static_size(var.axis)
        if not size:
            return None
        ends = (0, factor * (size - 1))
        low, high = low + min(ends), high + max(ends)
    return low, high


def _static_size(axis: Any) -> int | None:
    try:
        axis = loop_axis(axis)
    except AxisError:
        return None
    return axis.size if isinstance(axis, Dense) else axis if isinstance(axis, int) else None


# ---------------------------------------------------------------------------------------------- layouts

_Pair = TensorLayout  # of a tile: distribution of its rows and of its columns


def _layout_errors(name: str, kernel: Any, params: tuple[_Param, ...], given: dict[str, Any]) -> Findings:
    tensors = {p.name: given[p.name] for p in params if isinstance(given.get(p.name), Tensor)}
    if all(tensor.layout.is_replicated() for tensor in tensors.values()):
        return
    graph = _graph_of(kernel, given)
    try:
        if graph is None or not graph.stores:
            _join_alike(tensors)
        else:
            _join_along(graph, tensors)
    except LayoutIncompatibleError as error:
        layouts = ", ".join(f"{key} {tensor.layout.dist}" for key, tensor in tensors.items())
        yield TypeErrorInfo(
            TypeErrorKind.LAYOUT_INCOMPATIBLE,
            f"{name} combines tensors whose layouts have no join ({layouts}): {error.message}",
            got=layouts,
            hint="relayout(tensor, to) one of them before the call",
        )


def _graph_of(kernel: Any, given: Mapping[str, Any]) -> Any:
    """The kernel's graph; None for what is no traced kernel, or cannot be traced (compiling it says why)."""
    trace = getattr(kernel, "graph_for", None)
    try:
        return trace(given) if trace is not None else None
    except Exception:  # whatever the kernel's body raises
        return None


def _join_alike(tensors: Mapping[str, Tensor]) -> None:
    """Nothing is known of the body: join the tensors of one shape."""
    joined: dict[tuple[int, ...], TensorLayout] = {}
    for tensor in tensors.values():
        known = joined.get(tensor.shape)
        joined[tensor.shape] = tensor.layout if known is None else tensor_layout_join(known, tensor.layout)


def _join_along(graph: Any, tensors: Mapping[str, Tensor]) -> None:
    """Join the layouts of the values that each operation combines."""
    names = {id(p.node): p.name for p in graph.params}
    layouts: dict[int, _Pair] = {}
    for node in graph.nodes:
        if not isinstance(node.type, TileType) and node.op.name != "store":
            continue
        tiles = [(x.type, layouts[id(x)]) for x in node.operands if isinstance(x.type, TileType)]
        if node.op.name == "param":
            tensor = tensors.get(names[id(node)])
            layouts[id(node)] = _pair(tensor, node.type) if tensor is not None else TensorLayout.default(2)
        else:
            layouts[id(node)] = _result_layout(node, tiles)


def _pair(tensor: Tensor, tile: TileType) -> _Pair:
    """Distribution of a tile's rows and columns, when it is bound to the tensor."""
    dist: tuple[DistElem, ...] = tensor.layout.dist[-2:]
    if len(dist) == 2:
        return TensorLayout(dist)
    whole = (Replicate(),)
    return TensorLayout(whole + dist + whole * (1 - len(dist)) if tile.rows == 1 else dist + whole)


def _result_layout(node: Any, tiles: list[tuple[TileType, _Pair]]) -> _Pair:
    """Layout of what a node makes.

    raises  LayoutIncompatibleError when its operands have no join
    """
    if node.op.name == "matmul":
        return _matmul_layout([pair for _, pair in tiles])
    if node.op.name == "transpose":
        return TensorLayout(tiles[0][1].dist[::-1])
    shape = tiles[0][0].shape if node.type is None else node.type.shape
    joined = TensorLayout.default(2)
    for tile, pair in tiles:  # a dimension that is reduced or broadcast says nothing about the result's
        parts = zip(pair.dist, tile.shape, shape, strict=True)
        kept = tuple(element if n == result else Replicate() for element, n, result in parts)
        joined = tensor_layout_join(joined, TensorLayout(kept))
    return joined


def _matmul_layout(operands: list[_Pair]) -> _Pair:
    """[M, K] and [K, N], and perhaps [M, N] to add."""
    a, b = operands[0].dist, operands[1].dist
    tensor_layout_join(TensorLayout((a[1],)), TensorLayout((b[0],)))
    product = tensor_layout_join(TensorLayout((a[0], Replicate())), TensorLayout((Replicate(), b[1])))
    return tensor_layout_join(product, operands[2]) if len(operands) > 2 else product


# ---------------------------------------------------------------------------------------------- the other checks


def _axis_errors(axis: Any, index: Any) -> Findings:
    plain = isinstance(index, (int, np.integer)) and not isinstance(index, bool)
    if plain and isinstance(axis, (Dense, DenseDyn)) and not 0 <= index < axis.size:
        yield TypeErrorInfo(
            TypeErrorKind.AXIS_OUT_OF_BOUNDS,
            f"index {index} is outside {axis!r}",
            expected=f"0 to {axis.size - 1}",
            got=int(index),
        )


def _access_errors(tensor: Any, indices: Any) -> Findings:
    if not isinstance(tensor, Tensor):
        return
    listed = tuple(indices) if isinstance(indices, (tuple, list)) else (indices,)
    if len(listed) > tensor.rank:
        yield TypeErrorInfo(
            TypeErrorKind.SHAPE_MISMATCH,
            f"{len(listed)} indices for a tensor of shape {tensor.shape}",
            expected=f"at most {tensor.rank} indices",
            got=len(listed),
        )
    for dim, (index, size) in enumerate(zip(listed, tensor.shape, strict=False)):
        if isinstance(index, (int, np.integer)) and not -size <= index < size:
            yield TypeErrorInfo(
                TypeErrorKind.AXIS_OUT_OF_BOUNDS,
                f"index {index} is outside dimension {dim} of a tensor of shape {tensor.shape}",
                expected=f"{-size} to {size - 1}",
                got=int(index),
            )


def _shape_errors(s1: tuple[int, ...], s2: tuple[int, ...], context: str) -> Findings:
    fit = len(s1) == len(s2) and all(a == b or -1 in (a, b) for a, b in zip(s1, s2, strict=True))
    if not fit:
        where = f"{context}: " if context else ""
        yield TypeErrorInfo(TypeErrorKind.SHAPE_MISMATCH, f"{where}shapes {s1} and {s2} differ", expected=s1, got=s2)
