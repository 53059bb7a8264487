"""Linear layouts over F2: index maps in which every output bit is the XOR of some input bits.

A matrix is a list of row tuples of 0 and 1.  Bit 0 of an index is the first element of a vector.  Sizes are
powers of two: a dimension of 2^k elements takes k bits, and the first dimension of a packed index the
lowest ones.

    blocked(16, 4, 4)      element = thread * 4 + local: which thread of four holds which element
    strided(16, 4)         element = local * 4 + thread
    row_major((4, 8))      (dim0, dim1) -> position in memory
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pto_wsp.arguments import instance, integer, integers, is_sequence
from pto_wsp.layout import MemLayout, TensorLayout, TensorReplicate

__all__ = [
    "LinearLayout",
    "f2_dot",
    "f2_kernel",
    "f2_matmul",
    "f2_matmul_mat",
    "f2_rank",
    "f2_transpose",
    "from_tensor_layout",
    "propagate_broadcast",
    "propagate_reshape",
    "propagate_transpose",
    "to_tensor_layout",
]

Vector = Sequence[int]
Bits = tuple[int, ...]
Matrix = list[Bits]

MOST_BITS = 1024  # of a dimension: its matrix has the square of it, and no index is longer than 64 bits


# ---------------------------------------------------------------------------------------------- algebra


def f2_dot(a: Vector, b: Vector) -> int:
    """XOR of the pairwise ANDs; the longer vector is cut to the shorter one's length."""
    return _dot(_vector(a), _vector(b))


def _dot(a: Vector, b: Vector) -> int:
    return sum(x & y for x, y in zip(a, b, strict=False)) & 1


def f2_matmul(A: Sequence[Vector], v: Vector) -> Bits:
    """A v, a tuple with one entry per row of A."""
    v = _vector(v)
    return tuple(_dot(row, v) for row in _rows(A))


def f2_matmul_mat(A: Sequence[Vector], B: Sequence[Vector]) -> Matrix:
    """A B; [] when either is empty."""
    rows, columns = _rows(A), f2_transpose(B)
    return [tuple(_dot(row, column) for column in columns) for row in rows] if columns else []


def f2_transpose(A: Sequence[Vector]) -> Matrix:
    """Rows become columns; [] when empty."""
    return list(zip(*_rows(A), strict=True))


def f2_rank(A: Sequence[Vector]) -> int:
    """Number of independent rows."""
    return len(_echelon(_rows(A))[1])


def f2_kernel(A: Sequence[Vector]) -> Matrix:
    """A basis of the vectors that A maps to zero; [] when there are none, or A is empty."""
    matrix = _rows(A)
    if not matrix:
        return []
    rows, pivots = _echelon(matrix)
    width = len(matrix[0])
    return [_solution(rows, pivots, free, width) for free in range(width) if free not in pivots]


def _vector(v: Any) -> Bits:
    return integers(v, "a vector over F2", 0)


def _rows(A: Any) -> Matrix:
    """The rows of a matrix. raises TypeError for what is none, ValueError for rows of unequal lengths"""
    if not is_sequence(A):
        raise TypeError(f"a matrix over F2 is a list of rows, each a sequence of 0 and 1; got {A!r}")
    rows = [integers(row, "a row of a matrix over F2", 0) for row in A]
    if len(set(map(len, rows))) > 1:
        raise ValueError(f"rows of a matrix have one length; got {sorted(set(map(len, rows)))}")
    return rows


def _echelon(A: Sequence[Vector]) -> tuple[list[int], list[int]]:
    """Reduced rows, each as an int whose bit j is column j, and the pivot column of each."""
    rows: list[int] = []
    pivots: list[int] = []
    for entries in A:
        row = _index(entries)
        for reduced, pivot in zip(rows, pivots, strict=True):
            if row >> pivot & 1:
                row ^= reduced
        if row:
            pivot = (row & -row).bit_length() - 1
            rows = [other ^ row if other >> pivot & 1 else other for other in rows]
            rows.append(row)
            pivots.append(pivot)
    return rows, pivots


def _solution(rows: list[int], pivots: list[int], free: int, width: int) -> Bits:
    """The kernel vector with this free column set, and no other free one."""
    ones = {free} | {pivot for row, pivot in zip(rows, pivots, strict=True) if row >> free & 1}
    return tuple(int(column in ones) for column in range(width))


def _bits(index: int, count: int) -> Bits:
    return tuple(index >> k & 1 for k in range(count))


