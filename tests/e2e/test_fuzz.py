"""Nonsense of every kind: it works or is refused with an error of ours; it never ends the process or shows our insides.

A crash of the interpreter would take pytest along. An AttributeError, KeyError, IndexError or AssertionError from
within the package means that some input was not foreseen, and fails the test.
"""

import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp import (
    Dense,
    DenseDyn,
    DispatchPolicy,
    DType,
    InOut,
    Out,
    P,
    PtoError,
    Scalar,
    Symbol,
    TaskWindow,
    Tensor,
    Tile,
    kernel,
    pto,
    workload,
)
from pto_wsp.trace.ops import INTERNAL, OPS

REFUSALS = (PtoError, TypeError, ValueError, OverflowError, ZeroDivisionError, MemoryError, IndexError)
DTYPES = st.sampled_from(list(DType))
numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 70),
    st.floats(),
    st.booleans(),
    st.complex_numbers(),
    st.sampled_from([np.float32(1.5), np.int64(-2), np.uint8(3), np.float16(np.nan)]),
)
others = st.sampled_from(
    [None, "x", b"", [], (2, 3), (0, 1), (2, -1), (1.5, 2), {}, DType.F16, DType.I8, object(), np.zeros((2, 3)), print]
)


@st.composite
def calls(draw):
    """An op, operands (0 to 3: a value of the kernel) and keywords: mostly as the op takes them."""
    op = OPS[draw(st.sampled_from(sorted(OPS.keys() - INTERNAL)))]
    anything = st.one_of(numbers, others)
    strange = draw(st.integers(0, 3)) == 0
    count = draw(st.integers(0, 4)) if strange else draw(st.integers(*op.arity))
    operands = draw(st.lists(st.one_of(st.integers(0, 3), st.integers(0, 3), anything), min_size=count, max_size=count))
    plausible = {
        "shape": st.tuples(st.integers(1, 9), st.integers(1, 33)),
        "dtype": DTYPES,
        "cols": st.integers(1, 40),
        "k": st.integers(1, 32),
        "value": numbers,
    }
    names = [name for name in op.attrs if name in plausible]
    keywords = {name: draw(st.one_of(plausible[name], plausible[name], anything)) for name in names}
    if strange:
        more = st.sampled_from(["acc", "offset", "mask", "at", "by", "nonsense", *plausible])
        keywords |= draw(st.dictionaries(more, anything, max_size=1))
    return op.name, operands, keywords


@given(
    call=calls(),
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 33)), min_size=3, max_size=3),
    dtypes=st.lists(DTYPES, min_size=3, max_size=3),
    alike=st.booleans(),
)
def test_ops_on_anything(call, shapes, dtypes, alike):
    name, picks, keywords = call
    ours = [(*shapes[0 if alike else n], dtypes[0 if alike else n]) for n in range(3)]

    @kernel
    def k(a: InOut[Tile[ours[0]]], b: InOut[Tile[ours[1]]], out: InOut[Tile[ours[2]]], s: Scalar[ours[0][2]] = 1):
        pool = (a, b, out, s)
        operands = [pool[p] if type(p) is int and 0 <= p < 4 else p for p in picks]
        result = getattr(pto, name)(*operands, **keywords)
        if result is not None:
            pto.store(out, result)

    arrays = [Tensor(data=None, shape=s[:2], dtype=s[2]) for s in ours]

    @workload
    def once():
        k(*arrays)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = once().compile()
            program.execute()
            program.synchronize()
        except REFUSALS as error:
            assert str(error)


indices = st.recursive(
    st.one_of(
        st.integers(-5, 9),
        st.just("i"),
        st.sampled_from([None, ..., "i", 1.5, np.int64(2), slice(None), slice(1, None, 2), slice(5, 1)]),
        st.builds(slice, st.integers(-4, 9), st.integers(-4, 12)),
        st.tuples(st.integers(-9, 9), st.integers(-3, 3), st.integers(0, 12)),  # variable times a, plus b, this wide
    ),
    lambda child: st.lists(child, max_size=4).map(tuple),
    max_leaves=4,
)


