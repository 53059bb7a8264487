"""Random kernels and random tiles, to hold the interpreter, the printer and the compiler against each other.

    traced(body, ...)           the graph of a function written with pto.*
    graphs()                    a random KernelGraph: any ops, dtypes and shapes, stores in between, loads after stores
    one_op_graphs(op)           a graph that loads, computes one op, and stores
    arguments(graph, ...)       arrays (odd strides, NaN, inf, -0, subnormals, partial tiles) and scalars for a graph
    expected(graph, ...)        what the arrays have to hold after a run, and how far each element may be off
    assert_matches(...)         compares, and says which element of which parameter is wrong
    loop(tree, loops, body)     the loop over any kind of axis that a random workload tree names

Structure is drawn by hypothesis, so that it shrinks; elements come from a seeded generator, so that it is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pto_wsp import DenseDyn, Ragged, Sparse, for_each, parallel_for, select
from pto_wsp.errors import OperandError
from pto_wsp.scalar_expr import slot_bool, slot_i64, slot_u64, symbol_u64
from pto_wsp.trace.extents import extents_of
from pto_wsp.trace.graph import KernelGraph, Node, Param, build, check
from pto_wsp.trace.interpret import interpret
from pto_wsp.trace.ops import OPS, Op
from pto_wsp.trace.tile import Tracer, pto
from pto_wsp.types import DType, ScalarType, TileType

SIZES = (1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 100)
MOST_ELEMENTS = 4096
FLOATS = tuple(d for d in DType if d.is_float)
COMPUTING = tuple(op for op in OPS.values() if op.reference is not None)
EXACT = tuple(op for op in COMPUTING if op.tolerance == 0)
ELEMENTWISE = ("add", "sub", "mul", "div", "maximum", "minimum", "lt", "le", "gt", "ge", "eq", "ne")


def traced(body: Any, *params: Any, out: Any = None, name: str = "traced") -> KernelGraph:
    """The graph of `body`, called with one value per parameter.

    params   (rows, cols) or (rows, cols, dtype), F32 if not said, for a tile; a DType for a scalar; in front of a tile
             "out" or "inout" when it is not "in"
    out      shape of an Out parameter that takes what body returns
    """
    tracer, values = Tracer(name), []
    for i, param in enumerate([*params, *([("out", *out)] if out else [])]):
        directed = isinstance(param, tuple) and isinstance(param[0], str)
        direction, type_ = (param[0], param[1:]) if directed else ("in", param)
        type_ = ScalarType(type_) if isinstance(type_, DType) else TileType(*(*type_, DType.F32)[:3])
        values.append(tracer.parameter("abcdefgh"[i], direction, type_, None))
    with tracer.active():
        if out:
            pto.store(values[-1], body(*values[:-1]))
        else:
            body(*values)
    graph = tracer.graph()
    check(graph)
    return graph


# ---- graphs --------------------------------------------------------------------------------------------------------

class Drawing:
    """A graph while it is drawn: `pool` holds the values that later ops may use."""

    def __init__(self, draw: Any, name: str = "drawn", chain: bool = False, constants: int = 0) -> None:
        self.draw = draw
        self.name = name
        self.chain = chain                          # inexact values may be used by other ops
        self.constants = constants                  # percent of the fresh values that are no parameters
        self.handles: list[Node] = []               # param and scalar_param nodes, in signature order
        self.entry: list[Node] = []                 # implicit loads
        self.nodes: list[Node] = []
        self.pool: list[Node] = []                  # exact values
        self.inexact: list[Node] = []               # values known to within a tolerance: good for a store only
        self.stored: set[int] = set()

    def pick(self, things: Any) -> Any:
        return self.draw(st.sampled_from(list(things)))

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) >= 100 - percent

    # -- values

    def param(self, type_: TileType | ScalarType) -> Node:
        op = OPS["param" if isinstance(type_, TileType) else "scalar_param"]
        self.handles.append(build(op, (), {"type": type_, "index": len(self.handles)})[-1])
        return self.handles[-1]

    def fresh(self, type_: TileType | ScalarType) -> Node:
        """A new parameter's value, or what is known when the kernel is compiled."""
        if self.constants and self.chance(self.constants):
            return self.constant(type_)
        handle = self.param(type_)
        if isinstance(type_, ScalarType):
            self.pool.append(handle)
            return handle
        self.entry.append(build(OPS["load"], (handle,), {"at": "entry"})[-1])
        self.pool.append(self.entry[-1])
        return self.entry[-1]

    def constant(self, type_: TileType | ScalarType) -> Node:
        """Zeros, one number, or consecutive numbers from any on, all of which compilers like to compute with."""
        dtype, kind = type_.dtype, self.draw(st.integers(0, 3))
        if isinstance(type_, TileType) and kind == 0:
            return self.add("alloc", (), shape=(type_.rows, type_.cols), dtype=dtype)  # type: ignore[return-value]
        if isinstance(type_, ScalarType) or kind == 1:
            made = self.add("constant", (), value=self.limit(dtype), dtype=dtype)
            if isinstance(type_, ScalarType):
                return made  # type: ignore[return-value]
        else:
            made = self.add("cast", (self.add("iota_u32", (), cols=type_.cols),), dtype=dtype)
            made = self.add("add", (made, self.limit(dtype))) if kind == 3 else made
        return self.add("broadcast", (made,), shape=(type_.rows, type_.cols))  # type: ignore[return-value]

    def limit(self, dtype: DType) -> float:
        """A number, or one that some dtype just has or just has not."""
        powers = [sign * 2 ** bits for bits in (7, 8, 15, 16, 31, 32, 63) for sign in (1, -1)]
        if dtype.is_float:
            edges = [float(power + more) for power in powers for more in (-1, 0)]
            return self.pick([self.number(dtype), float("-inf"), *edges])
        lowest = -(1 << dtype.bits - 1) if dtype.is_signed else 0
        return self.pick([self.number(dtype), lowest, lowest + (1 << dtype.bits) - 1])

    def value(self, rows: int, cols: int, dtype: DType) -> Node:
        """A value of this type, an old one if there is one."""
        wanted = TileType(rows, cols, dtype)
        found = [n for n in self.pool if n.type == wanted]
        return self.pick(found) if found and not self.chance(15) else self.fresh(wanted)

    def add(self, op: str | Op, operands: Any, **attrs: Any) -> Node | None:
        """Append an operation, or nothing when its row refuses the operands."""
        row = OPS[op] if isinstance(op, str) else op
        try:
            made = build(row, operands, {**{k: v for k, v in row.attrs.items() if not _required(v)}, **attrs})
        except OperandError:
            return None
        if made[-1].type is not None and made[-1].is_tile and _area(made[-1].tile) > 4 * MOST_ELEMENTS:
            return None
        self.nodes.extend(made)
        if made[-1].type is not None:
            (self.pool if row.tolerance == 0 or self.chain else self.inexact).append(made[-1])
        return made[-1]

    def number(self, dtype: DType) -> float:
        if dtype.is_float:
            return self.pick([0.0, -0.0, 1.0, -1.0, 0.5, 1 / 3, -2.75, 1e-3, 300.0, 1e-30, float("inf"), float("nan")])
        return self.pick([0, 1, 2, 3, 7, 100] + ([-1, -5] if dtype.is_signed else []))

    def partner(self, x: Node) -> Any:
        """A second operand for elementwise ops on x: of its shape, a vector, a scalar or a number."""
        kind = self.draw(st.integers(0, 9))
        assert x.type is not None
        if kind == 9 or not x.is_tile:
            return self.number(x.type.dtype)
        if kind == 8:
            scalars = [n for n in self.pool if isinstance(n.type, ScalarType)]
            return self.pick(scalars) if scalars else self.fresh(ScalarType(self.pick(DType)))
        rows, cols = {5: (x.tile.rows, 1), 6: (1, x.tile.cols), 7: (1, 1)}.get(kind, (x.tile.rows, x.tile.cols))
        return self.value(rows, cols, x.tile.dtype)

    def operation(self, ops: Any) -> Node | None:
        op = self.pick(ops)
        tiles = [n for n in self.pool if n.is_tile]
        x = self.pick(tiles if tiles and not self.chance(4) else self.pool)
        return self.apply(op, x)

    def apply(self, op: Op, x: Node) -> Node | None:
        """op with x as its first operand, where that can be."""
        if op.name in ("iota_u32", "alloc", "tsort32", "extract_topk_indices"):
            return self.special(op)
        if not x.is_tile:
            if op.name == "broadcast":
                return self.add(op, (x,), shape=(self.pick(SIZES[:8]), self.pick(SIZES[:8])))
            if op.name == "cast":
                return self.add(op, (x,), dtype=self.pick(DType))
            more = [self.partner(x) for _ in op.operand_names[1:]] if op.promotes else []
            return self.add(op, (x, *more))
        t = x.tile
        if op.name == "matmul":
            n = self.pick([s for s in SIZES if s * max(t.rows, t.cols) <= MOST_ELEMENTS])
            b = self.value(t.cols, n, t.dtype)
            from pto_wsp.trace.ops import matmul_result
            acc = [self.value(t.rows, n, matmul_result(t.dtype))] if self.chance(40) else []
            return self.add(op, (x, b, *acc))
        if op.name == "select":
            mask = self.value(*self.pick([(t.rows, t.cols), (t.rows, 1), (1, t.cols)]), DType.U8)
            return self.add(op, (mask, x, self.partner(x)))
        if op.name in ("rowmul", "rowadd", "colmul", "coladd"):
            vec = self.value(*((t.rows, 1) if op.name.startswith("row") else (1, t.cols)), t.dtype)
            return self.add(op, (x, vec))
        if op.name == "interleave":
            return self.add(op, (x, self.value(t.rows, t.cols, t.dtype)))
        if op.name == "broadcast":
            small = self.value(*self.pick([(t.rows, 1), (1, t.cols), (1, 1), (t.rows, t.cols)]), t.dtype)
            return self.add(op, (small,), shape=(t.rows, t.cols))
        if op.name == "cast":
            return self.add(op, (x,), dtype=self.pick(DType))
        if op.promotes:
            operands = [x, *(self.partner(x) for _ in op.operand_names[1:])]
            return self.add(op, self.draw(st.permutations(operands)) if self.chance(30) else operands)
        return self.add(op, (x,))

    def special(self, op: Op) -> Node | None:
        if op.name == "iota_u32":
            return self.add(op, (), cols=self.pick(SIZES))
        if op.name == "alloc":
            return self.add(op, (), shape=(self.pick(SIZES[:12]), self.pick(SIZES[:12])), dtype=self.pick(DType))
        if op.name == "tsort32":
            index = self.value(1, 32, DType.U32) if self.chance(30) else self.add("iota_u32", (), cols=32)
            return self.add(op, (self.value(1, 32, DType.F32), index))
        return self.add(op, (self.value(1, 64, DType.F32),), k=self.draw(st.integers(1, 32)))

    # -- memory

    def load_again(self) -> None:
        """An explicit load, or the load that matmul makes, of some parameter."""
        handle = self.pick([h for h in self.handles if h.is_tile])
        self.nodes.append(build(OPS["load"], (handle,), {"at": self.pick(["here", "operand"])})[-1])
        self.pool.append(self.nodes[-1])

    def store(self, value: Node, handle: Node | None = None) -> None:
        """Store into a parameter of this shape; into a new one if none is given."""
        if not value.is_tile:
            return
        t = value.tile
        if handle is None:
            dtype = t.dtype if value in self.inexact or not self.chance(25) else self.pick(DType)
            handle = self.param(TileType(t.rows, t.cols, dtype))
        if handle.tile.dtype is not t.dtype:
            self.nodes.append(build(OPS["cast"], (value,), {"dtype": handle.tile.dtype, "by": "store"})[-1])
            value = self.nodes[-1]
        self.nodes.append(build(OPS["store"], (handle, value))[-1])
        self.stored.add(id(handle))

    def store_in_between(self) -> None:
        value = self.pick(self.pool)
        fitting = [h for h in self.handles if value.is_tile and h.is_tile
                   and (h.tile.rows, h.tile.cols) == (value.tile.rows, value.tile.cols)]
        if fitting:
            self.store(value, self.pick(fitting))

    def graph(self) -> KernelGraph:
        loaded = {id(n.operands[0]) for n in self.entry + self.nodes if n.op.name == "load"}
        entry = sorted(self.entry, key=lambda n: n.operands[0].attrs["index"])
        params = []
        for i, handle in enumerate(self.handles):
            written = id(handle) in self.stored
            direction = "in" if not written else "inout" if id(handle) in loaded else "out"
            params.append(Param(f"p{i}", direction, handle))
        graph = KernelGraph(self.name, tuple(params), (*self.handles, *entry, *self.nodes))
        check(graph)
        return graph


