"""Copies between any two strides against NumPy: nothing but the region is written."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pto_wsp.lower import copies

P, W = ctypes.c_void_p, ctypes.c_int64
DTYPES = [np.int8, np.int16, np.int32, np.int64]


def copy(to, source):
    function = ctypes.CFUNCTYPE(None, P, W, W, P, W, W, W, W)(copies.address(f"pto_wsp_copy_{to.itemsize}"))
    function(to.ctypes.data, *to.strides, source.ctypes.data, *source.strides, *to.shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_copy_is_numpys(dtype, data):
    rows, cols = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 70))

    def region(fill):
        """Memory, and a view of it: transposed or not, every element or every second one, in either direction."""
        turned, step = data.draw(st.booleans()), data.draw(st.sampled_from([1, 2]))
        by_row, by_col = data.draw(st.sampled_from([1, -1])), data.draw(st.sampled_from([1, -1]))
        shape = (2 * rows + 3, 2 * cols + 3)
        memory = fill(shape[::-1] if turned else shape).astype(dtype)
        whole = memory.T if turned else memory
        view = whole[1 : 1 + step * rows : step, 1 : 1 + step * cols : step]
        return memory, view[::by_row, ::by_col]

    numbers = np.random.default_rng(0)
    _, source = region(lambda shape: numbers.integers(-100, 100, shape))
    memory, to = region(np.zeros)
    copy(to, source)
    np.testing.assert_array_equal(to, source)
    to[...] = 0
    assert not memory.any()  # nothing else was written


@pytest.mark.parametrize("gaps", [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_rows_that_touch_on_one_side_only_are_not_joined(gaps):
    source = np.arange(7 * 24, dtype=np.int32).reshape(7, 24)[:, : 24 - gaps[0]]
    memory = np.zeros((9, source.shape[1] + gaps[1]), np.int32)
    to = memory[1:8, : source.shape[1]]
    copy(to, source)
    np.testing.assert_array_equal(to, source)
    to[...] = 0
    assert not memory.any()
