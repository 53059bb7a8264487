"""Programs that are steered by their own results: routers, loops until something is done, lists made on the way."""

import time

import numpy as np
import pytest

from pto_wsp import (
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Ragged,
    Scalar,
    Sparse,
    Tensor,
    Tile,
    TraceLevel,
    kernel,
    pto,
    slot_load_u64,
    workload,
)
from pto_wsp.errors import ExecutionError, RegionError, UsageError
from pto_wsp.scalar_expr import slot_i64, slot_u64

F32, I32 = DType.F32, DType.I32
TARGETS = ["cpu_sim", "numpy"]


@kernel
def add_one(x: InOut[Tile[1, 1, I32]], by: Scalar[I32] = 1):
    pto.store(x, x + by)


@kernel
def copy8(x: In[Tile[1, 8, I32]], out: Out[Tile[1, 8, I32]]):
    pto.store(out, x)


@kernel
def double(x: InOut[Tile[1, 8, F32]]):
    pto.store(x, x * 2.0)


@kernel
def negate(x: InOut[Tile[1, 8, F32]]):
    pto.store(x, x * -1.0)


def tensor(array, dtype=F32):
    return Tensor(array, array.shape, dtype)


def run(program):
    program.execute()
    program.synchronize()
    return program.stats


class Routed:
    """Row r of x is doubled where flags[r] + 1 is odd, else negated; a task of the same program adds the one."""

    def __init__(self, rows, flags=None):
        self.flags = np.arange(rows, dtype=np.int32).reshape(rows, 1, 1) if flags is None else flags
        self.x = np.arange(rows * 8, dtype=np.float32).reshape(rows, 1, 8)
        flags_, x_ = self.tensors = tensor(self.flags, I32), tensor(self.x)

        @workload
        def routed():
            for r in P(rows):
                add_one[r](x=flags_[r])
                slot_load_u64(0, flags_[r])
                with P.when(slot_u64(0) & 1 == 1):
                    double[r](x=x_[r])
                with P.otherwise():
                    negate[r](x=x_[r])

        self.workload = routed()

    def expected(self):
        doubled = (self.flags + 1) & 1 == 1
        return np.where(doubled, self.x * 2, -self.x), np.count_nonzero(doubled)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 500])
def test_a_router_in_the_same_program(target, rows):
    case = Routed(rows)
    program = case.workload.dispatch(DispatchPolicy.round_robin(2)).compile(target)
    for _ in range(2):
        expected, _ = case.expected()
        stats = run(program)
        np.testing.assert_array_equal(case.x, expected)
        assert stats.task_count == 2 * rows
        assert program.simulate().total_cycles == stats.total_cycles
        assert len(program.timeline()) == 2 * rows


def test_more_tasks_than_a_table_holds_on_any_number_of_threads():
    found = []
    for threads in (1, 4):
        case = Routed(150_000)
        program = case.workload.compile(threads=threads)
        stats = run(program)
        found.append((case.x.copy(), stats.total_cycles, program.simulate(case.workload.schedule).total_cycles))
        assert program._run.done == program._run.total == 300_000
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
    assert found[0][1] == found[0][2]


@pytest.mark.parametrize("level", [TraceLevel.SUMMARY, TraceLevel.TIMING, TraceLevel.FULL])
def test_tracing_changes_nothing(level):
    case = Routed(20)
    program = case.workload.compile().enable_tracing(level)
    expected, _ = case.expected()
    run(program)
    np.testing.assert_array_equal(case.x, expected)
    assert len(program.trace.get_kernel_events()) == (40 if level >= TraceLevel.TIMING else 0)


def test_large_tasks_go_to_threads():
    """A few long tasks before a decision are not run one after the other."""
    big = np.ones((4, 512, 512), np.float32)
    flag = np.zeros((1, 1), np.int32)
    B, FLAG = tensor(big), tensor(flag, I32)

    @kernel
    def square(x: InOut[Tile[512, 512, F32]]):
        pto.store(x, pto.matmul(x, x))

    @workload
    def work():
        for r in P(4):
            square[r](x=B[r])
        add_one[0](x=FLAG)
        slot_load_u64(1, FLAG)
        with P.when(slot_u64(1) == 1):
            for r in P(4):
                square[r](x=B[r])

    assert run(work().compile(threads=2)).task_count == 9
    assert (big == 512.0 * 512 * 512).all()


