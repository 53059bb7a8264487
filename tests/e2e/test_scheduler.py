"""Simulated time of whole workloads: the tables of the in-order engine, worker choice, windows, keys."""

import numpy as np
import pytest

from pto_wsp import (
    Dense,
    DenseDyn,
    DispatchPolicy,
    DType,
    In,
    Out,
    P,
    TaskWindow,
    Tile,
    WindowMode,
    combine,
    for_each,
    kernel,
    parallel_for,
    pto,
    sequential,
    task,
    workload,
)
from tests.e2e.programs import f32, run, run_one, task_of, tensor

ten = task_of(10)


def cycles(work, policy=None, window=None, streams=None):
    if streams is not None:
        work = work.streams(streams)
    if policy is not None:
        work = work.dispatch(policy)
    if window is not None:
        work = work.task_graph(window=TaskWindow(window, "tasks", WindowMode.STALL))
    return run(work).total_cycles


@workload
def six_unequal():
    for duration in (14, 6, 8, 6, 14, 8):
        task_of(duration)()


@pytest.mark.parametrize(
    "workers,window,expected",
    [
        (1, None, 56),
        (1, 3, 56),
        (1, 2, 56),
        (1, 1, 56),
        (2, None, 36),
        (2, 3, 36),
        (2, 2, 36),
        (2, 1, 56),
        (3, None, 20),
        (3, 3, 22),
        (3, 2, 28),
        (3, 1, 56),
    ],
)
def test_six_independent_tasks(workers, window, expected):
    assert cycles(six_unequal(), DispatchPolicy.round_robin(workers), window) == expected


@workload
def rows_of_chains(rows, steps):
    for b in P(Dense[rows]()):
        for h in P.seq(Dense[steps]()):
            ten(b, h)


@pytest.mark.parametrize("policy", [DispatchPolicy.round_robin(2), DispatchPolicy.affinity(lambda t: t.get("b"), 2)])
def test_a_late_task_holds_up_those_behind_it(policy):
    assert cycles(rows_of_chains(2, 3), policy) == 50


def test_two_chains_issued_one_after_the_other_or_interleaved():
    assert cycles(rows_of_chains(2, 2), DispatchPolicy.affinity(lambda t: t.get("b"), 2)) == 30

    @workload
    def interleaved():
        for s in P.seq(Dense[2]()):
            for b in P(Dense[2]()):
                ten(b, s)

    assert cycles(interleaved(), DispatchPolicy.affinity(lambda t: t.get("b"), 2)) == 20


@workload
def independent(n):
    for i in P(Dense[n]()):
        ten(i)


@pytest.mark.parametrize("workers,expected", [(3, 20), (1000, 10), (1, 60), (4, 20), (6, 10)])
def test_six_equal_tasks(workers, expected):
    assert cycles(independent(6), DispatchPolicy.round_robin(workers)) == expected


@workload
def grid(outer, inner):
    for b, h in P(Dense[outer](), Dense[inner]()):
        ten(b, h)


def test_affinity_on_either_axis():
    assert cycles(grid(2, 3), DispatchPolicy.affinity(lambda t: t.get("b"), num_aicpus=2)) == 30
    assert cycles(grid(2, 3), DispatchPolicy.affinity(lambda t: t.get("h"), num_aicpus=3)) == 20


@pytest.mark.parametrize("factory", [DispatchPolicy.affinity, DispatchPolicy.hash, DispatchPolicy.dispatch_by])
def test_keys_are_taken_modulo_the_workers(factory):
    assert cycles(grid(4, 2), factory(lambda t: t.get("b") % 3, num_aicpus=4)) == 40
    assert cycles(grid(4, 2), factory(lambda t: t.get("b"), num_aicpus=4)) == 20
    assert cycles(grid(4, 2), factory(lambda t: 7, num_aicpus=4)) == 80
    assert cycles(grid(4, 2), factory(lambda t: t.get("b") - 3, num_aicpus=3)) == 40  # -3 is 2**64 - 3, 1 mod 3


@pytest.mark.parametrize("q,expected", [(0, 20), (1, 10), (2, 10), (3, 10), (4, 10), (5, 60)])
def test_keys_from_task_params(q, expected):
    """Arguments of a task are [i, 1, 5, 1, 5]: its axis values, then rows and cols of each tile; beyond them 0."""

    @workload
    def six():
        for i in P(Dense[6]()):
            ten(i)

    key = lambda t: t.params[q] * t.get("b")  # noqa: E731
    words = [0, 1, 5, 1, 5, 0]
    workers = [(i if q == 0 else words[q]) * i % 6 for i in range(6)]
    assert expected == 10 * max(workers.count(w) for w in set(workers))
    assert cycles(six(), DispatchPolicy.dispatch_by(key, num_aicpus=6)) == expected


def test_default_of_a_key_without_that_axis():
    @workload
    def mixed():
        for b in P(Dense[2]()):
            ten(b)
        ten()

    assert cycles(mixed(), DispatchPolicy.affinity(lambda t: t.get("b", 5), num_aicpus=8)) == 10


