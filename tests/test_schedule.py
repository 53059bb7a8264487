"""Policies: factories, validation, equality, what was given."""

import dataclasses

import numpy as np
import pytest

from pto_wsp.errors import PolicyError, ScheduleError
from pto_wsp.scalar_expr import LoopVar, axis
from pto_wsp.schedule import (
    Deps,
    DepsMode,
    DispatchPolicy,
    Pools,
    ReadyPolicy,
    Schedule,
    StartPolicy,
    TaskGraphConfig,
    TaskWindow,
    TimingPolicy,
    TracePolicy,
    WindowMode,
)


def key(t):
    return t.get("b")


def test_dispatch_factories():
    assert DispatchPolicy.round_robin(4) == DispatchPolicy("round_robin", 4)
    assert DispatchPolicy.round_robin(num_aicpus=np.int64(4)).num_aicpus == 4
    for factory in (DispatchPolicy.affinity, DispatchPolicy.hash, DispatchPolicy.dispatch_by):
        policy = factory(key)
        assert (policy.kind, policy.key_fn, policy.num_aicpus) == (factory.__name__, key, 0)
        assert factory(axis("b"), num_aicpus=3).num_aicpus == 3
        assert factory(LoopVar("b", 4), 2).key_fn.name == "b" and factory(7, 2).key_fn == 7
    assert DispatchPolicy.work_steal().kind == "work_steal"


def test_timing():
    assert TimingPolicy.immediate is TimingPolicy.immediate and TimingPolicy.immediate.kind == "immediate"
    kinds = {
        p.kind: p.amount for p in (TimingPolicy.batched(4), TimingPolicy.interleaved(2), TimingPolicy.rate_limit(2.5))
    }
    assert kinds == {"batched": 4, "interleaved": 2, "rate_limit": 2.5}


def test_enums_and_window():
    assert [(m.name, m.value) for m in WindowMode] == [
        ("STALL", "stall"),
        ("ABORT", "abort"),
        ("BENCHMARK", "benchmark"),
    ]
    assert all(m.value == m.name.lower() for m in DepsMode) and len(DepsMode) == 4
    window = TaskWindow(512)
    assert (window.size, window.unit, window.mode) == (512, "tasks", WindowMode.STALL)
    assert TaskWindow(8192, "tasks", WindowMode.STALL) == TaskWindow(8192)


def test_task_graph_defaults():
    config = TaskGraphConfig()
    assert config.deps == Deps.infer_tensor_map_exact() and config.window == TaskWindow(8192)
    assert config.pools == Pools.single() and config.ready == ReadyPolicy.fifo()
    assert config.start == StartPolicy.after_orchestration() and config.trace == TracePolicy.none()
    assert config.given == frozenset() and config == TaskGraphConfig(deps=None)
    some = TaskGraphConfig(window=TaskWindow(3), pools=Pools.by_exec_unit())
    assert some.given == {"window", "pools"} and some.window.size == 3 and some.ready == ReadyPolicy.fifo()
    assert TaskGraphConfig(window=TaskWindow(8192)) != config  # the same settings, but given


