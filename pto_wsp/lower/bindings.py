"""What the tasks of a workload have in common: which kernels they run, and what each kernel call binds.

Plain data, made once per kernel call of the tree; the expander, the bounds check's messages, the executor and the clock
all read it. How views become tiles is in trace/bindings.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from pto_wsp.lower.tasks import TILE_WORDS
from pto_wsp.scalar_expr import LoopVar
from pto_wsp.trace.bindings import Binding, Dim, Load, RowUse, bind, element, graph_of
from pto_wsp.trace.extents import CostTerm, Source, extents_of
from pto_wsp.trace.graph import KernelGraph
from pto_wsp.trace.tree import TaskCall

__all__ = ["Binding", "Call", "Dim", "KernelUse", "Load", "RowUse", "SlotUse", "bind", "element", "graph_of"]


@dataclass(frozen=True, eq=False)
class KernelUse:
    """A kernel as the tasks of this workload use it; `TaskTable.kernel` counts these."""

    graph: KernelGraph
    cost: tuple[CostTerm, ...]
    agreeing: tuple[tuple[Source, ...], ...]  # groups of valid extents that must be equal in every task
    needed: tuple[Source, ...]  # valid extents that must not be 0

    @staticmethod
    def of(graph: KernelGraph) -> KernelUse:
        extents = extents_of(graph)
        return KernelUse(graph, graph.cycles(), extents.constraints(), extents.needed())

    @property
    def uses_cube(self) -> bool:
        """Does some part of it run on the cube unit?"""
        if self.graph.custom is not None:
            return self.graph.custom.core != "AIV"
        return any(node.op.name == "matmul" for node in self.graph.nodes)

    @property
    def words(self) -> int:
        """Argument words of one task."""
        return TILE_WORDS * len(self.graph.tile_params) + len(self.graph.scalar_params)


@dataclass(frozen=True, eq=False)
class Call:
    """A kernel call of the tree; `TaskTable.leaf` counts these."""

    task: TaskCall
    kernel: int  # index of its KernelUse
    loops: tuple[LoopVar, ...]  # the loops around it, outermost first
    tiles: tuple[Binding, ...]  # one per tile parameter
    slots: tuple[int, ...] = ()  # those that decide whether it runs, or on what; see SlotUse

    @property
    def name(self) -> str:
        return str(self.task.kernel.name)

    def writes(self, binding: Binding) -> bool:
        """Does the kernel store to this tile?"""
        return binding.param.direction != "in"


@dataclass(frozen=True, eq=False)
class SlotUse:
    """A place of the tree where what a slot waits for changes. Edges of slots are made from these, and from Call.slots.

    slot   which one; numbers from SLOTS on are decisions: what a condition waited for when it was decided
    waits  the slots that decide whether it is reached, and on what it works
    load   the element that is loaded; None: nothing is read from memory
    """

    slot: int
    waits: tuple[int, ...]
    load: Load | None = None
