"""The steps from a traced kernel to machine code, in order; every stage can be printed.

    KernelGraph --GRAPH_STEPS--> KernelGraph --fuse--> LoopProgram --llvm.write--> LLVM IR --jit--> machine code

Machine code obeys one convention: `void kernel(ptr args, ptr scratch)`. `args` is a row of i64 words: per tile
parameter in signature order [address, row stride in bytes, column stride in bytes, valid rows, valid columns], then one
word per scalar parameter (its bits, zero- or sign-extended). `scratch` is 64-byte aligned and belongs to the calling
thread; `<symbol>.scratch()` says how many bytes it needs. A kernel touches the regions its args name and its scratch,
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pto_wsp.lower import simplify
from pto_wsp.trace.extents import Source, extents_of
from pto_wsp.trace.graph import KernelGraph, check

Step = Callable[[KernelGraph], KernelGraph]
Observer = Callable[[str, KernelGraph], None]

GRAPH_STEPS: tuple[Step, ...] = (
    simplify.drop_reductions_of_one,
    simplify.rewrite,
    simplify.share,
    simplify.separate_indices,
    simplify.drop_overwritten_stores,
    simplify.eliminate_dead,
)


def ignore(step: str, graph: KernelGraph) -> None:
    """An observer that does not look."""


def simplified(graph: KernelGraph, observe: Observer = ignore) -> KernelGraph:
    """A checked graph after GRAPH_STEPS, held to the type rules after each."""
    for step in GRAPH_STEPS:
        before, graph = graph, step(graph)
        check(graph, before)
        observe(step.__name__, graph)
    return graph


@dataclass(frozen=True, eq=False)
class CompiledKernel:
    """A kernel on its way to machine code. `tail` kernels take valid extents from their arguments; the others assume
    full tiles. Nothing is lowered before it is asked for, so a kernel whose code is on disk costs only its key."""

    graph: KernelGraph
    tail: bool = False
    target: Any = None  # lower.jit.Target; None is the host
    around: bool = False  # results go around the cache: see around.py

    @property
    def name(self) -> str:
        """Of the kernel, as the user wrote it."""
        return self.graph.name

    @property
    def symbol(self) -> str:
        """Name of the function in the machine code."""
        return "kernel.tail" if self.tail else "kernel.around" if self.around else "kernel"

    @property
    def args_words(self) -> int:
        """Words in a row of arguments."""
        return 5 * len(self.graph.tile_params) + len(self.graph.scalar_params)

    @cached_property
    def checks(self) -> tuple[tuple[Source, ...], ...]:
        """Groups of valid extents that have to be equal in every task."""
        return extents_of(self.graph).constraints()

    @cached_property
    def key(self) -> str:
        """Text that determines the machine code, together with the target."""
        from pto_wsp.trace.text import print_graph

        return f"pto_wsp kernel {self.symbol}\n{print_graph(self.graph, comments=False)}"

    @cached_property
    def loops(self) -> Any:
        """The LoopProgram; `str(...)` prints it."""
        from pto_wsp.lower.fuse import fuse

        return fuse(simplified(self.graph), self.tail)

    @cached_property
    def ir(self) -> str:
        """The LLVM IR of a module that defines `symbol` and `symbol.scratch`."""
        from pto_wsp.lower import jit, llvm, matmul

        triple, features = jit.cpu_features(self.target or jit.HOST)
        text, scratch = llvm.write(
            self.loops,
            self.symbol,
            self.tail,
            matmul.Target.of(triple, features),
            self.around,
        )
        return f'{text}\ndefine i64 @"{self.symbol}.scratch"() {{\n  ret i64 {scratch}\n}}\n'


def compile_kernel(
    graph: KernelGraph, tail: bool = False, target: Any = None, around: bool = False
) -> CompiledKernel:
    """Check a traced kernel and prepare its machine code; see CompiledKernel.

    raises OperandError (a CompileError) when the graph breaks a rule of the op table
    """
    check(graph)
    return CompiledKernel(graph, tail, target, around)
