"""Automatic schedules: the fewest simulated cycles win, and nobody's arrays change."""

from __future__ import annotations

import math

import numpy as np
import pytest

import pto_wsp
from pto_wsp import (
    AutoScheduler,
    DType,
    InOut,
    P,
    ScheduleConfig,
    SearchSpace,
    Tensor,
    Tile,
    auto_schedule,
    kernel,
    pto,
    slot_load_u64,
    workload,
)
from pto_wsp.errors import PolicyError, UsageError
from pto_wsp.scalar_expr import slot_u64


@kernel
def more(x: InOut[Tile[4, 4, DType.I64]]):
    pto.store(x, x + 1)


def chains(steered: bool = False):
    data = np.zeros((8, 4, 4), np.int64)
    x = Tensor(data, data.shape, DType.I64)

    @workload
    def work():
        for b in P(8):
            for _ in P.seq(3):
                more[b](x=x[b])
        if steered:
            slot_load_u64(0, x[0])
            with P.when(slot_u64(0) == 3):
                more[9](x=x[7])

    return work(), data


def test_the_space_is_every_combination():
    space = SearchSpace()
    assert space.size == 1 and space.enumerate_configs() == [ScheduleConfig()]
    assert space.add_streams([1, 2]).add_dispatch(["round_robin", "work_steal"], [2, 4, 8]) is space
    space.add_timing(["immediate"]).add_timing(["batched", "rate_limit"], [4])
    assert space.size == 24 == len(set(space.enumerate_configs()))
    config = space.enumerate_configs()[0]
    assert config.to_dict() == {"streams": 1, "dispatch": "round_robin", "dispatch_param": 2, "timing": "batched",
                                "timing_param": 4}  # fmt: skip
    with pytest.raises(PolicyError, match="one of round_robin"):
        ScheduleConfig(dispatch="robin")


def test_the_best_has_the_fewest_cycles(capsys):
    work, data = chains()
    space = SearchSpace().add_dispatch(["round_robin", "affinity", "work_steal"], [1, 4])
    config, summary = AutoScheduler(work).explore(space, verbose=True)
    program = work.compile()
    cycles = {c: program.simulate(c.schedule()).total_cycles for c in space.enumerate_configs()}
    assert cycles[config] == min(cycles.values())
    assert [r.total_cycles for r in summary.results] == list(cycles.values())
    assert summary.best_config == config and summary.best_time_ms == min(r.total_time_ms for r in summary.results)
    assert summary.top_configs(2)[0] == (config, summary.best_time_ms) and len(summary.top_configs(2)) == 2
    assert summary.speedup == program.simulate().total_cycles / cycles[config] > 1
    assert not data.any()
    assert "6 configurations" in capsys.readouterr().out


def test_what_fails_has_an_error():
    space = SearchSpace().add_dispatch(["round_robin"], [0, 2])
    _, summary = AutoScheduler(chains()[0]).explore(space)
    bad, good = summary.results
    assert "1 or more" in bad.error and not bad.success and bad.total_time_ms == math.inf
    assert good.success and good.task_count == 24
    with pytest.raises(UsageError, match="none of 1 configurations"):
        AutoScheduler(chains()[0]).explore(SearchSpace().add_dispatch(["round_robin"], [0]))


def test_the_workload_gets_the_best():
    work, _ = chains()
    best = auto_schedule(work)
    assert best.compile().simulate().total_cycles <= min(
        work.compile().simulate(ScheduleConfig(dispatch_param=n).schedule()).total_cycles for n in (1, 2, 4, 8, 16))
    best.compile().execute()
    assert pto_wsp.auto_schedule is auto_schedule


def test_a_workload_that_steers_itself_leaves_no_trace():
    work, data = chains(steered=True)
    _, summary = AutoScheduler(work).explore(SearchSpace())
    assert summary.results[0].task_count == 25
    assert not data.any()


def test_arguments_that_change_nothing_say_so():
    with pytest.warns(UserWarning, match="same in every trial"):
        AutoScheduler(chains()[0]).explore(SearchSpace(), trials=3)
    with pytest.raises(UsageError, match="with @kernel"):
        AutoScheduler(chains()[0]).register_kernel("k", None)
    with pytest.raises(UsageError, match="takes a workload"):
        AutoScheduler(3)