def test_other_factories():
    hybrid = Deps.hybrid()
    assert (hybrid.mode, hybrid.infer, hybrid.explicit_edges) == (
        DepsMode.HYBRID,
        DepsMode.INFER_TENSOR_MAP_EXACT,
        True,
    )
    assert Deps.hybrid(DepsMode.INFER_BYTES_OVERLAP, explicit=False).explicit_edges is False
    assert Deps.explicit().mode is DepsMode.EXPLICIT and Deps.infer_bytes_overlap().mode is DepsMode.INFER_BYTES_OVERLAP
    assert ReadyPolicy.priority(key).priority_fn is key and ReadyPolicy.work_steal().kind == "work_steal"
    assert StartPolicy.threshold(3).n == 3 and TracePolicy.cycles().cost_fn is None
    assert TracePolicy.cycles(key).cost_fn is key and Pools.custom(key).pool_fn is key


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: DispatchPolicy.round_robin(0), "0"),
        (lambda: DispatchPolicy.round_robin(-1), "-1"),
        (lambda: DispatchPolicy.round_robin(2.5), "2.5"),
        (lambda: DispatchPolicy.round_robin(True), "True"),
        (lambda: DispatchPolicy.round_robin(2**63), "less than 2^63"),
        (lambda: TaskWindow(2**200), "less than 2^63"),
        (lambda: TaskGraphConfig(gen_cycles=2**63), "less than 2^63"),
        (lambda: DispatchPolicy.affinity(key, -2), "-2"),
        (lambda: DispatchPolicy.affinity("b"), "'b'"),
        (lambda: DispatchPolicy.hash(None), "None"),
        (lambda: DispatchPolicy.dispatch_by(1.5), "1.5"),
        (lambda: DispatchPolicy("priority"), "priority"),
        (lambda: DispatchPolicy("round_robin", 4, key), "key_fn"),
        (lambda: TimingPolicy.batched(0), "0"),
        (lambda: TimingPolicy.interleaved("2"), "'2'"),
        (lambda: TimingPolicy.rate_limit(0), "0"),
        (lambda: TimingPolicy.rate_limit(float("inf")), "inf"),
        (lambda: TimingPolicy.rate_limit("fast"), "fast"),
        (lambda: TimingPolicy("immediate", 3), "3"),
        (lambda: TimingPolicy("later"), "later"),
        (lambda: TaskWindow(0), "0"),
        (lambda: TaskWindow(-8), "-8"),
        (lambda: TaskWindow(1.5), "1.5"),
        (lambda: TaskWindow(8, "rows"), "rows"),
        (lambda: TaskWindow(8, mode="stall"), "stall"),
        (lambda: Deps("explicit"), "explicit"),
        (lambda: Deps.hybrid(DepsMode.EXPLICIT), "EXPLICIT"),
        (lambda: Deps.hybrid(explicit=1), "1"),
        (lambda: Deps(DepsMode.EXPLICIT, DepsMode.INFER_BYTES_OVERLAP), "hybrid"),
        (lambda: ReadyPolicy("lifo"), "lifo"),
        (lambda: ReadyPolicy.priority("b"), "'b'"),
        (lambda: ReadyPolicy("fifo", key), "priority_fn"),
        (lambda: StartPolicy.threshold(0), "0"),
        (lambda: StartPolicy("after_orchestration", 3), "3"),
        (lambda: TracePolicy.cycles("c"), "'c'"),
        (lambda: Pools.custom("cube"), "cube"),
        (lambda: Pools("none"), "none"),
        (lambda: TaskGraphConfig(window=8192), "8192"),
        (lambda: TaskGraphConfig(ready=Pools.single()), "ReadyPolicy"),
        (lambda: Schedule(dispatch="round_robin"), "round_robin"),
        (lambda: Schedule(streams=0), "0"),
        (lambda: Schedule(stream_by="b"), "'b'"),
        (lambda: Schedule(timing=3), "3"),
        (lambda: Schedule(task_graph=TaskWindow(3)), "TaskWindow"),
    ],
)
def test_refused(make, word):
    with pytest.raises(PolicyError) as caught:
        make()
    assert word in str(caught.value)
    assert isinstance(caught.value, (ValueError, TypeError)) and isinstance(caught.value, ScheduleError)


def test_policies_are_frozen_values():
    policy = DispatchPolicy.affinity(axis("b"), 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.num_aicpus = 8
    assert policy == policy and hash(policy) == hash(policy) and policy != DispatchPolicy.affinity(axis("b"), 4)
    assert DispatchPolicy.affinity(key, 4) == DispatchPolicy.affinity(key, 4) != DispatchPolicy.hash(key, 4)
    assert policy != DispatchPolicy.affinity(3, 4) and DispatchPolicy.affinity(3, 4) != policy
    assert len({TaskWindow(3), TaskWindow(3), TaskWindow(4), TimingPolicy.batched(3)}) == 3
    assert policy != "affinity"


def test_schedule():
    assert Schedule().to_dict() == {} and Schedule() == Schedule()
    four = DispatchPolicy.round_robin(4)
    schedule = Schedule(four, streams=2, timing=TimingPolicy.immediate)
    assert schedule.to_dict() == {"dispatch": four, "streams": 2, "timing": TimingPolicy.immediate}
    other = schedule.with_(streams=1, stream_by=key)
    assert other.streams == 1 and other.stream_by is key and other.dispatch is four and schedule.streams == 2
    assert Schedule(task_graph=TaskGraphConfig()).to_dict() == {"task_graph": TaskGraphConfig()}
    with pytest.raises(TypeError):
        schedule.with_(speed=3)