# ---- the clock -----------------------------------------------------------------------------------------------------


def test_simulate_needs_a_run_with_these_inputs():
    case = Routed(8)
    program = case.workload.compile()
    with pytest.raises(UsageError, match="depend on results.*there was none.*execute"):
        program.simulate()
    cycles = run(program).total_cycles
    assert program.simulate().total_cycles == cycles
    case.tensors[1].data = np.zeros((8, 1, 8), np.float32)
    with pytest.raises(UsageError, match="arrays have changed since"):
        program.simulate()
    run(program)
    assert program.simulate().task_count == 16


def test_simulate_plays_the_last_run_whatever_the_arrays_hold_now():
    case = Routed(8)
    program = case.workload.compile()
    expected, doubled = case.expected()
    run(program)
    case.flags[:] = 0
    names = [span.kernel for span in program.timeline()]
    assert names.count("double") == doubled
    keyed = program.simulate(case.workload.dispatch(DispatchPolicy.affinity(lambda t: t.get("b"), 8)).schedule)
    assert (keyed.task_count, keyed.total_cycles) == (16, 3 + 24)


def test_decisions_on_data_that_nobody_writes_need_no_run():
    flags = np.array([[[1]], [[0]], [[1]]], np.int32)
    x = np.ones((3, 1, 8), np.float32)
    FLAGS, X = tensor(flags, I32), tensor(x)

    @workload
    def work():
        for r in P(3):
            slot_load_u64(0, FLAGS[r])
            with P.when(slot_u64(0) == 1):
                double[r](x=X[r])

    program = work().compile()
    assert program.simulate().task_count == 2
    flags[:] = 1
    assert program.simulate().task_count == 3
    assert (x == 1).all()


def test_memory_that_another_tensor_writes():
    """The flags and the counters are two tensors over one array."""
    memory = np.zeros((4, 1, 1), np.int32)
    counted, flags = tensor(memory, I32), tensor(memory[::-1], I32)
    x = np.ones((4, 1, 8), np.float32)
    X = tensor(x)

    @workload
    def work():
        for r in P(4):
            add_one[r](x=counted[r])
            slot_load_u64(0, flags[3 - r])
            with P.when(slot_u64(0) == 1):
                double[r](x=X[r])

    assert run(work().compile()).task_count == 8
    assert (x == 2).all()


# ---- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_a_result_that_points_outside_stops_the_run_there(target):
    steps = np.array([[[2]], [[5]], [[99]], [[1]]], np.int32)
    STEPS, X = tensor(steps, I32), tensor(np.ones((8, 1, 8), np.float32))

    @workload
    def work():
        for r in P(4):
            add_one[r](x=STEPS[r])
            slot_load_u64(3, STEPS[r])
            double[r](x=X[slot_i64(3)])

    program = work().compile(target)
    with pytest.raises(RegionError, match=r"task 5, double\[2\].*index 100 in dimension 0") as caught:
        run(program)
    assert caught.value.task_id == 5
    assert X.array()[:, 0, 0].tolist() == [1, 1, 1, 2, 1, 1, 2, 1]  # the tasks before it have run
    with pytest.raises(UsageError, match="there was none"):
        program.simulate()


def test_stopping_a_run_that_decides():
    case = Routed(1)
    slow = np.zeros((1, 1), np.int32)
    SLOW = tensor(slow, I32)

    @workload
    def forever():
        for r in P.seq(1 << 40):
            add_one[r](x=SLOW)
            slot_load_u64(0, SLOW)
            with P.when(slot_u64(0) == 0):
                double[r](x=case.tensors[1][0])

    program = forever().compile()
    program.execute()
    while not slow[0, 0]:
        assert not program.is_complete()
        time.sleep(0.01)
    program._run.stop()
    reached = slow[0, 0]
    time.sleep(0.05)
    assert program.is_complete()
    assert slow[0, 0] == reached


# ---- lists made on the way -----------------------------------------------------------------------------------------


