"""Control that is decided at run time: ragged and sparse axes, symbols, slots, conditions, scalar expressions."""

import numpy as np
import pytest

from pto_wsp import (
    Dense,
    DenseDyn,
    DispatchPolicy,
    DType,
    InOut,
    P,
    PtoError,
    Ragged,
    Scalar,
    Sparse,
    Tile,
    combine,
    cond,
    kernel,
    parallel_for,
    pto,
    select,
    sequential,
    slot_load_u64,
    slot_set_u64,
    task,
    workload,
)
from pto_wsp.scalar_expr import as_expr, axis, slot_bool, slot_i64, slot_u64, symbol_u64
from tests.e2e.programs import run, task_of, tensor

pytestmark = pytest.mark.filterwarnings("error")
ten = task_of(10)


@kernel
def count(x: InOut[Tile[1, 1, DType.I32]], by: Scalar[DType.I32] = 1):
    pto.store(x, x + by)


def counters(n):
    array = np.zeros((n, 1, 1), np.int32)
    return array.ravel(), tensor(array)


def holds(predicate, setup=None, **symbols):
    """Does the predicate hold at run time? (Both branches are compiled.)"""
    seen, SEEN = counters(2)

    @workload
    def branch():
        if setup:
            setup()
        with P.when(predicate):
            count(SEEN[1])
        with P.otherwise():
            count(SEEN[0])

    program = branch().compile()
    for name, value in symbols.items():
        program.set_symbol_u64(name, value)
    stats = run(program)
    assert seen.sum() == 1 and stats.task_count == 1
    return bool(seen[1])


# ---- ragged and sparse axes ----------------------------------------------------------------------------------------


def test_ragged_is_one_flat_loop_over_its_own_lengths():
    seen, SEEN = counters(8)

    @workload
    def flat():
        for i in P(Ragged(3, [2, 0, 4])):
            count[i](SEEN[i])

    stats = run(flat())
    assert stats.task_count == 6 and seen.tolist() == [1] * 6 + [0] * 2


@pytest.mark.parametrize("buffer", [np.int32, np.int64, list])
def test_ragged_lengths_are_replaced_by_symbols_without_recompiling(buffer):
    seen, SEEN = counters(8)
    ax = Ragged(3, [2, 0, 4])

    @workload
    def flat():
        for i in P(ax):
            count[i](SEEN[i])

    program = flat().compile()
    run(program)
    lengths = [1, 2]
    program.set_symbol_u64(f"outer_{id(ax)}", 2)
    program.set_symbol_ptr(f"lengths_{id(ax)}", lengths if buffer is list else np.array(lengths, buffer))
    seen[:] = 0
    assert run(program).task_count == 3 and seen.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_ragged_past_the_tensor_is_refused():
    seen, SEEN = counters(5)

    @workload
    def flat():
        for i in P(Ragged(2, [3, 3])):
            count[i](SEEN[i])

    with pytest.raises(PtoError, match="5"):
        run(flat())
    assert not seen.any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ragged(2, [1, -1]),
        lambda: Ragged(3, [1, 2]),
        lambda: Sparse(2, [0, 2, 1], [0, 1]),
        lambda: Sparse(2, [0, 1, 3], [0, 1]),
    ],
)
def test_impossible_lengths_and_pointers(make):
    with pytest.raises((ValueError, PtoError)):
        make()


def test_select_visits_the_stored_columns():
    seen, SEEN = counters(6)

    @workload
    def routed():
        for e in P.sel(Sparse(3, [0, 2, 2, 4], [1, 4, 4, 5])):
            count[e](SEEN[e])

    assert run(routed()).task_count == 4
    assert seen.tolist() == [0, 1, 0, 0, 2, 1]
    seen[:] = 0
    run(select(Sparse(1, [0, 2], [3, 0]), lambda e: task(count, [e], {"x": SEEN[e]})))
    assert seen.tolist() == [1, 0, 0, 1, 0, 0]


