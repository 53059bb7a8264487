"""The log of what a run has read of its own results."""

import numpy as np
import pytest

from pto_wsp.errors import ExecutionError
from pto_wsp.lower import control
from pto_wsp.lower.tasks import TaskTable
from pto_wsp.sim.decisions import Log, Recording, Replaying


def words_():
    return np.zeros(control.WRITTEN, np.int64)


def recorded(values, page=None):
    """A recording that was given these values."""
    recording, words = Recording(lambda table: None, lambda: (0, 0, 0, 0)), words_()
    recording.begin(words)
    for value in values:
        if words[control.CURSOR] == (page or words[control.ROOM]):
            recording.turn(words)
        recording._page[words[control.CURSOR]] = value
        words[control.CURSOR] += 1
    recording.end(words)
    return recording.log


def replayed(log):
    replaying, words, values = Replaying(log), words_(), []
    replaying.begin(words)
    assert words[control.MODE] == control.REPLAY
    while True:
        if words[control.CURSOR] == words[control.ROOM]:
            try:
                replaying.turn(words)
            except ExecutionError:
                return values
        values.append(int(replaying._page[words[control.CURSOR]]))
        words[control.CURSOR] += 1


@pytest.mark.parametrize("values", [[], [0], [1, 2**64 - 1, 5], list(range(1000)), [0, 1] * 200_000])
def test_what_was_recorded_is_replayed(values):
    assert replayed(recorded(values)) == values
    if len(values) <= 1000:
        assert replayed(recorded(values, page=3)) == values


def test_small_values_are_kept_small():
    assert sum(page.nbytes for page in recorded([0, 1] * 200_000).pages) == 400_000


def test_nothing_is_run_twice():
    ran = []
    recording = Recording(lambda table: ran.append((table.count, table.first_task)), lambda: (1, 2, 3, 4))
    table, words = TaskTable.empty(8, 5, 1), words_()
    table.kernel[:] = [0, -1, 0, 0, -3, 0, 0, 0]
    table.first_task = 10
    recording.begin(words)
    recording.run(table, 0, 3, words)
    recording.run(table, 3, 3, words)
    recording.run(table, 3, 8, words)
    assert ran == [(3, 10), (5, 12)]
    assert words[control.RUN : control.PROGRESS + 1].tolist() == [1, 2, 3, 4]


def test_axes_are_kept_too():
    recording, data = Recording(lambda table: None, lambda: (0, 0, 0, 0)), (np.array([1, 2]),)
    assert recording.axis(0, lambda: data) is data
    assert recording.axis(1, lambda: (np.array([1, 2]),)) is not data
    assert recording.axis(0, lambda: (np.array([1, 2]),)) is data  # it has not changed
    replaying = Replaying(recording.log)
    assert [replaying.axis(k, tuple) is data for k in (0, 1, 0)] == [True, False, True]
    with pytest.raises(ExecutionError, match="inputs have changed"):
        replaying.axis(0, tuple)


def test_an_empty_log():
    replaying, words = Replaying(Log()), words_()
    with pytest.raises(ExecutionError, match="reads more than the recorded one did"):
        replaying.turn(words)
