"""Odd arguments: every public name either takes them or says what is wrong with them, in an error of ours."""

from __future__ import annotations

import inspect
import linecache
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pto_wsp
from pto_wsp import (
    DType,
    In,
    LinearLayout,
    MemLayout,
    Out,
    P,
    Replicate,
    Shard,
    Tensor,
    TensorLayout,
    Tile,
    arguments,
    csp,
    kernel,
    layout,
    linear_layout,
    pto,
    scalar_expr,
    schedule,
    types,
    workload,
)
from pto_wsp.errors import PtoError, UsageError

ODD = (None, -1, 0, 1, 2**70, "x", "", [], float("nan"), 1.5, (), {"a": 1}, np.zeros(3), object(), True, b"x", int,
       [None], (-1,), ("x",), lambda *a: None)
# Errors and records that only pto_wsp makes, and what takes anything.
OURS = {"RaceError", "SweepInterrupted", "KernelParam", "P", "pto", "ptoisa"}


@kernel
def double(x: In[Tile[4, 8, DType.F32]], out: Out[Tile[4, 8, DType.F32]]):
    pto.store(out, x * 2)


@workload
def one_task():
    double[0](x=Tensor(np.zeros((4, 8), np.float32), (4, 8), DType.F32),
              out=Tensor(np.zeros((4, 8), np.float32), (4, 8), DType.F32))


def is_ours(error: BaseException) -> bool:
    """Was it raised on purpose: by a raise statement of the package, by an enum, or by Python for missing arguments?"""
    text = str(error)
    if isinstance(error, PtoError) or "argument" in text and ("missing" in text or "positional" in text):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is not None
    file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
    statement = "".join(linecache.getline(file, n) for n in range(line - 3, line + 1))
    # pathlib is a module, and from Python 3.13 on a folder.
    return ("/pto_wsp/" in file and "raise " in statement) or file.endswith("/enum.py") or "/pathlib" in file


def spoilt(function: Callable[..., Any], good: tuple[Any, ...] | None = None) -> Iterator[tuple[Any, ...]]:
    """Argument lists with odd values: all of them, or one among good ones."""
    for odd in ODD:
        if good is None:
            try:
                kinds = inspect.signature(function).parameters.values()
            except (TypeError, ValueError):
                kinds = ()
            most = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in kinds)
            yield from ((odd,) * n for n in range(1, most + 1))
        else:
            yield from ((*good[:i], odd, *good[i + 1:]) for i in range(len(good)))


def check(function: Callable[..., Any], good: tuple[Any, ...] | None = None) -> None:
    for given in spoilt(function, good):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function(*given)
        except Exception as error:
            assert is_ours(error), f"{function}{given}: {type(error).__name__}: {error}"


@pytest.mark.parametrize("name", sorted(set(pto_wsp.__all__) - OURS))
def test_public_names(name: str) -> None:
    found = getattr(pto_wsp, name)
    if callable(found):
        check(found)