def test_worker_count_from_streams():
    assert cycles(independent(6), DispatchPolicy.affinity(lambda t: t.get("b")), streams=3) == 20


def test_last_dispatch_wins():
    work = independent(6).dispatch(DispatchPolicy.round_robin(2)).dispatch(DispatchPolicy.round_robin(3))
    assert run(work).total_cycles == 20


def test_without_a_schedule_there_is_one_worker():
    assert cycles(independent(6)) == 60
    assert cycles(independent(6), window=2) == 60


def test_statements_of_a_body_are_unordered_in_time():
    def producer_consumer(order):
        @workload
        def body():
            for _ in order():
                ten()
                task_of(16)()

        return body()

    assert cycles(producer_consumer(lambda: P(1)), DispatchPolicy.round_robin(2)) == 16
    assert cycles(producer_consumer(lambda: P.seq(1)), DispatchPolicy.round_robin(2)) == 26
    assert cycles(producer_consumer(lambda: P(1))) == 26


def functional(duration):
    call = task_of(duration)
    return task(call.kernel, [], call.resources)


def test_combine_and_sequential():
    policy = DispatchPolicy.round_robin(2)
    assert cycles(combine(functional(10), functional(16)), policy) == 16
    assert cycles(sequential(functional(10), functional(16)), policy) == 26
    assert cycles(sequential(combine(functional(10), functional(16)), functional(4)), policy) == 20


def test_functional_loops():
    body = lambda *axes: task(ten.kernel, list(axes), ten.resources)  # noqa: E731
    assert cycles(parallel_for(Dense[6](), body), DispatchPolicy.round_robin(3)) == 20
    assert cycles(for_each(Dense[6](), body), DispatchPolicy.round_robin(3)) == 60
    nested = parallel_for(Dense[2](), lambda i: parallel_for(Dense[3](), lambda j: body(i, j)))
    assert cycles(nested, DispatchPolicy.round_robin(6)) == 10


def test_nested_loops_keep_their_own_indices():
    """Default names repeat (`P.seq` is always "i", functional loops too); the variables are still distinct."""
    seen = np.zeros((3, 4), np.float32)
    SEEN = tensor(seen)

    @kernel
    def mark(out: Out[Tile[1, 1, DType.F32]]):
        pto.store(out, pto.broadcast(pto.constant(1.0), (1, 1)))

    @workload
    def both():
        for a in P.seq(3):
            for b in P.seq(4):
                mark[a, b](out=SEEN[a : a + 1, b : b + 1])

    run(both())
    assert (seen == 1).all()
    seen[:] = 0
    run(
        parallel_for(
            Dense[3](),
            lambda i: parallel_for(Dense[4](), lambda j: task(mark, [i, j], {"out": SEEN[i : i + 1, j : j + 1]})),
        )
    )
    assert (seen == 1).all()


@pytest.mark.parametrize("n", [0, 1, 5, 7])
def test_dense_dyn_sizes_change_between_runs(n):
    @workload
    def dynamic():
        for b in P(DenseDyn(4)):
            ten(b)

    program = dynamic().compile()
    assert run(program).total_cycles == 40
    program.set_axis_sizes({"b": n})
    stats = run(program)
    assert stats.total_cycles == 10 * n and stats.task_count == n
    assert run(dynamic(), axis_sizes={"b": 3}).task_count == 3


def test_timing_identities():
    one = run_one(ten.kernel, f32(1, 5), np.zeros((1, 5), np.float32))
    assert cycles(independent(13)) == 13 * one
    for workers in (2, 5, 13, 20):
        assert cycles(independent(13), DispatchPolicy.round_robin(workers)) == -(-13 // workers) * one
    assert cycles(independent(13), DispatchPolicy.round_robin(4), window=1) == 13 * one


def test_per_worker_statistics():
    stats = run(independent(6).dispatch(DispatchPolicy.round_robin(4)))
    assert stats.task_count == 6 and stats.total_cycles == 20
    assert list(stats.tasks_per_worker) == [2, 2, 1, 1]
    assert list(stats.busy_cycles) == [20, 20, 10, 10]


def test_results_do_not_depend_on_the_schedule():
    """Data moves in program order, whatever the simulated time does."""
    state = np.zeros((1, 4), np.float32)

    @kernel
    def grow(x: In[Tile[1, 4, DType.F32]], out: Out[Tile[1, 4, DType.F32]]):
        pto.store(out, pto.add(pto.mul(x, 2.0), 1.0))

    STATE = tensor(state)

    @workload
    def twelve():
        for i in P(12):
            grow[i](x=STATE, out=STATE)

    for policy in (None, DispatchPolicy.round_robin(7), DispatchPolicy.affinity(lambda t: t.get("b"), 3)):
        state[:] = 0
        cycles(twelve(), policy)
        assert (state == 2**12 - 1).all()
