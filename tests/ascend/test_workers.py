"""Task generator, workers and host program together on the shim: what random workloads leave in their arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pto_wsp import DispatchPolicy, TaskWindow, sequential
from tests.ascend.test_expander import SYMBOLS, Tensors, built, programs, scheduled

LOADED = ("X", "Y")


def both(make, **options):
    """The arrays that a workload leaves on the CPU, and on the shim."""
    arrays = []
    for target in ("cpu_sim", "ascend_npu"):
        t = Tensors(3)
        program = make(t).compile(target=target, **(options if target == "ascend_npu" else {}))
        for name, value in SYMBOLS.items():
            program.set_symbol_u64(name, value)
        if target == "cpu_sim":
            program.execute()
            program.synchronize()
        else:
            run = program.run_on_host()
        arrays.append(t.arrays)
    return *arrays, run


def with_results(tree, k=0):
    """The same tree; slots are loaded from arrays that tasks write, too."""
    if tree[0] == "load":
        return ("load from", LOADED[k % 2], *tree[1:])
    return tuple(with_results(x, k + n) if isinstance(x, tuple) and x and isinstance(x[0], str) else
                 [with_results(y, k + n + m) for m, y in enumerate(x)] if isinstance(x, list) and tree[0] in
                 ("combine", "sequential") else x for n, x in enumerate(tree))  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*reads no symbol")
@pytest.mark.parametrize("mailboxes", [False, True])
@given(trees=st.lists(programs, min_size=5, max_size=5), policy=st.integers(0, 3), window=st.sampled_from([None, 2, 7]))
@settings(max_examples=2, phases=(Phase.generate,), deadline=None)
def test_random_workloads_leave_the_same_arrays(mailboxes, trees, policy, window):
    def make(t):
        deciding = [with_results(tree) for tree in trees[3:]]
        work = sequential(*(built(tree, t) for tree in [*trees[:3], *deciding]))
        policies = [
            DispatchPolicy.round_robin(3),
            DispatchPolicy.affinity(lambda task: task.params[0], 4),
            DispatchPolicy.work_steal(3) if mailboxes else DispatchPolicy.hash(lambda task: task.params[1], 5),
        ]
        work = scheduled(work, ("stream_by", 3, 0, None)) if policy == 3 else work.dispatch(policies[policy])
        return work if window is None else work.task_graph(window=TaskWindow(window))

    cpu, npu, run = both(make, mailboxes=mailboxes)
    for name in cpu:
        np.testing.assert_array_equal(npu[name], cpu[name], name)
