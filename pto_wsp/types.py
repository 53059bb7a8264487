"""The words of a program's data, in one place: what dtypes.py, axes.py, tensor.py and layout.py define."""

from pto_wsp.axes import Axis, Dense, DenseDyn, Ragged, RaggedRow, Sparse, SparseRow, loop_axis
from pto_wsp.dtypes import DType, Location, ScalarType, Symbol, TileType
from pto_wsp.layout import (
    DistElem,
    LayoutIncompatibleError,
    MemLayout,
    Replicate,
    Shard,
    TensorLayout,
    TensorReplicate,
    TensorShard,
    allgather,
    allreduce,
    reduce_scatter,
    relayout,
    tensor_layout_join,
)
from pto_wsp.tensor import Index, Range, Tensor

__all__ = [
    "Axis",
    "DType",
    "Dense",
    "DenseDyn",
    "DistElem",
    "Index",
    "LayoutIncompatibleError",
    "Location",
    "MemLayout",
    "Ragged",
    "RaggedRow",
    "Range",
    "Replicate",
    "ScalarType",
    "Shard",
    "Sparse",
    "SparseRow",
    "Symbol",
    "Tensor",
    "TensorLayout",
    "TensorReplicate",
    "TensorShard",
    "TileType",
    "allgather",
    "allreduce",
    "loop_axis",
    "reduce_scatter",
    "relayout",
    "tensor_layout_join",
]
