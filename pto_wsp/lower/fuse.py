"""Neighbouring ops into loop nests: a simplified graph becomes a LoopProgram.

Four questions, in this order: which nest does each op belong to (`_assign_nests`), which pass over the row
(`_assign_stages`), which values need memory (`_demand`), and which loads must be copied because a store of the same
nests may overlap them (`_find_hazards`). The answers are data; `llvm.py` only writes them down.
"""

from __future__ import annotations

from pto_wsp.lower.algebra import compute_dtype
from pto_wsp.lower.loops import (
    APART,
    LANES,
    LONGEST,
    Buffer,
    Hazard,
    LoopProgram,
    RowNest,
    Snapshot,
    Stage,
    WholeNest,
    cost_of,
    in_lanes,
    reduce_cost,
)
from pto_wsp.lower.rules import RULES, Halve, Interleave, Leaf, Map, Reduce, Rule, Whole
from pto_wsp.trace.extents import MADE_WHOLE, Extent, extents_of
from pto_wsp.trace.graph import KernelGraph, Node
from pto_wsp.types import DType

CHEAP = 1  # a Map of at most this cost is computed again rather than kept in memory …
CHEAP_DEPTH = 2  # … together with at most this many levels of operands
CHEAP_PASS = 16  # vector instructions of a step, roughly, up to which a pass waits for memory
ALIGN = 64
CHEAP_SCALARS = 4  # of a row, in vector instructions, roughly: not worth doing for several rows side by side
BLOCK_ELEMENTS = 4096  # of the widest tile that go through a pass together: they should still be in L1 for the next one


def rule_of(node: Node) -> Rule:
    return RULES[node.op.name]


def fuse(graph: KernelGraph, tail: bool) -> LoopProgram:
    """Plan the nests of `graph`. tail: extents are those of the task at hand, else the static ones."""
    return _Planner(graph, tail).plan()