def _index(bits: Vector) -> int:
    return sum((bit & 1) << k for k, bit in enumerate(bits))


# ---------------------------------------------------------------------------------------------- layouts


@dataclass(frozen=True, repr=False)
class LinearLayout:
    """A linear map from packed input indices to packed output indices.

    matrix              one row per output bit, one column per input bit
    in_dims, out_dims   names of the dimensions
    in_bits, out_bits   bits of each; a dimension of n bits has 2^n elements

    raises  ValueError when the matrix does not have sum(out_bits) rows of sum(in_bits) columns
    """

    matrix: Matrix
    in_dims: list[str]
    out_dims: list[str]
    in_bits: list[int]
    out_bits: list[int]

    def __post_init__(self) -> None:
        for name in ("in_dims", "out_dims"):
            if not is_sequence(getattr(self, name)):
                raise TypeError(f"{name} is a list of names; got {getattr(self, name)!r}")
        for name in ("in_bits", "out_bits"):
            integers(getattr(self, name), f"{name}, the bits of each dimension,")
        if not is_sequence(self.matrix):
            raise TypeError(f"matrix is a list of rows, each a sequence of 0 and 1; got {self.matrix!r}")
        for names, bits in ((self.in_dims, self.in_bits), (self.out_dims, self.out_bits)):
            if len(names) != len(bits) or any(n < 0 for n in bits):
                raise ValueError(f"each dimension has a number of bits, 0 or more; got {names} and {bits}")
        if len(self.matrix) != self.total_out_bits:
            raise ValueError(f"matrix has {len(self.matrix)} rows; out_bits {self.out_bits} need {self.total_out_bits}")
        for row in self.matrix:
            integers(row, "a row of the matrix", 0)
            if len(row) != self.total_in_bits:
                raise ValueError(
                    f"matrix row {row} has {len(row)} columns; in_bits {self.in_bits} need {self.total_in_bits}"
                )

    @property
    def total_in_bits(self) -> int:
        """Bits of all input dimensions together: the columns of the matrix."""
        return sum(self.in_bits)

    @property
    def total_out_bits(self) -> int:
        """Bits of all output dimensions together: the rows of the matrix."""
        return sum(self.out_bits)

    # ---- use

    def apply(self, v: Vector) -> Bits:
        """Output bits of input bits."""
        v = _vector(v)
        if len(v) != self.total_in_bits:
            raise ValueError(f"{self!r} takes {self.total_in_bits} bits; got {len(v)}")
        return f2_matmul(self.matrix, v)

    def apply_index(self, i: int) -> int:
        """Output index of an input index; the first dimension has the lowest bits."""
        i = integer(i, "the index")
        if not 0 <= i < 1 << self.total_in_bits:
            raise ValueError(f"{self!r} takes indices 0 to {(1 << self.total_in_bits) - 1}; got {i}")
        return _index(self.apply(_bits(i, self.total_in_bits)))

    def compose(self, other: LinearLayout) -> LinearLayout:
        """First `other`, then this one."""
        instance(other, LinearLayout, "what a layout is composed with")
        if self.total_in_bits != other.total_out_bits:
            raise ValueError(
                f"cannot compose: {self!r} takes {self.total_in_bits} bits, {other!r} gives {other.total_out_bits}"
            )
        columns = f2_transpose(other.matrix) or [()] * other.total_in_bits
        matrix = [tuple(f2_dot(row, column) for column in columns) for row in self.matrix]
        return LinearLayout(matrix, other.in_dims, self.out_dims, other.in_bits, self.out_bits)

    def transpose_dims(self, perm: Sequence[int]) -> LinearLayout:
        """Output dimension i becomes the one that was perm[i]."""
        perm = integers(perm, "a permutation")
        if sorted(perm) != list(range(len(self.out_dims))):
            raise ValueError(
                f"{list(perm)} is no permutation of the {len(self.out_dims)} output dimensions of {self!r}"
            )
        starts = [sum(self.out_bits[:d]) for d in range(len(self.out_bits))]
        matrix = [self.matrix[starts[p] + k] for p in perm for k in range(self.out_bits[p])]
        return LinearLayout(
            matrix, self.in_dims, [self.out_dims[p] for p in perm], self.in_bits, [self.out_bits[p] for p in perm]
        )

    # ---- properties of the map

    def rank(self) -> int:
        """Rank of the matrix over F2."""
        return f2_rank(self.matrix)

    def kernel(self) -> Matrix:
        """A basis of the inputs that map to 0."""
        return f2_kernel(self.matrix or [(0,) * self.total_in_bits])

    def is_injective(self) -> bool:
        """Do different inputs have different outputs?"""
        return self.rank() == self.total_in_bits

    def is_surjective(self) -> bool:
        """Is every output reached?"""
        return self.rank() == self.total_out_bits

    # ---- layouts in use

    @staticmethod
    def identity(n_bits: int, dim_name: str = "x") -> LinearLayout:
        """One dimension, mapped to itself."""
        n_bits = integer(n_bits, "n_bits", 0, MOST_BITS)
        return _layout([1 << k for k in range(n_bits)], [dim_name], [n_bits], [dim_name], [n_bits])

    @staticmethod
    def blocked(total_elements: int, num_threads: int, block_size: int) -> LinearLayout:
        """element = thread * block_size + local. Powers of two, num_threads * block_size = total_elements."""
        threads, local = _log2(num_threads, "num_threads"), _log2(block_size, "block_size")
        if num_threads * block_size != integer(total_elements, "total_elements"):
            raise ValueError(
                f"{num_threads} threads of {block_size} elements make {num_threads * block_size}, not {total_elements}"
            )
        columns = [1 << (local + k) for k in range(threads)] + [1 << k for k in range(local)]
        return _layout(columns, ["thread", "local"], [threads, local], ["element"], [threads + local])

    @staticmethod
    def strided(total_elements: int, num_threads: int) -> LinearLayout:
        """element = local * num_threads + thread. Powers of two, num_threads <= total_elements."""
        total, threads = _log2(total_elements, "total_elements"), _log2(num_threads, "num_threads")
        if threads > total:
            raise ValueError(f"{num_threads} threads are more than {total_elements} elements")
        columns = [1 << k for k in range(total)]
        return _layout(columns, ["thread", "local"], [threads, total - threads], ["element"], [total])

    @staticmethod
    def from_strides(shape: Sequence[int], strides: Sequence[int]) -> LinearLayout:
        """Logical dimensions dim0, dim1, ... to a position in memory, the sum of index * stride.

        raises  ValueError unless sizes are powers of two and the sum never carries, so that it is an XOR
        """
        shape, strides = integers(shape, "a shape"), integers(strides, "strides")
        if len(shape) != len(strides):
            raise ValueError(f"shape {tuple(shape)} and strides {tuple(strides)} have different ranks")
        in_bits = [_log2(size, "each dimension of the shape") for size in shape]
        columns = [stride << k for stride, count in zip(strides, in_bits, strict=True) for k in range(count)]
        used = 0
        for column in columns:
            if column < 0 or column & (column - 1) or column & used:
                raise ValueError(
                    f"strides {tuple(strides)} of shape {tuple(shape)} are not linear over F2: powers of two are, "
                    "when no two dimensions share a bit of the address"
                )
            used |= column
        return _layout(columns, [f"dim{d}" for d in range(len(in_bits))], in_bits, ["linear"], [used.bit_length()])

    @staticmethod
    def row_major(shape: Sequence[int]) -> LinearLayout:
        """The last dimension is contiguous. Sizes are powers of two."""
        return LinearLayout.from_strides(shape, MemLayout.row_major(shape).strides or ())

    @staticmethod
    def col_major(shape: Sequence[int]) -> LinearLayout:
        """The first dimension is contiguous. Sizes are powers of two."""
        return LinearLayout.from_strides(shape, MemLayout.col_major(shape).strides or ())

    @staticmethod
    def compute_swizzle(layout: LinearLayout, bank_bits: int, vector_bits: int) -> LinearLayout:
        """The same dimensions, with the lowest output bits (the banks) XORed with thread bits.

        Output bit b, for b below bank_bits and the number of thread bits, takes in thread bit (b + 2) mod
        thread bits. Where that would lower the rank the bit stays as it is, so an invertible layout stays
        invertible. The threads are the first input dimension. vector_bits names the width of an access; the
        result does not depend on it.
        """
        instance(layout, LinearLayout, "what is swizzled")
        bank_bits = integer(bank_bits, "bank_bits", 0)
        integer(vector_bits, "vector_bits", 0)
        threads = layout.in_bits[0] if layout.in_bits else 0
        matrix, rank = list(layout.matrix), layout.rank()
        for b in range(min(bank_bits, len(matrix), threads)):
            flipped = (b + 2) % threads
            row = tuple(bit ^ int(k == flipped) for k, bit in enumerate(matrix[b]))
            changed = [*matrix[:b], row, *matrix[b + 1 :]]
            matrix = changed if f2_rank(changed) >= rank else matrix
        return LinearLayout(matrix, layout.in_dims, layout.out_dims, layout.in_bits, layout.out_bits)

    # ---- text

    def to_dense_string(self) -> str:
        """The layout, and one row of the matrix per line."""
        return "\n".join([repr(self), *(f"  {row}" for row in self.matrix)])

    def __repr__(self) -> str:
        ins, outs = _dims(self.in_dims, self.in_bits), _dims(self.out_dims, self.out_bits)
        return f"LinearLayout([{ins}] -> [{outs}], rank={self.rank()})"