def test_select_of_a_plain_list():
    seen, SEEN = counters(6)

    @workload
    def listed():
        for e in P.sel([5, 2]):
            count[e](SEEN[e])

    run(listed())
    assert seen.tolist() == [0, 0, 1, 0, 0, 1]


def test_select_of_a_row():
    """Routing of each token: columns of its own row only."""
    seen = np.zeros((3, 6, 1, 1), np.int32)
    SEEN, routes = tensor(seen), Sparse(3, [0, 2, 3, 5], [1, 4, 0, 5, 2])

    @workload
    def routing():
        for b in P(3):
            for e in P.sel(routes[b]):
                count[b, e](SEEN[b, e])

    assert run(routing()).task_count == 5
    assert sorted(map(tuple, np.argwhere(seen[:, :, 0, 0]).tolist())) == [(0, 1), (0, 4), (1, 0), (2, 2), (2, 5)]


def test_sparse_index_outside_the_tensor_is_refused():
    seen, SEEN = counters(4)

    @workload
    def routed():
        for e in P.sel(Sparse(1, [0, 3], [1, 9, 2])):
            count[e](SEEN[e])

    with pytest.raises(PtoError, match="9"):
        run(routed())
    assert not seen.any()


def test_a_tile_outside_names_the_entry_that_led_there():
    seen, SEEN = counters(6)
    lengths, routes = Ragged(3, [2, 1, 2]), Sparse(3, [0, 2, 3, 5], [1, 4, 0, 2, 5])

    @workload
    def by_row():
        for b in P(3):
            for t in P.seq(lengths[b], name="t"):
                count[b, t](SEEN[2 * b + t])

    @workload
    def flat():
        for t in P(lengths, names=["t"]):
            count[t](SEEN[axis("t")])

    @workload
    def routed():
        for b in P(3):
            for e in P.sel(routes[b]):
                count[b, e](SEEN[e + 0 * b])

    for work, whole, data, what in (
        (by_row, lengths, [2, 1, 3], "t = 2 lies in row 2: entry 2 of the lengths of its axis is 3"),
        (flat, lengths, [2, 1, 5], "t = 6 lies in row 2: entry 2 of the lengths of its axis is 5"),
        (routed, routes, Sparse(3, [0, 2, 3, 5], [1, 4, 0, 2, 9]), "e = 9 is entry 4 of the indices of its axis"),
    ):
        program = work().compile()
        program.bind(whole, data)
        program.execute()
        with pytest.raises(PtoError, match=what):
            program.synchronize()
    assert not seen.any()


@pytest.mark.parametrize("place", ["cond", "lambda", "select"])
def test_d1_dense_dyn_has_its_size_everywhere(place):
    seen, SEEN = counters(4)
    body = parallel_for(DenseDyn(3), lambda i: task(count, [i], {"x": SEEN[i]}))
    work = {
        "cond": lambda: cond(symbol_u64("n") == 0, body, body),
        "lambda": lambda: body,
        "select": lambda: select(Sparse(1, [0, 1], [0]), lambda _: body),
    }[place]()
    assert run(work).task_count == 3 and seen.tolist() == [1, 1, 1, 0]


# ---- conditions ----------------------------------------------------------------------------------------------------


def test_when_without_otherwise_and_on_loop_variables():
    seen, SEEN = counters(6)

    @workload
    def some():
        for b in P(6):
            with P.when(axis("b") % 2 == 1):
                count[b](SEEN[b])

    assert run(some()).task_count == 3 and seen.tolist() == [0, 1, 0, 1, 0, 1]

    @workload
    def by_variable():
        for b in P(6):
            with P.when(b < 2):
                count[b](SEEN[b])
            with P.otherwise():
                with P.when(b == 4):
                    count[b](SEEN[b], by=10)

    seen[:] = 0
    assert run(by_variable()).task_count == 3 and seen.tolist() == [1, 1, 0, 0, 10, 0]


def test_functional_cond_and_python_predicates():
    seen, SEEN = counters(2)
    yes, no = (task(count, [], {"x": SEEN[i]}) for i in (1, 0))
    run(cond(True, yes, no))
    run(cond(False, yes, no))
    run(cond(symbol_u64("unset"), yes, no))
    assert seen.tolist() == [2, 1]