class _Planner:
    """The plan under construction. Homes say where a value is computed; loads and other leaves have none."""

    def __init__(self, graph: KernelGraph, tail: bool) -> None:
        self.graph = graph
        self.tail = tail
        self.extents = extents_of(graph)
        self.users: dict[int, list[Node]] = {id(n): [] for n in graph.nodes}
        for node in graph.nodes:
            for operand in node.operands:
                self.users[id(operand)].append(node)
        self.nests: list[RowNest | WholeNest] = []
        self.members: list[list[Node]] = []  # nodes of each nest, in order
        self.room: list[int] = []  # how much more each nest may do
        self.home: dict[int, int] = {}  # id(node) -> its nest
        self.stage: dict[int, int] = {}  # id(node) -> its stage; -1: before the first
        self.position: dict[int, int] = {}  # id(load) -> nest before which the load happens
        self.uses: dict[int, list[tuple[int, int]]] = {}  # id(load) -> (nest, stage) of each use; stage -1: row start
        self.addressed: set[int] = set()  # loads that a Halve reads with its own addresses
        self.buffers: dict[int, Node] = {}
        self.row_buffers: dict[int, Node] = {}

    def plan(self) -> LoopProgram:
        self._assign_nests()
        self._sink_to_users()
        for index, nest in enumerate(self.nests):
            if isinstance(nest, RowNest):
                self._assign_stages(index, nest)
        for index, nest in enumerate(self.nests):
            self._demand_nest(index, nest)
        return self._finish()

    def extent(self, node: Node, axis: int) -> Extent:
        found = self.extents.of(node, axis)
        return found if self.tail and node.op.name not in MADE_WHOLE else Extent(found.static)

    # ---- nests -----------------------------------------------------------------------------------------------------

    def _assign_nests(self) -> None:
        last_store, floor = -1, 0  # floor: a store stays behind the loads that precede it
        for node in self.graph.nodes:
            rule, name = rule_of(node), node.op.name
            if name in ("param", "add_cycles") or (not node.is_tile and name != "store"):
                continue
            if name == "load":
                self.position[id(node)] = last_store + 1
                if node.attrs["at"] == "entry":
                    self.position[id(node)] = 0
                floor = max(floor, self.position[id(node)])
                continue
            if isinstance(rule, Leaf) and not any(self._reads_memory(u) for u in self.users[id(node)]):
                continue
            if name == "transpose" and all(u.op.name == "matmul" for u in self.users[id(node)]):
                continue  # a view: the product reads it with strides exchanged
            if isinstance(rule, Whole):
                self._join(node, len(self.nests))
                continue
            if name == "store":
                last_store = self._place_store(node, max(last_store, floor))
            else:
                self._join(node, self._choose(node, self._earliest(node)))

    def _place_store(self, store: Node, earliest: int) -> int:
        """Stores keep their order, from nest `earliest` on. The store of a new product is in the product's nest."""
        src = store.operands[1]
        if src.op.name == "matmul" and len(self.users[id(src)]) == 1 and self.home[id(src)] >= earliest:
            nest = self.nests[self.home[id(src)]]
            assert isinstance(nest, WholeNest)
            nest.store = store
            self.home[id(store)] = self.home[id(src)]
            return self.home[id(store)]
        self._join(store, self._choose(store, max(self._earliest(store), earliest)))
        return self.home[id(store)]

    def _reads_memory(self, user: Node) -> bool:
        return isinstance(rule_of(user), (Whole, Halve))

    def rows_of(self, node: Node) -> Extent:
        """Extent of the row loop that computes `node`."""
        rule = rule_of(node)
        inner = node.operands[0] if node.op.name == "store" or isinstance(rule, Reduce) else node
        return self.extent(inner, 0)

    def _earliest(self, node: Node) -> int:
        """First nest that may compute `node`, by its operands (through views and values that have no home)."""
        earliest = 0
        for operand in node.operands:
            earliest = max(earliest, self._ready(operand, self.rows_of(node)))
        return earliest

    def _ready(self, operand: Node, rows: Extent | None) -> int:
        """First nest in which `operand` can be used; rows: the row loop of the user, None for a whole-tile op."""
        if operand.op.name == "load":
            return self.position[id(operand)]
        if id(operand) not in self.home:
            return max((self._ready(o, None) for o in operand.operands if o.is_tile), default=0)
        nest = self.nests[self.home[id(operand)]]
        rule = rule_of(operand)
        together = (
            isinstance(nest, RowNest)
            and rows is not None
            and nest.rows == rows
            and self.extent(operand, 0) == rows
            and not (isinstance(rule, Reduce) and rule.axis == 0)
        )
        return self.home[id(operand)] + (not together)

    def _choose(self, node: Node, earliest: int) -> int:
        """The last nest with the node's row loop, if it is late enough; else a new one. What reduces a column is only
        among columns."""
        rows, column = self.rows_of(node), _is_column(node)
        for index in reversed(range(earliest, len(self.nests))):
            nest = self.nests[index]
            if not isinstance(nest, RowNest) or nest.rows != rows or self.room[index] <= 0:
                continue
            if column or not nest.flipped:
                if nest.flipped or not _reduces_column(node) or all(map(_is_column, self.members[index])):
                    return index
        return len(self.nests)

    def _join(self, node: Node, index: int) -> None:
        if index == len(self.nests):
            self.nests.append(WholeNest(node) if isinstance(rule_of(node), Whole) else RowNest(self.rows_of(node)))
            self.members.append([])
            self.room.append(LONGEST)
        self.room[index] -= cost_of(node)
        self.members[index].append(node)
        self.home[id(node)] = index
        nest = self.nests[index]
        if isinstance(nest, RowNest) and _reduces_column(node):
            nest.flipped = True

    def _sink_to_users(self) -> None:
        """Compute a tile where it is used when only a later nest uses it and it is made of parameters and row scalars:
        those are less to keep in memory than the tile."""
        order = {id(n): i for i, n in enumerate(self.graph.nodes)}
        for node in reversed(self.graph.nodes):
            home, users = self.home.get(id(node)), self.users[id(node)]
            if (
                home is None
                or not users
                or not isinstance(rule_of(node), Map)
                or node.op.name == "store"
                or node.tile.cols == 1
            ):
                continue
            homes = {self.home.get(id(u)) for u in users}
            target = homes.pop()
            if homes or target is None or target <= home:
                continue
            here, there = self.nests[home], self.nests[target]
            if not (isinstance(here, RowNest) and isinstance(there, RowNest) and here.rows == there.rows):
                continue
            if all(not o.is_tile or o.op.name == "load" or o.tile.cols == 1 for o in node.operands):
                self.members[home].remove(node)
                self.members[target].append(node)
                self.members[target].sort(key=lambda n: order[id(n)])
                self.home[id(node)] = target

    # ---- stages ----------------------------------------------------------------------------------------------------

    def _assign_stages(self, index: int, nest: RowNest) -> None:
        members = self.members[index]
        nest.flipped = nest.rows.static > 1 and all(map(_is_column, members))
        stages: list[Stage] = []
        last_store: dict[int, int] = {}
        for node in members:
            if self.in_scalars(node, nest):
                self.stage[id(node)] = max((self._section(o, index) for o in node.operands), default=-1)
                continue
            first = 0
            for operand in node.operands:
                if self.home.get(id(operand)) == index:
                    after = (
                        self.in_scalars(operand, nest)
                        or self._is_row_result(operand)
                        or isinstance(rule_of(node), Halve)
                        or isinstance(rule_of(operand), Interleave)
                    )
                    first = max(first, self.stage[id(operand)] + after)
            cols = self.cols_of(node, nest)
            if node.op.name == "store":
                value, earlier = node.operands[1], last_store.get(id(node.operands[0]), 0)
                if isinstance(rule_of(value), Interleave) and earlier <= self.stage[id(value)] == first - 1:
                    first, cols = first - 1, self.cols_of(value, nest)  # written in the pass that makes it
                first = max(first, earlier)
            chosen = next((i for i in range(first, len(stages)) if stages[i].cols == cols), len(stages))
            if chosen == len(stages):
                stages.append(Stage(cols))
            self.stage[id(node)] = chosen
            if node.op.name == "store":
                last_store[id(node.operands[0])] = chosen
        self._sink(index, nest, members, stages)
        for node in members:
            at = self.stage[id(node)]
            if not self.in_scalars(node, nest):
                stages[at].nodes.append(node)
            else:
                (stages[at].scalars if at >= 0 else nest.before).append(node)
        nest.stages = stages
        nest.block = 1 if nest.flipped else self._block(nest)
        if nest.block > 1 and self._is_cheap(nest):
            nest.skewed, nest.block = True, 1 << (APART * (len(nest.stages) - 1)).bit_length()
        elif self.tail:
            nest.block = 1

    def _block(self, nest: RowNest) -> int:
        """Rows whose row scalars are worth computing together: the largest power of two that fits."""
        reductions, scalars = self._row_work(nest)
        if len(nest.stages) == 1 and max(reductions, default=0) == 1 and sum(scalars) <= CHEAP_SCALARS:
            return 1  # rows do not wait for one another, and each is done before its scalars would be in a vector
        alone = any(isinstance(rule_of(n), (Halve, Interleave)) for n in nest.nodes)
        widest = max([stage.cols.static for stage in nest.stages], default=1)
        block = 1
        most = min(LANES, nest.rows.static, BLOCK_ELEMENTS // max(widest, 1)) if reductions or scalars else 1
        while not alone and 2 * block <= most:
            block *= 2
        return block

    def _is_cheap(self, nest: RowNest) -> bool:
        """Do rows wait for memory and for one another, rather than for arithmetic? There are several passes then, none
        of which costs much, nor do their scalars."""
        reductions, scalars = self._row_work(nest)
        return (
            2 <= len(nest.stages) <= nest.rows.static // 2
            and all(stage.cost <= CHEAP_PASS for stage in nest.stages)
            and max(reductions, default=1) == 1
            and sum(scalars) <= CHEAP_PASS
        )

    def _row_work(self, nest: RowNest) -> tuple[list[int], list[int]]:
        """Costs of the reductions in passes, and of the row scalars."""
        reductions, scalars = list[int](), list[int]()
        for node in nest.nodes:
            rule, between = rule_of(node), self.in_scalars(node, nest)
            if isinstance(rule, Reduce) and not between:
                reductions.append(reduce_cost(node))
            elif isinstance(rule, (Map, Reduce)) and between and node.op.name != "store":
                scalars.append(rule.cost)
        return reductions, scalars

    def in_scalars(self, node: Node, nest: RowNest) -> bool:
        """Is it one value per row, computed between the passes?"""
        if nest.flipped or isinstance(rule_of(node), (Reduce, Interleave)):
            return False
        inner = node.operands[0] if node.op.name == "store" else node
        return inner.tile.cols == 1

    def _is_row_result(self, node: Node) -> bool:
        """A row reduction: computed in a pass, used after it."""
        rule = rule_of(node)
        return isinstance(rule, Reduce) and rule.axis == 1

    def _section(self, operand: Node, index: int) -> int:
        """The stage after which a row scalar is available; -1: from the start of the row."""
        return self.stage[id(operand)] if self.home.get(id(operand)) == index else -1

    def cols_of(self, node: Node, nest: RowNest) -> Extent:
        """Extent of the pass that computes `node`."""
        if nest.flipped:
            return nest.rows
        rule = rule_of(node)
        inner = node.operands[0] if node.op.name == "store" or isinstance(rule, (Reduce, Interleave)) else node
        return self.extent(inner, 1)

    def _sink(self, index: int, nest: RowNest, members: list[Node], stages: list[Stage]) -> None:
        """Move values to the pass that first uses them, so that they need not be kept."""
        for node in reversed(members):
            users = self.users[id(node)]
            if (
                self.in_scalars(node, nest)
                or not isinstance(rule_of(node), (Map, Leaf))
                or node.op.name == "store"
                or not users
            ):
                continue
            if any(
                self.home.get(id(u)) != index or self.in_scalars(u, nest) or isinstance(rule_of(u), Halve)
                for u in users
            ):
                continue
            target = min(self.stage[id(u)] for u in users)
            if target > self.stage[id(node)] and stages[target].cols == self.cols_of(node, nest):
                self.stage[id(node)] = target

    # ---- memory ----------------------------------------------------------------------------------------------------

    def _demand_nest(self, index: int, nest: RowNest | WholeNest) -> None:
        if isinstance(nest, WholeNest):
            for operand in nest.node.operands:
                self._demand_memory(operand, index)
            if nest.store is None:
                self.buffers[id(nest.node)] = nest.node
            return
        for node in self.members[index]:
            rule, at = rule_of(node), self.stage[id(node)]
            if isinstance(rule, Reduce) and rule.axis == 0:
                self.buffers[id(node)] = node
            if isinstance(rule, Interleave) and not all(
                u.op.name == "store" and self.stage[id(u)] == at for u in self.users[id(node)]
            ):
                self.row_buffers[id(node)] = node
            operands = node.operands[1:] if node.op.name == "store" else node.operands
            for operand in operands:
                if isinstance(rule, Halve):
                    self._demand_row(operand, index, at)
                else:
                    self._demand(operand, index, -1 if self.in_scalars(node, nest) else at, CHEAP_DEPTH)

    def _demand(self, value: Node, index: int, at: int, depth: int) -> None:
        """`value` is used in stage `at` of nest `index` (-1: as a row scalar)."""
        nest = self.nests[index]
        assert isinstance(nest, RowNest)
        if not value.is_tile:
            return
        if value.op.name == "load":
            self.uses.setdefault(id(value), []).append((index, at))
            if at >= 0 and self._in_lanes(value, nest) and value not in nest.stages[at].loads:
                nest.stages[at].loads.append(value)
            return
        if self.home.get(id(value)) == index and not (
            isinstance(rule_of(value), Reduce) and not self._is_row_result(value)
        ):
            rule = rule_of(value)
            if (
                self.in_scalars(value, nest)
                or self._is_row_result(value)
                or self.stage[id(value)] == at
                and not isinstance(rule, Interleave)
            ):
                return
            if isinstance(rule, Interleave):
                return
        elif id(value) not in self.home and isinstance(rule_of(value), Leaf):
            return
        if self._cheap(value, index, depth):
            for operand in value.operands:
                self._demand(operand, index, at, depth - 1)
        elif self.home.get(id(value)) == index:
            self.row_buffers[id(value)] = value
        else:
            self.buffers[id(value)] = value

    def _in_lanes(self, value: Node, nest: RowNest) -> bool:
        """Does the value vary along the lanes of the nest's passes?"""
        return (value.tile.rows if nest.flipped else value.tile.cols) > 1

    def _cheap(self, value: Node, index: int, depth: int) -> bool:
        """Is computing `value` again in nest `index` cheaper than memory?"""
        rule = rule_of(value)
        if not isinstance(rule, Map) or rule.cost > CHEAP or depth == 0 or id(value) in self.buffers:
            return False
        nest = self.nests[index]
        for operand in value.operands:
            leaf = (
                not operand.is_tile
                or operand.op.name == "load"
                or (isinstance(rule_of(operand), Leaf) and id(operand) not in self.home)
            )
            here = (
                self.home.get(id(operand)) == index
                and isinstance(nest, RowNest)
                and (self.in_scalars(operand, nest) or self._is_row_result(operand))
            )
            if operand.op.name == "load" and self.position[id(operand)] > self.home.get(id(value), 0):
                return False
            if not (leaf or here or id(operand) in self.buffers or self._cheap(operand, index, depth - 1)):
                return False
        return True

    def _demand_row(self, value: Node, index: int, at: int) -> None:
        """A Halve in stage `at` of nest `index` reads `value` from memory."""
        if value.op.name == "load":
            self.uses.setdefault(id(value), []).append((index, at))
            self.addressed.add(id(value))
        elif self.home.get(id(value)) == index:
            self.row_buffers[id(value)] = value
        else:
            self.buffers[id(value)] = value

    def _demand_memory(self, value: Node, index: int) -> None:
        """A whole-tile op, nest `index`, reads `value` from memory."""
        if value.op.name == "load":
            self.uses.setdefault(id(value), []).append((index, 0))
        elif value.op.name == "transpose" and id(value) not in self.home:
            self._demand_memory(value.operands[0], index)
        else:
            self.buffers[id(value)] = value

    # ---- hazards and scratch ---------------------------------------------------------------------------------------

    def _finish(self) -> LoopProgram:
        live: list[tuple[Buffer, int, int]] = []  # buffer, first and last nest
        counter = iter(range(1 << 30))

        def buffer(name: str, dtype: DType, rows: int, cols: int, first: int, last: int) -> int:
            live.append((Buffer(f"{name}{next(counter)}", dtype, rows, cols), first, last))
            return len(live) - 1

        buffers, rows, snapshots, staging = {}, {}, {}, {}
        last_reads = self._last_reads()
        for key, node in self.buffers.items():
            whole = any(isinstance(rule_of(u), Whole) for u in (node, *self.users[key]))  # these work on raw elements
            last = last_reads[key]
            dtype = node.tile.dtype if whole else compute_dtype(node.tile.dtype)
            buffers[key] = buffer("t", dtype, node.tile.rows, node.tile.cols, self.home[key], last)
        for key, node in self.row_buffers.items():
            if key not in buffers:
                home = self.home[key]
                nest = self.nests[home]
                cols = node.tile.rows if isinstance(nest, RowNest) and nest.flipped else node.tile.cols
                block = nest.block if isinstance(nest, RowNest) else 1
                rows[key] = buffer("r", compute_dtype(node.tile.dtype), block, cols, home, home)
        for node in self.graph.nodes:
            if node.op.name == "load" and id(node) in self.uses:
                hazards = self._find_hazards(node)
                lanes = self._wants_lanes(node)
                if hazards or lanes:
                    first, last = self.position[id(node)], max(n for n, _ in self.uses[id(node)])
                    made = buffer("copy", node.tile.dtype, node.tile.rows, node.tile.cols, first, last)
                    snapshots[id(node)] = (first, last, made, hazards, lanes)
        for store in self.graph.stores:
            dst, home = store.operands[0].tile, self.home[id(store)]
            staging[id(store)] = buffer("out", dst.dtype, dst.rows, dst.cols, home, home)
        placed, total = _place(live)
        return LoopProgram(
            self.graph,
            self.extents,
            list(self.nests),
            {k: placed[i] for k, i in buffers.items()},
            {k: placed[i] for k, i in rows.items()},
            {k: Snapshot(n, last, placed[i], h, lanes) for k, (n, last, i, h, lanes) in snapshots.items()},
            {k: placed[i] for k, i in staging.items()},
            total,
        )

    def _last_reads(self) -> dict[int, int]:
        """The last nest that reads a value, by id(value): for its users, or for theirs when they are computed again."""
        last: dict[int, int] = {}
        for node in reversed(self.graph.nodes):
            last[id(node)] = self.home.get(id(node), 0)
            for user in self.users[id(node)]:
                rule, home = rule_of(user), self.home.get(id(user), 0)
                view = user.op.name == "transpose" and id(user) not in self.home
                again = view or isinstance(rule, Map) and rule.cost <= CHEAP and user.op.name != "store"
                last[id(node)] = max(last[id(node)], last[id(user)] if again and user.is_tile else home)
        return last

    def _wants_lanes(self, load: Node) -> bool:
        """Do the lanes of some pass read it? Then its elements have to be contiguous along them."""
        for index, at in self.uses[id(load)]:
            nest = self.nests[index]
            if isinstance(nest, RowNest) and (at >= 0 and self._in_lanes(load, nest) or id(load) in self.addressed):
                return True
        return False

    def _find_hazards(self, load: Node) -> tuple[Hazard, ...]:
        first, uses = self.position[id(load)], self.uses[id(load)]
        last = max(n for n, _ in uses)
        hazards = []
        for store in self.graph.stores:
            home = self.home[id(store)]
            if first <= home <= last:
                hazard = Hazard(store, self._pointwise(load, store))
                if not (hazard.pointwise and store.operands[0] is load.operands[0]):
                    hazards.append(hazard)
        return tuple(hazards)

    def _pointwise(self, load: Node, store: Node) -> bool:
        """If both are the very same view, is each element read for the last time before it is written?"""
        home, dst, src = self.home[id(store)], store.operands[0].tile, load.tile
        nest = self.nests[home]
        if (dst.rows, dst.cols, dst.dtype.itemsize) != (src.rows, src.cols, src.dtype.itemsize):
            return False
        if any(n > home for n, _ in self.uses[id(load)]):
            return False
        if isinstance(nest, WholeNest):
            operands = nest.node.operands
            return nest.node.op.name == "matmul" and all(o is not load for o in self._roots(operands[:2]))
        if id(load) in self.addressed and src.cols == 2:
            return False  # it is read among the row scalars
        return all(at <= self.stage[id(store)] or at < 0 for n, at in self.uses[id(load)] if n == home)

    def _roots(self, operands: tuple[Node, ...]) -> list[Node]:
        return [o.operands[0] if o.op.name == "transpose" and id(o) not in self.home else o for o in operands]


def _is_column(node: Node) -> bool:
    """Can lanes run along its rows, as there is one column?"""
    known = isinstance(rule_of(node), (Map, Leaf)) or _reduces_column(node)
    return known and all(o.tile.cols == 1 for o in (node, *node.operands) if o.is_tile)


def _reduces_column(node: Node) -> bool:
    return in_lanes(node) and node.operands[0].tile.cols == 1


def _place(live: list[tuple[Buffer, int, int]]) -> tuple[list[Buffer], int]:
    """First fit: buffers that live at the same time do not overlap."""
    placed: list[tuple[int, int, int, int]] = []  # first nest, last nest, offset, end
    result = []
    total = 0
    for buffer, first, last in live:
        size = (buffer.bytes + 2 * ALIGN - 1) // ALIGN * ALIGN
        offset = 0
        for _, _, begin, end in sorted((p for p in placed if p[0] <= last and first <= p[1]), key=lambda p: p[2]):
            if offset + size <= begin:
                break
            offset = max(offset, end)
        placed.append((first, last, offset, offset + size))
        result.append(Buffer(buffer.name, buffer.dtype, buffer.rows, buffer.cols, offset))
        total = max(total, offset + size)
    return result, total
