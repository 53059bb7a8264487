"""A KernelGraph as AscendC source for one AI Core (A2/A3, __NPU_ARCH__ 2201).

Calling convention of what `emit_kernel` gives; host program, task generator and checks are written against it:

  KernelSource.header   `kernels/<name>.h`: self-contained (includes kernel_operator.h, has an include guard), defines
                            struct GmTile { GM_ADDR addr; int64_t rowStride, colStride; uint32_t rows, cols; };
                            namespace pto_<name> { __aicore__ inline void Run(AscendC::TPipe *pipe, <tiles>, <scalars>
                                                                              [, GM_ADDR workspace]); }
                        <tiles>    one `const GmTile &` per tile parameter, in signature order: address of element
                                   (0, 0), strides in elements, valid rows and columns of this task (1..the tile's)
                        <scalars>  one per scalar parameter, in signature order: `float` for f16, bf16 and f32, else
                                   int8_t .. int64_t, uint8_t .. uint64_t (KernelSource.params has the C types)
  KernelSource.text     header + the entry
                            extern "C" __global__ __aicore__ void <entry>(
                                GM_ADDR x, int64_t x_row_stride, int64_t x_col_stride, uint32_t x_rows, uint32_t x_cols,
                                ..., float eps [, GM_ADDR workspace])
                        which sets the kernel type, makes the TPipe and calls Run for one task on one block
  KernelSource.core     "AIV": Run on one vector core; "AIC": on one cube core; "MIX": on a cube core and on both of its
                        vector cores (KERNEL_TYPE_MIX_AIC_1_2), all three with the same arguments
  workspace             present when KernelSource.workspace_bytes > 0: that many bytes of GM, 512-byte aligned, not
                        shared with another task that may run at the same time, contents arbitrary

What a caller has to see to: a tile's columns lie next to each other (colStride 1), and so do the rows of a tile of one
column (rowStride 1), unless `emit_kernel` was told that a vector lies `apart`; rows of other tiles may lie at any
distance. Out tiles do not overlap In tiles of the same task, except that in an AIV kernel two parameters of one shape
may be the very same region. Valid extents are at least 1 and obey trace.extents (constraints(), needed()).

Run leaves no event, flag, queue or atomic mode behind. Between two Run calls on one core: PipeBarrier<PIPE_ALL>() and a
fresh TPipe (or pipe->Reset()).
"""

from __future__ import annotations

from collections.abc import Collection

from pto_wsp.ascend import custom, mix, tidy
from pto_wsp.ascend.mix_kernel import MixKernel
from pto_wsp.ascend.names import Names
from pto_wsp.ascend.source import KERNEL_TYPES, KernelSource, entry_of, header_of, params_of
from pto_wsp.ascend.vector_kernel import VectorKernel
from pto_wsp.trace.graph import KernelGraph, check

__all__ = ["emit_kernel"]


def emit_kernel(graph: KernelGraph, name: str | None = None, apart: Collection[str] = ()) -> KernelSource:
    """The AscendC source of a traced kernel.

    name     identifier to use when the user's is not unique in the program
    apart    names of tile parameters of one row or one column whose elements may lie at any distance in GM
    raises   CompileError at the user's line when the hardware has no way to do an op, or its tiles do not fit
    """
    check(graph)
    if graph.custom is not None:
        return custom.emit(graph, Names().new(name or graph.name), apart)
    title, graph = graph.name, tidy.tidy(graph)
    name = Names().new(name or title)
    params = params_of(graph, apart)
    if any(mix.is_cube(n) for n in graph.nodes):
        kernel: MixKernel | VectorKernel = MixKernel(mix.legal(graph), params)
    else:
        kernel = VectorKernel(graph, params)
    parts = kernel.write()
    header = header_of(name, title, graph, params, parts)
    entry = entry_of(name, params, KERNEL_TYPES[parts.core], parts.workspace_bytes > 0)
    return KernelSource(
        name,
        header,
        f"{header}\n{entry}",
        name,
        tuple(params.values()),
        parts.core,
        KERNEL_TYPES[parts.core],
        parts.workspace_bytes,
        parts.table,
        tuple(parts.rows),
    )