def test_otherwise_must_follow_its_when():
    with pytest.raises((RuntimeError, PtoError)):

        @workload
        def apart():
            with P.when(symbol_u64("n") > 0):
                ten()
            ten()
            with P.otherwise():
                ten()

        apart()


def test_a_branch_has_the_ready_time_of_its_condition():
    @workload
    def chain():
        for b in P.seq(4):
            with P.when(axis("i") % 2 == 0):
                ten(b)
            with P.otherwise():
                task_of(6)(b)

    assert run(chain().dispatch(DispatchPolicy.round_robin(4))).total_cycles == 32


# ---- slots ---------------------------------------------------------------------------------------------------------


def test_slots_start_at_zero_in_every_run_and_steer_branches():
    flags, seen, SEEN = np.array([3, 0, -1, 9], np.int32), *counters(8)
    FLAGS = tensor(flags.reshape(4, 1, 1))

    @workload
    def pick():
        for r in P(4):
            slot_load_u64(3, FLAGS[r])
            with P.when(slot_i64(3) > 0):
                count[r](SEEN[r])
            with P.otherwise():
                count[r](SEEN[r + 4])

    assert run(pick()).task_count == 4
    assert seen.tolist() == [1, 0, 0, 1, 0, 1, 1, 0]


def test_a_load_sees_what_an_earlier_task_stored():
    seen, SEEN = counters(2)
    value, VALUE = counters(1)

    @workload
    def decided_by_a_kernel():
        count(VALUE[0], by=7)
        slot_load_u64(0, VALUE[0])
        with P.when(slot_u64(0) == 7):
            count(SEEN[1])
        with P.otherwise():
            count(SEEN[0])

    program = decided_by_a_kernel().compile()
    run(program)
    assert seen.tolist() == [0, 1] and value[0] == 7
    run(program)                            # now the value is 14
    assert seen.tolist() == [1, 1]


def test_a_slot_creates_no_time_dependence():
    """A producer of 15 cycles, a load, a branch of 15 cycles on two workers: 15, not 30."""
    x = np.zeros((1, 5), np.float32)
    X, Y = tensor(x), tensor(x.copy())

    @kernel
    def one_more(x: InOut[Tile[1, 5, DType.F32]]):
        pto.store(x, x + 1.0)

    @workload
    def branch():
        one_more(X)
        slot_load_u64(0, X)
        with P.when(slot_u64(0) == 1):
            one_more(Y)

    stats = run(branch().dispatch(DispatchPolicy.round_robin(2)))
    assert stats.total_cycles == 15 and stats.task_count == 2


@pytest.mark.parametrize("dtype,stored,loaded", [(np.int32, -1, 2**64 - 1), (np.float32, 3.9, 3), (np.uint8, 200, 200),
                                                 (np.int64, -(2**63), 2**63), (np.float16, -0.5, 0)])  # fmt: skip
def test_slot_loads_convert(dtype, stored, loaded):
    value = tensor(np.array([[0, stored]], dtype))
    want = as_expr(loaded >> 1).cast_u64() * 2 + (loaded & 1)
    assert holds(slot_u64(5) == want, lambda: slot_load_u64(5, value, 0, 1))


def test_slot_values_and_types():
    assert holds(slot_u64(0) == 0) and not holds(slot_bool(255))
    assert holds(slot_u64(7) == 9, lambda: slot_set_u64(7, 9))
    assert holds(slot_i64(7) == -1, lambda: slot_set_u64(7, 2**64 - 1))
    assert holds(slot_bool(7), lambda: slot_set_u64(7, -3))


@pytest.mark.parametrize("slot", [-1, 256, 10**12])
def test_d8_slots_out_of_range(slot):
    with pytest.raises((ValueError, PtoError), match=str(slot)):
        slot_u64(slot)
    with pytest.raises((ValueError, PtoError), match=str(slot)):
        slot_set_u64(slot, 1).compile()