def _layout(
    columns: list[int], in_dims: list[str], in_bits: list[int], out_dims: list[str], out_bits: list[int]
) -> LinearLayout:
    """The layout whose input bit k alone gives output index columns[k]."""
    matrix = [tuple(column >> row & 1 for column in columns) for row in range(sum(out_bits))]
    return LinearLayout(matrix, in_dims, out_dims, in_bits, out_bits)


def _log2(size: int, what: str) -> int:
    size = integer(size, what)
    if size < 1 or size & (size - 1):
        raise ValueError(f"{what} is a power of two; got {size}")
    return size.bit_length() - 1


def _dims(names: Sequence[str], bits: Sequence[int]) -> str:
    return ", ".join(f"{name}:{count}" for name, count in zip(names, bits, strict=True))


# ---------------------------------------------------------------------------------------------- through operations


def _checked(layout: Any) -> LinearLayout:
    return instance(layout, LinearLayout, "the layout")


def propagate_transpose(layout: LinearLayout, perm: Sequence[int]) -> LinearLayout:
    """The layout after a transposition of the output dimensions."""
    return _checked(layout).transpose_dims(perm)


def propagate_reshape(layout: LinearLayout, old_shape: Sequence[int], new_shape: Sequence[int]) -> LinearLayout:
    """The same matrix with output dimensions dim0, dim1, ... of the new shape. ValueError when sizes differ."""
    _checked(layout)
    old_shape, new_shape = integers(old_shape, "the old shape"), integers(new_shape, "the new shape")
    old_bits = sum(_log2(size, "each dimension of the old shape") for size in old_shape)
    new_bits = [_log2(size, "each dimension of the new shape") for size in new_shape]
    if old_bits != sum(new_bits):
        raise ValueError(f"Cannot reshape {old_shape} to {new_shape}: the numbers of elements differ")
    if old_bits != layout.total_out_bits:
        raise ValueError(f"Cannot reshape {old_shape}: {layout!r} has {1 << layout.total_out_bits} elements")
    names = [f"dim{d}" for d in range(len(new_bits))]
    return LinearLayout(layout.matrix, layout.in_dims, names, layout.in_bits, new_bits)