def chosen_rows(target, threads=None):
    """A program whose first task writes the list of rows that the others work on."""
    wanted, indices = np.zeros((1, 8), np.int32), np.zeros(8, np.int32)
    x = np.ones((10, 1, 8), np.float32)
    WANTED, INDICES, X = tensor(wanted, I32), tensor(indices, I32), tensor(x)
    pattern = Sparse(2, [0, 0, 0], [0] * 8)

    @workload
    def work():
        copy8[0](x=WANTED, out=INDICES)
        for e in P.sel(pattern):
            double[e](x=X[e])
        for b in P(2):
            for e in P.sel(pattern[b]):
                negate[b, e](x=X[e])

    program = work().compile(target, **({"threads": threads} if threads else {}))
    return program, pattern, wanted, indices, INDICES, x


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("how", ["tensor", "array", "symbol"])
def test_a_selection_made_by_the_program(target, how):
    program, pattern, wanted, indices, INDICES, x = chosen_rows(target)
    if how == "symbol":
        program.set_symbol_ptr(f"indptr_{id(pattern)}", np.array([0, 2, 5], np.int32))
        program.set_symbol_ptr(f"indices_{id(pattern)}", indices)
    else:
        program.bind(pattern, ([0, 2, 5], INDICES if how == "tensor" else indices))
    for rows in ([0, 9, 3, 3, 4], [1, 1, 1, 1, 1]):
        x[:] = 1
        wanted[0, :5] = rows
        stats = run(program)
        expected = np.ones(10)
        for row in rows:
            expected[row] *= -2
        assert (x == expected[:, None, None]).all()
        assert stats.task_count == 11
        indices[:] = 0
        assert [s.axes for s in program.timeline()][1:6] == [(row,) for row in rows]


def test_a_selection_made_by_the_program_is_checked():
    program, pattern, wanted, indices, INDICES, x = chosen_rows("cpu_sim")
    program.bind(pattern, ([0, 2, 5], INDICES))
    wanted[0, 1] = 10
    with pytest.raises(RegionError, match=r"task 2, double\[10\]"):
        run(program)
    wanted[0, 1] = -1
    with pytest.raises(ExecutionError, match="indices of Sparse axis of loop 'e': entry 1 is -1"):
        run(program)


def test_ragged_lengths_made_by_the_program():
    wanted, lengths, x = np.zeros((1, 8), np.int32), np.zeros(8, np.int32), np.zeros((8, 1, 1), np.int32)
    WANTED, LENGTHS, X = tensor(wanted, I32), tensor(lengths, I32), tensor(x, I32)
    tokens = Ragged(8, [0] * 8)

    @workload
    def work():
        copy8[0](x=WANTED, out=LENGTHS)
        for b in P(8):
            for t in P.seq(tokens[b]):
                add_one[b, t](x=X[b])

    program = work().compile()
    program.bind(tokens, LENGTHS)
    wanted[0] = [3, 1, 4, 1, 5, 0, 2, 6]
    assert run(program).task_count == 1 + wanted.sum()
    assert x.reshape(-1).tolist() == wanted[0].tolist()
    assert program.simulate().task_count == 1 + wanted.sum()


def test_a_list_that_changes_while_a_loop_runs_over_it():
    """Each loop runs over the list as it was when the loop began."""
    indices, x = np.arange(8, dtype=np.int32), np.zeros((64, 1, 1), np.int32)
    LIST, X = tensor(indices, I32), tensor(x, I32)
    pattern = Sparse(1, [0, 0], [])

    @kernel
    def move(x: InOut[Tile[1, 8, I32]]):
        pto.store(x, x + 8)

    @workload
    def work():
        for e in P.sel(pattern):
            move[e](x=LIST)
            for f in P.sel(pattern[e * 0]):
                add_one[e, f](x=X[f % 64])

    program = work().compile()
    program.bind(pattern, ([0, 8], LIST))
    assert run(program).task_count == 8 + 64
    assert [s.axes[0] for s in program.timeline() if s.kernel == "move"] == list(range(8))
    assert x.reshape(-1).tolist() == [1] * 64


@pytest.mark.parametrize(
    "value, kind, what",
    [
        ([1, 2], TypeError, "indptr is a list of ints"),
        (7, UsageError, "indptr, indices"),
        (([0, 1, 1],), UsageError, "got 1 of them"),
        (([0, 1, 0], [1]), ValueError, "decreases from 1 to 0 at entry 2"),
        (([0, 1, 1], [1.5]), TypeError, "dtype float64"),
    ],
)
def test_bind_says_what_it_takes(value, kind, what):
    program, pattern, *_ = chosen_rows("cpu_sim")
    with pytest.raises(kind, match=what):
        program.bind(pattern, value)
    with pytest.raises(UsageError, match="no loop over"):
        program.bind(Sparse(1, [0, 0], []), ([0], []))