# ---- scalar expressions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5, 7, 2**63, 2**64 - 1])
def test_expressions_at_run_time(n):
    s = symbol_u64("n")
    signed = n - 2**64 if n >= 2**63 else n
    i = s.cast_i64()

    def quotient(a, b):
        return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)

    checks = {
        "wrap": (s + 2 * s - 1 == as_expr((3 * n - 1) % 2**64 >> 1).cast_u64() * 2 + ((3 * n - 1) % 2), True),
        "signed compare": (i - 4 < s, signed - 4 < n if signed > -(2**63) + 4 else None),
        "truncation": (i // 2 == quotient(signed, 2), True),
        "reflected": (7 // i == quotient(7, signed), True),
        "remainder": (i % -4 == signed - quotient(signed, -4) * -4, True),
        "division by zero": (i // 0 == 0, True),
        "remainder by zero": ((i % 0 == 0), True),
        "shift modulo 64": ((s << 65) == (s << 1), True),
        "logical shift": ((s >> 1) == n >> 1, True),
        "bits": (((s & 5) | 2) ^ 1 == ((n & 5) | 2) ^ 1, True),
        "complement": (~(~s) == s, True),
        "where": ((s > 3).where(i, -i) == (signed if n > 3 else -signed), True),
        "guarded": ((s != 0) & (100 // s > 3), n != 0 and 100 // n > 3),
        "cast to bool": (s.cast_bool() == (n != 0), True),
    }
    for name, (expression, expected) in checks.items():
        if expected is not None:
            assert holds(expression, n=n) == expected, name


def test_mixed_signs_compare_mathematically():
    assert holds(as_expr(-1) < symbol_u64("n"), n=1)
    assert not holds(as_expr(-1) == symbol_u64("n"), n=2**64 - 1)


def test_expressions_as_indices_scalars_and_sizes():
    seen, SEEN = counters(12)

    @workload
    def spread():
        for i, j in P(3, 2):
            count[i, j](SEEN[i * 4 + j * 2], by=i - j + 10)

    run(spread())
    assert seen.reshape(6, 2)[:, 0].tolist() == [10, 9, 11, 10, 12, 11] and not seen.reshape(6, 2)[:, 1].any()


def test_d7_a_symbol_nobody_reads_warns():
    program = parallel_for(Dense[2](), lambda i: task(ten.kernel, [i], ten.resources)).compile()
    with pytest.warns(UserWarning, match="typo"):
        program.set_symbol_u64("typo", 3)


def test_random_nesting_of_control():
    """A tree that uses everything at once, against plain Python."""
    seen, SEEN = counters(64)
    routes = Sparse(4, [0, 2, 3, 3, 6], [1, 3, 0, 2, 2, 1])

    @workload
    def everything():
        for b in P(DenseDyn(4), names=("b",)):
            for e in P.sel(routes[b]):
                with P.when((axis("b") + e) % 2 == 0):
                    for k in P.seq(3):
                        with P.when(k >= symbol_u64("first")):
                            count[b, e](SEEN[b * 16 + e * 4 + k])
                with P.otherwise():
                    count[b, e](SEEN[b * 16 + e * 4], by=100)

    program = everything().compile()
    for first in (0, 2, 5):
        program.set_symbol_u64("first", first)
        seen[:] = 0
        run(program)
        expected = np.zeros(64, np.int32)
        for b in range(4):
            for e in [1, 3, 0, 2, 2, 1][[0, 2, 3, 3][b] : [2, 3, 3, 6][b]]:
                if (b + e) % 2 == 0:
                    for k in range(first, 3):
                        expected[b * 16 + e * 4 + k] += 1
                else:
                    expected[b * 16 + e * 4] += 100
        assert seen.tolist() == expected.tolist()


def test_structure_without_tasks_takes_no_time():
    none = combine(sequential(), parallel_for(Ragged(1, [0]), lambda i: task(ten.kernel, [i], ten.resources)))
    assert run(none).total_cycles == 0
