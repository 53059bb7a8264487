"""Random workload trees under random schedules: data against a plain walk, cycles against the rules written once more.

The model below is the abstract machine of the in-order engine in its plainest form. It shares no code with the package.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp import (
    Dense,
    DenseDyn,
    DispatchPolicy,
    DType,
    InOut,
    Scalar,
    TaskWindow,
    Tensor,
    Tile,
    WindowMode,
    combine,
    for_each,
    kernel,
    parallel_for,
    pto,
    sequential,
    task,
)

STATES, MOST = 4, 4  # rows of the arrays that tasks update; iterations of a loop
WIDTHS = (1, 2, 3, 5)


def update_kernel(width):
    @kernel
    def update(x: InOut[Tile[1, width, DType.I64]], c: Scalar[DType.I64]):
        pto.store(x, x * 3 + c)

    return update


KERNELS = {width: update_kernel(width) for width in WIDTHS}
CYCLES = {width: 4 * width for width in WIDTHS}  # load, multiply, add, store

leaves = st.tuples(st.just("task"), st.sampled_from(WIDTHS), st.integers(0, STATES - 1), st.integers(-5, 5))
trees = st.recursive(
    leaves,
    lambda child: st.one_of(
        st.tuples(st.sampled_from(["parallel", "ordered"]), st.integers(0, MOST), st.booleans(), child),
        st.tuples(st.sampled_from(["combine", "sequential"]), st.lists(child, max_size=4)),
    ),
    max_leaves=8,
)
schedules = st.tuples(
    st.sampled_from(["none", "round_robin", "affinity", "hash", "dispatch_by"]),
    st.integers(1, 5),
    st.integers(0, 4),
    st.sampled_from([None, 1, 2, 3, 5, 100]),
)


# ---- the program under test ----------------------------------------------------------------------------------------


def built(tree, tensors, loops=()):
    kind = tree[0]
    if kind == "task":
        _, width, row, constant = tree
        scalar = loops[0] * 2 + constant if loops else constant
        return task(KERNELS[width], list(loops), {"x": tensors[width][loops[0] if loops else row], "c": scalar})
    if kind in ("combine", "sequential"):
        return (combine if kind == "combine" else sequential)(*(built(t, tensors, loops) for t in tree[1]))
    _, size, dynamic, body = tree
    axis = DenseDyn(size) if dynamic else Dense[size]()
    return (parallel_for if kind == "parallel" else for_each)(axis, lambda i: built(body, tensors, (i, *loops)))


def scheduled(work, schedule):
    policy, workers, word, window = schedule
    if policy == "round_robin":
        work = work.dispatch(DispatchPolicy.round_robin(workers))
    elif policy != "none":
        work = work.dispatch(getattr(DispatchPolicy, policy)(lambda t: t.params[word], num_aicpus=workers))
    if window:
        work = work.task_graph(window=TaskWindow(window, "tasks", WindowMode.STALL))
    return work


# ---- the model -----------------------------------------------------------------------------------------------------


class Machine:
    """Issue clock, workers and window, in words and lists."""

    def __init__(self, schedule):
        self.policy, workers, self.word, self.window = schedule
        self.free = [0] * (1 if self.policy == "none" else workers)
        self.clock, self.flight, self.turn = 0, [], 0
        self.arrays = {width: [[0] * width for _ in range(STATES)] for width in WIDTHS}
        self.tasks = 0

    def tick(self, time):
        self.clock = max(self.clock, time)
        self.flight = [end for end in self.flight if end > self.clock]

    def issue(self, duration, words, ready):
        if self.policy in ("none", "round_robin"):
            worker = self.turn % len(self.free)
            self.turn += 1
        else:
            worker = (words[self.word] if self.word < len(words) else 0) % len(self.free)
        self.tick(ready)
        while self.window and len(self.flight) >= self.window:
            self.tick(min(self.flight))
        end = max(self.clock, self.free[worker]) + duration
        self.free[worker] = end
        self.flight.append(end)
        self.tasks += 1
        return end

    def run(self, tree, ready=0, loops=()):
        kind = tree[0]
        if kind == "task":
            _, width, row, constant = tree
            values = self.arrays[width][loops[0] if loops else row]
            scalar = loops[0] * 2 + constant if loops else constant
            values[:] = [(v * 3 + scalar + 2**63) % 2**64 - 2**63 for v in values]
            return self.issue(CYCLES[width], [*loops, 1, width, scalar % 2**64], ready)
        if kind in ("combine", "sequential"):
            children = [(child, loops) for child in tree[1]]
        else:
            children = [(tree[3], (i, *loops)) for i in range(tree[1])]
        done = ready
        for child, inner in children:
            end = self.run(child, done if kind in ("ordered", "sequential") else ready, inner)
            done = max(done, end)
        return done


@given(tree=trees, schedule=schedules)
def test_random_tree(tree, schedule):
    machine = Machine(schedule)
    total = machine.run(tree)
    arrays = {width: np.zeros((STATES, 1, width), np.int64) for width in WIDTHS}
    tensors = {width: Tensor(data=a, shape=a.shape, dtype=DType.I64) for width, a in arrays.items()}
    program = scheduled(built(tree, tensors), schedule).compile()
    program.execute()
    program.synchronize()
    assert program.stats.total_cycles == total
    assert program.stats.task_count == machine.tasks
    for width in WIDTHS:
        assert arrays[width].reshape(STATES, width).tolist() == machine.arrays[width]


# ---- random windows of random arrays -------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    tile=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    strided=st.sampled_from(["C", "F", "reversed", "every second"]),
)
def test_tiles_cover_an_array_of_any_size_and_strides(rows, cols, tile, strided):
    """Tiles of any shape over an array of any shape: the partial ones at the ends included, nothing else touched."""
    r, c = tile

    @kernel
    def scale(x: InOut[Tile[r, c, DType.F32]]):
        pto.store(x, x * 2.0)

    whole = np.ones((2 * rows, 2 * cols), np.float32, order="F" if strided == "F" else "C")
    view = {"reversed": whole[rows - 1 :: -1, cols - 1 :: -1], "every second": whole[::2, ::2]}.get(
        strided, whole[:rows, :cols]
    )
    X = Tensor(data=view, shape=view.shape, dtype=DType.F32)
    grid = -(-rows // r), -(-cols // c)
    work = parallel_for(
        Dense[grid[0]](),
        lambda i: parallel_for(
            Dense[grid[1]](), lambda j: task(scale, [i, j], {"x": X[i * r : (i + 1) * r, j * c : (j + 1) * c]})
        ),
    )
    program = work.compile()
    program.execute()
    program.synchronize()
    assert (view == 2).all()
    assert whole.sum() == whole.size + view.size
    assert program.stats.total_cycles == 3 * rows * cols