A = Tensor(np.zeros((4, 8), np.float32), (4, 8), DType.F32)
L, M, T = LinearLayout.identity(3), MemLayout((8, 1)), TensorLayout((Shard(0), Replicate()))
GOOD: dict[Callable[..., Any], tuple[Any, ...]] = {
    LinearLayout: ([(1,)], ["x"], ["y"], [1], [1]),
    LinearLayout.identity: (3, "x"), LinearLayout.blocked: (16, 4, 4), LinearLayout.strided: (16, 4),
    LinearLayout.from_strides: ((4, 8), (8, 1)), LinearLayout.row_major: ((4, 8),), LinearLayout.col_major: ((4, 8),),
    LinearLayout.compute_swizzle: (L, 2, 2), L.apply: ((1, 0, 1),), L.apply_index: (5,), L.compose: (L,),
    L.transpose_dims: ((0,),), linear_layout.propagate_transpose: (L, (0,)),
    linear_layout.propagate_reshape: (L, (8,), (2, 4)), linear_layout.propagate_broadcast: (L, (0,)),
    linear_layout.to_tensor_layout: (L,), linear_layout.from_tensor_layout: (T, (4, 8)),
    linear_layout.f2_dot: ((1, 0), (1, 1)), linear_layout.f2_matmul: ([(1, 0)], (1, 1)),
    linear_layout.f2_rank: ([(1, 0)],), linear_layout.f2_kernel: ([(1, 0)],), linear_layout.f2_transpose: ([(1, 0)],),
    linear_layout.f2_matmul_mat: ([(1, 0)], [(1, 0)]), MemLayout: ((8, 1), (0, 1)), MemLayout.row_major: ((4, 8),),
    MemLayout.col_major: ((4, 8),), M.compose: (M,), M.permute: ((1, 0),), M.tile: ((2, 2),), M.keep: ((0,),),
    TensorLayout.default: (2,), TensorLayout.sharded: (0, 2, 0), T.keep: ((0,),), layout.tensor_layout_join: (T, T),
    layout.relayout: (A, T), layout.allreduce: (A, 0, "sum"), layout.allgather: (A, 0, 0),
    layout.reduce_scatter: (A, 0, 0, "sum"), A.slice: (0, 2), A.with_window: ((None, None),),
    csp.connect: ([], []), csp.Channel: ("q", 4), scalar_expr.fnv1a_64: ("x",), types.Ragged: (2, [1, 2]),
    types.Sparse: (2, [0, 1, 2], [0, 1]), schedule.TaskWindow: (4, "tasks"), schedule.TimingPolicy.rate_limit: (1,),
    schedule.DispatchPolicy.round_robin: (4,), schedule.Deps.hybrid: (schedule.DepsMode.INFER_BYTES_OVERLAP,),
    lambda cols: double.trace() if cols is None else pto.iota_u32(cols): (4,),
    lambda at: kernel(cpp_body_path=at): ("x",), lambda names: pto_wsp.ptoisa_kernel(cpp_includes=names): (["a.h"],),
    lambda names: kernel(cpp_src="", cpp_includes=names): (["a.h"],),
}  # fmt: skip


@pytest.mark.parametrize("function", GOOD, ids=lambda f: f.__qualname__.replace("<lambda>", "lambda"))
def test_one_odd_argument_among_good_ones(function: Callable[..., Any]) -> None:
    check(function, GOOD[function])


def test_enumerate_and_timeline() -> None:
    made = one_task()
    for odd in ODD[1:]:
        for given in ({"slots": odd}, {"symbols": odd}, {"slots": {0: odd}}, {"symbols": {"n": odd}}):
            try:
                made.enumerate(**given)
            except UsageError as error:
                assert "test_arguments.py:" in str(error)
            else:
                assert type(odd) is int or odd == {"a": 1}
    timeline = made.compile().simulate().timeline()
    check(timeline.text, (72, 32))
    check(lambda drawn: pto_wsp.compare_timelines(drawn), ([timeline],))
    assert [len(line) for line in timeline.text(1).splitlines()[2:3]] == [13]


def test_sizes_and_symbols() -> None:
    program = one_task().compile()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it reads no symbol
        check(program.set_symbol_u64, ("n", 3))
        check(program.set_symbol_f32, ("n", 1.5))
    check(program.set_axis_sizes, ({},))
    with pytest.raises(TypeError, match="the value of symbol n is a number; got 'x'"):
        program.set_symbol_f32("n", "x")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the sizes of axes are a dict: loop name or axis -> trip count; got None"):
        program.set_axis_sizes(None)  # type: ignore[arg-type]


def test_a_choice_is_no_loop() -> None:
    @workload
    def wrong():
        for _ in P.when(True):
            pass

    with pytest.raises(UsageError, match=r"P.when is no loop; write `with P.when"):
        wrong()


def test_the_message_has_the_value_and_its_place() -> None:
    with pytest.raises(TypeError, match=r"a shape is a sequence of ints, such as \(4, 8\); got '48'"):
        MemLayout.row_major("48")
    with pytest.raises(ValueError, match="n_bits is at most 1,024; got 1,180,591"):
        LinearLayout.identity(2**70)
    with pytest.raises(TypeError, match="depth of Channel 'q' is an int; got 1.5"):
        csp.Channel("q", 1.5)
    assert arguments.integers(np.array([1, 2]), "x") == (1, 2) and arguments.integer(np.int8(3), "x") == 3