def _required(value: Any) -> bool:
    return repr(value) == "<required>"


def _area(tile: TileType) -> int:
    return tile.rows * tile.cols


@st.composite
def graphs(draw: Any, ops: Any = COMPUTING, dtypes: Any = tuple(DType), most_nodes: int = 12,
           chain: bool = False, constants: int = 0) -> KernelGraph:
    """A random kernel. Results of inexact ops (tolerance not 0) are only stored, so that errors do not add up, unless
    `chain`. So many percent of what it starts from are `constants`."""
    d = Drawing(draw, chain=chain, constants=constants)
    dtype = draw(st.sampled_from(list(dtypes)))
    rows = draw(st.sampled_from(SIZES))
    cols = draw(st.sampled_from([s for s in SIZES if s * rows <= MOST_ELEMENTS]))
    d.fresh(TileType(rows, cols, dtype))
    if d.chance(50):
        d.fresh(TileType(rows, cols, d.pick(dtypes)))
    if d.chance(40):
        d.fresh(ScalarType(d.pick(dtypes)))
    for _ in range(draw(st.integers(1, most_nodes))):
        action = draw(st.integers(0, 19))
        if action == 0 and d.entry:
            d.load_again()
        elif action == 1:
            d.store_in_between()
        else:
            d.operation(ops)
    recent = [n for n in d.pool[-6:] if n.is_tile]
    finals = d.inexact[-4:] + (draw(st.lists(st.sampled_from(recent), max_size=3)) if recent else [])
    for value in finals or [next(n for n in d.pool if n.is_tile)]:
        d.store(value)
    return d.graph()


