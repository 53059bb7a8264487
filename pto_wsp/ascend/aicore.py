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

What a caller has to see to: a tile's columns lie next to each other (colStride 1) unless the tile has one row or one
column, which may have any strides; Out tiles do not overlap In tiles of the same task, except that two parameters may
be the very same region; valid extents obey trace.extents (constraints(), needed()).

Run leaves no event, flag, queue or atomic mode behind. Between two Run calls on one core: PipeBarrier<PIPE_ALL>() and a
fresh TPipe (or pipe->Reset()).
"""

from __future__ import annotations

from dataclasses import dataclass

from pto_wsp.trace.graph import KernelGraph
from pto_wsp.types import DType


@dataclass(frozen=True)
class SourceParam:
    """One parameter of an emitted kernel."""

    name: str                       # as the user wrote it
    identifier: str                 # as it is called in the source
    direction: str                  # "in", "out", "inout"
    dtype: DType
    c_type: str                     # of a scalar argument, or of a tile's elements
    rows: int | None                # static extents of a tile; None for a scalar
    cols: int | None

    @property
    def is_tile(self) -> bool:
        return self.rows is not None


@dataclass(frozen=True)
class KernelSource:
    """An emitted kernel; the module's docstring says how it is called."""

    name: str                       # C identifier, also the namespace pto_<name>
    header: str                     # Run and what it needs
    text: str                       # header and entry: a whole translation unit
    entry: str                      # name of the entry function
    params: tuple[SourceParam, ...]     # in signature order; in the source, tiles come first
    core: str                       # "AIV", "AIC" or "MIX"
    kernel_type: str                # argument of KERNEL_TASK_TYPE_DEFAULT
    workspace_bytes: int
    placement: str                  # printed buffer table


def emit_kernel(graph: KernelGraph, name: str | None = None) -> KernelSource:
    """The AscendC source of a traced kernel.

    name     identifier to use when the user's is not unique in the program
    raises   CompileError at the user's line when the hardware has no way to do an op, or its tiles do not fit
    """
    raise NotImplementedError


__all__ = ["KernelSource", "SourceParam", "emit_kernel"]