@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    dtypes=st.one_of(DTYPES.map(lambda d: (d, d)), st.tuples(DTYPES, DTYPES)),
    tile=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    index=indices,
    size=st.integers(-1, 4),
    layout=st.sampled_from(["plain", "reversed", "broadcast", "big endian", "read only", "transposed", "every second"]),
)
def test_views_of_anything(shape, dtypes, tile, index, size, layout):
    """Nothing outside the array is ever touched: a margin around it keeps its bytes."""
    whole = np.full([n + 4 for n in shape], 7, dtypes[0].numpy)
    array = whole[tuple(slice(2, 2 + n) for n in shape)]
    if layout == "reversed" and shape:
        array = array[::-1]
    elif layout == "broadcast":
        array = np.broadcast_to(array, (2, *shape))
    elif layout == "big endian" and array.dtype.kind in "fiu":
        array = array.astype(array.dtype.newbyteorder(">"))
    elif layout == "read only":
        array.flags.writeable = False
    elif layout == "transposed":
        array = array.T
    elif layout == "every second" and shape:
        array = array[..., ::2]

    @kernel
    def fill(out: Out[Tile[(*tile, dtypes[1])]]):
        pto.store(out, pto.broadcast(pto.constant(3, dtypes[1]), tile))

    def at(entry, i):
        if isinstance(entry, tuple) and len(entry) == 3 and all(type(e) is int for e in entry):
            scale, offset, width = entry
            return slice(i * scale + offset, i * scale + offset + width)
        return tuple(at(e, i) for e in entry) if isinstance(entry, tuple) else i if entry == "i" else entry

    try:
        X = Tensor(data=array, shape=array.shape, dtype=dtypes[0])

        @workload
        def loop():
            for i in P(DenseDyn(4), names=("i",)):
                fill[i](out=X[at(index, i)] if index != () else X)

        program = loop().compile()
        program.set_axis_sizes({"i": size})
        program.execute()
        program.synchronize()
    except REFUSALS as error:
        assert str(error)
    border = np.ones(whole.shape, bool)
    border[tuple(slice(2, 2 + n) for n in shape)] = False
    assert (whole[border].astype(np.float64) == 7).all()


def mostly(usual, strange):
    return st.integers(0, 7).flatmap(lambda n: usual if n else strange)


@given(
    axis=mostly(st.builds(lambda n: Dense[n](), st.integers(0, 4)), st.one_of(numbers, others)),
    arguments=mostly(st.just([]), st.lists(st.one_of(numbers, others, st.just(Symbol("s"))), min_size=1, max_size=2)),
    workers=mostly(st.integers(1, 9), st.one_of(numbers, others)),
    window=mostly(st.integers(1, 5), st.one_of(numbers, others)),
    unit=mostly(st.just("tasks"), st.sampled_from(["bytes", "entries", "", None])),
    key=st.sampled_from(
        [
            lambda t: t.get("b"),
            lambda t: t.get(3),
            lambda t: t.params[-1],
            lambda t: t.params[10**6],
            lambda t: 1 / 0,
            lambda t: t.get("b") % 0,
            lambda t: t.get("b") << 200,
            lambda t: t,
            lambda: 3,
            "b",
            2**80,
        ]
    ),
)
def test_workloads_of_anything(axis, arguments, workers, window, unit, key):
    if isinstance(axis, int) and axis > 1000:
        axis = 1000
    if isinstance(workers, int) and workers > 10_000:
        workers = 10_000

    @kernel
    def k(x: InOut[Tile[2, 3, DType.F32]], s: Scalar[DType.I32] = 0):
        pto.store(x, x + 1.0)

    X = Tensor(data=None, shape=(2, 3), dtype=DType.F32)

    @workload
    def loop():
        for b in P(axis):
            k[b](X, *arguments)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            work = loop().dispatch(DispatchPolicy.affinity(key, num_aicpus=workers))
            program = work.task_graph(window=TaskWindow(window, unit)).compile()
            program.execute()
            program.synchronize()
        except REFUSALS as error:
            assert str(error)