def propagate_broadcast(layout: LinearLayout, broadcast_dims: Sequence[int]) -> LinearLayout:
    """Output dimensions of one element, named broadcast<i>, inserted so that they stand at these positions."""
    names, bits = list(_checked(layout).out_dims), list(layout.out_bits)
    for position in sorted(integers(broadcast_dims, "broadcast_dims")):
        if not 0 <= position <= len(names):
            raise ValueError(f"no dimension can be inserted at {position} among {len(names)}")
        names.insert(position, f"broadcast{position}")
        bits.insert(position, 0)
    return LinearLayout(layout.matrix, layout.in_dims, names, layout.in_bits, bits)


def to_tensor_layout(linear: LinearLayout) -> TensorLayout:
    """A replicated layout of the output dimensions, row-major strides. The mapping itself is not in it."""
    shape = [1 << bits for bits in _checked(linear).out_bits]
    return TensorLayout((TensorReplicate(),) * len(shape), MemLayout(MemLayout.row_major(shape).strides))


def from_tensor_layout(tensor_layout: TensorLayout, shape: Sequence[int]) -> LinearLayout:
    """Logical indices to memory positions: by the layout's strides if it has them, else row-major."""
    mem = instance(tensor_layout, TensorLayout, "tensor_layout").mem
    if mem is None or mem.strides is None:
        return LinearLayout.row_major(shape)
    return LinearLayout.from_strides(shape, mem.strides)