@st.composite
def one_op_graphs(draw: Any, op: Op, dtypes: Any = tuple(DType), constants: int = 0) -> KernelGraph:
    """A kernel that loads, or has constants, applies `op` once and stores."""
    d = Drawing(draw, name=f"one_{op.name}", constants=constants)
    while True:
        rows = draw(st.sampled_from(SIZES))
        least = 2 if op.name in ("slice_even", "slice_odd") else 1
        cols = draw(st.sampled_from([s for s in SIZES if least <= s and s * rows <= MOST_ELEMENTS]))
        x = d.fresh(TileType(rows, cols, draw(st.sampled_from(list(dtypes)))))
        result = d.apply(op, x)
        if result is not None and result.is_tile:
            d.store(result)
            return d.graph()
        d = Drawing(draw, name=d.name, constants=constants)


# ---- data ----------------------------------------------------------------------------------------------------------

def elements(dtype: DType, shape: tuple[int, ...], rng: np.random.Generator, wild: bool = True) -> np.ndarray:
    """Random elements; `wild` ones have NaN, infinities, both zeros, subnormals, largest and smallest among them."""
    count = int(np.prod(shape))
    if dtype.is_int:
        limits = np.iinfo(dtype.numpy)
        small = rng.integers(-9 if dtype.is_signed else 0, 10, count)
        full = rng.integers(limits.min, limits.max, count, dtype=np.dtype(dtype.numpy), endpoint=True)
        values = np.where(rng.random(count) < (0.5 if wild else 1.0), small.astype(full.dtype), full)
        if wild and count:
            spots = rng.random(count) < 0.1
            extremes = np.array([limits.min, limits.max, 0, 1, limits.max - 1], dtype.numpy)
            values[spots] = rng.choice(extremes, int(spots.sum()))
        return values.astype(dtype.numpy).reshape(shape)
    values = rng.standard_normal(count) * 2.0 ** rng.integers(-3, 4, count)
    if wild:
        tiny, huge = {DType.F16: (6e-8, 65504), DType.BF16: (9.2e-41, 3.38e38), DType.F32: (1.4e-45, 3.4028234e38),
                      DType.F64: (5e-324, 1.7976931348623157e308)}[dtype]
        special = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, 88.0, -104.0, 1e5, -1e5, tiny, -tiny, 40 * tiny,
                            huge, -huge, np.inf, -np.inf, np.nan, 65520.0, 65519.0, 2147483648.0, -2147483904.0,
                            1.8e19])
        spots = rng.random(count) < rng.choice([0.0, 0.05, 0.4])
        values[spots] = rng.choice(special, int(spots.sum()))
    with np.errstate(all="ignore"):
        return values.astype(dtype.numpy).reshape(shape)


def strided(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same elements in memory of another layout: padded rows, every other column, transposed, reversed."""
    rows, cols = values.shape
    kind = rng.integers(0, 6)
    if kind == 0:
        home = np.zeros((rows + 2, cols + 3), values.dtype)[1:rows + 1, 2:cols + 2]
    elif kind == 1:
        home = np.zeros((rows, 2 * cols + 1), values.dtype)[:, 1:2 * cols + 1:2]
    elif kind == 2:
        home = np.zeros((cols, rows), values.dtype).T
    elif kind == 3:
        home = np.zeros((rows, cols), values.dtype)[::-1, ::-1]
    else:
        home = np.zeros((rows, cols), values.dtype)
    home[...] = values
    return home


@dataclass
class Arguments:
    """Arrays in the order of graph.tile_params, scalars in that of graph.scalar_params."""

    arrays: list[np.ndarray]
    scalars: list[Any]

    def copies(self) -> list[np.ndarray]:
        return [np.array(a, order="C") for a in self.arrays]


@st.composite
def arguments(draw: Any, graph: KernelGraph, tail: bool = False, wild: bool = True, strides: bool = True) -> Arguments:
    """Arguments for one task; with `tail`, tiles have fewer valid rows and columns where the kernel allows it."""
    rng = np.random.default_rng(draw(st.integers(0, 2 ** 32 - 1)))
    return random_arguments(graph, rng, tail, wild, strides)


def random_arguments(graph: KernelGraph, rng: np.random.Generator, tail: bool = False, wild: bool = True,
                     strides: bool = True) -> Arguments:
    shapes = valid_shapes(graph, rng) if tail else [(p.node.tile.rows, p.node.tile.cols) for p in graph.tile_params]
    arrays = [elements(p.node.tile.dtype, shape, rng, wild) for p, shape in zip(graph.tile_params, shapes, strict=True)]
    scalars = [elements(p.type.dtype, (1,), rng, wild)[0].item() for p in graph.scalar_params]
    return Arguments([strided(a, rng) if strides else a for a in arrays], scalars)


def valid_shapes(graph: KernelGraph, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Valid extents of the tile parameters that satisfy the kernel's constraints."""
    full = [[p.node.tile.rows, p.node.tile.cols] for p in graph.tile_params]
    groups, needed = extents_of(graph).constraints(), extents_of(graph).needed()
    for attempt in range(20):
        nothing = 0.3 if rng.random() < 0.15 else 0             # how often a tile has no rows or no columns
        shapes = [[int(rng.integers(1, n + 1)) if rng.random() < 0.7 else n for n in shape] for shape in full]
        if attempt % 2:
            shapes = [[max(1, n - n % 2) for n in shape] for shape in shapes]
        shapes = [[0 if rng.random() < nothing else n for n in shape] for shape in shapes]
        for _ in range(8):                                  # extents that have to be equal take the smallest
            for group in groups:
                least = min(s.value(shapes[s.param][s.axis]) for s in group)
                for s in group:
                    if s.value(shapes[s.param][s.axis]) != least:
                        fitting = [n for n in range(full[s.param][s.axis] + 1) if s.value(n) == least]
                        if fitting:
                            shapes[s.param][s.axis] = fitting[-1]
        if all(s.value(shapes[s.param][s.axis]) for s in needed) and \
                all(len({s.value(shapes[s.param][s.axis]) for s in group}) == 1 for group in groups):
            return [(a, b) for a, b in shapes]
    return [(a, b) for a, b in full]


# ---- comparison ----------------------------------------------------------------------------------------------------

@dataclass
class Expected:
    """Arrays after the run, and the largest difference allowed: ULPs, or an absolute error where `absolute` is >= 0."""

    arrays: list[np.ndarray]
    ulps: list[np.ndarray]
    absolute: list[np.ndarray]


def expected(graph: KernelGraph, args: Arguments) -> Expected:
    """What a run on (copies of) these arguments has to give."""
    arrays = args.copies()
    values: dict[int, np.ndarray] = {}
    interpret(graph, arrays, args.scalars, lambda node, value: values.__setitem__(id(node), value))
    ulps = [np.zeros(a.shape, np.int64) for a in arrays]
    absolute = [np.full(a.shape, -1.0) for a in arrays]
    place = {id(p.node): i for i, p in enumerate(graph.tile_params)}
    for store in graph.stores:
        dst, src = store.operands
        i = place[id(dst)]
        ulps[i][...], absolute[i][...] = 0, -1
        if src.op.tolerance == "sum":
            if src.tile.dtype.is_float:
                rows, cols = arrays[i].shape
                absolute[i][...] = _sum_slack(src, values)[:rows, :cols]
        elif src.op.tolerance:
            ulps[i][...] = src.op.tolerance
    return Expected(arrays, ulps, absolute)


def _sum_slack(node: Node, values: dict[int, np.ndarray]) -> np.ndarray:
    """n · eps · Σ|x|; inf where the sum could overflow on its way."""
    wide = [np.abs(values[id(o)].astype(np.float64)) for o in node.operands]
    with np.errstate(all="ignore"):
        wide = [np.where(np.isfinite(w), w, 0) for w in wide]
        if node.op.name == "matmul":
            n = min(wide[0].shape[1], wide[1].shape[0])                # what is made whole has more than is used
            total = wide[0][:, :n] @ wide[1][:n]
            for acc in wide[2:]:
                rows, cols = (min(pair) for pair in zip(acc.shape, total.shape, strict=True))
                total = total[:rows, :cols] + acc[:rows, :cols]
        else:
            axis = 1 if node.op.name.startswith("row") else 0
            total, n = wide[0].sum(axis, keepdims=True), wide[0].shape[axis]
        info = np.finfo(node.tile.dtype.numpy)
        slack = (n + 4) * float(info.eps) * total + (n + 4) * float(info.smallest_subnormal)
        return np.where(total > float(info.max) / 4, np.inf, slack)


def ordinals(x: np.ndarray) -> np.ndarray:
    """Floats as integers in the same order, neighbours one apart, -0 one below +0."""
    bits = np.ascontiguousarray(x).view(f"i{x.dtype.itemsize}").astype(np.int64)
    low = np.int64(-(2 ** (8 * x.dtype.itemsize - 1)))
    return np.where(bits < 0, low - bits - 1, bits)


def assert_matches(graph: KernelGraph, got: Any, want: Expected, args: Arguments | None = None) -> None:
    """Every element as expected; any NaN equals any other. Shows the kernel and the worst element if not."""
    rows = zip(graph.tile_params, got, want.arrays, want.ulps, want.absolute, strict=True)
    for param, have, need, ulps, absolute in rows:
        wrong = differs(have, need, ulps, absolute)
        if np.any(wrong):
            at = tuple(int(i[0]) for i in np.nonzero(wrong))
            shown = "" if args is None else f"\nshapes {[a.shape for a in args.arrays]}, scalars {args.scalars}"
            raise AssertionError(f"{param.name}{list(at)} is {have[at]!r}, expected {need[at]!r} (within {ulps[at]} "
                                 f"ULP, absolute {absolute[at]}); {int(wrong.sum())} of {wrong.size} differ{shown}\n"
                                 f"{graph}")


def differs(have: np.ndarray, need: np.ndarray, ulps: np.ndarray, absolute: np.ndarray) -> np.ndarray:
    assert have.shape == need.shape and have.dtype == need.dtype, (have.shape, need.shape, have.dtype, need.dtype)
    if have.dtype.kind in "iu":
        return have != need
    h, n = have.astype(np.float64), need.astype(np.float64)
    with np.errstate(all="ignore"):
        far = np.abs(ordinals(have) - ordinals(need)) > ulps
        off = ~(np.abs(h - n) <= absolute) & ~((h == n) & np.isinf(n))
        wrong = np.where(absolute >= 0, off & ~np.isinf(absolute), far)
        return wrong & ~(np.isnan(h) & np.isnan(n))


# ---- loops of random workloads


def predicates(slots: Any) -> Any:
    """Conditions on a slot, on the innermost loop, on the symbol n, and constant ones."""
    return st.one_of(
        st.tuples(st.sampled_from(["remainder", "bool", "signed"]), slots, st.integers(1, 4)),
        st.tuples(st.just("loop"), st.integers(1, 3)),
        st.tuples(st.just("symbol"), st.integers(3, 7)),
        st.tuples(st.just("constant"), st.sampled_from([True, False, 0, 3])),
    )


def predicate(pred: tuple[Any, ...], loops: tuple[Any, ...]) -> Any:
    """The condition that an element of `predicates(slots)` describes, inside these loops, innermost first."""
    kind, *given = pred
    if kind == "remainder":
        return slot_u64(given[0]) % (given[1] + 1) == 0
    if kind == "bool":
        return slot_bool(given[0])
    if kind == "signed":
        return slot_i64(given[0]) < given[1]
    if kind == "loop":
        return loops[0] % (given[0] + 1) == 0 if loops else True
    return symbol_u64("n") > given[0] if kind == "symbol" else given[0]


def loop(tree: tuple[Any, ...], loops: tuple[Any, ...], body: Callable[[Any], Any]) -> Any:
    """The loop that `tree` names: its kind, the data of its axis, and what stands inside, which `body` makes.

    ("list", values), ("sparse", rows), ("sparse row", rows), ("ragged", kind, lengths), ("ragged row", kind, lengths),
    (kind, size) or (kind, size, is its size given at run time), where kind is "parallel" or another word; `loops` are
    the variables of the loops around it, the innermost first.
    """
    kind, *given = tree
    if kind == "list":
        return select(given[0], body)
    if kind.startswith("sparse"):
        ends = np.cumsum([0, *(len(row) for row in given[0])]) + 1  # the first entry of indices belongs to no row
        axis = Sparse(len(given[0]), ends.tolist(), [99, *(e for row in given[0] for e in row)])
        return select(_row(axis, len(given[0]), loops) if kind == "sparse row" else axis, body)
    size = given[0]
    if kind.startswith("ragged"):
        size = Ragged(len(given[1]), given[1])
        size = _row(size, len(given[1]), loops) if kind == "ragged row" else size
        kind = given[0]
    elif given[1] is True:
        size = DenseDyn(size)
    return (parallel_for if kind == "parallel" else for_each)(size, body)


def _row(axis: Any, rows: int, loops: tuple[Any, ...]) -> Any:
    return axis[loops[0] % rows] if loops else axis[0]
