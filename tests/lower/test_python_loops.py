"""Python functions over arrays as machine code: same results, kept on disk, numba asked once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pto_wsp.lower import python_loops

SCALE = 3


def weighted(count: int, twice: bool, a: Any, b: Any, flags: Any, out: Any) -> int:
    """Every kind of argument, a constant, an early end."""
    total = 0
    for i in range(count):
        if flags[i] == 0:
            return i
        out[i] = a[i] * SCALE + b[i]
        if twice:
            out[i] *= 2
        total += out[i]
    return total


TYPES = ("i64", "bool", "i64[]", "i32[]", "u8[]", "i64[]")


def arguments(count: int = 5, stop: int = 99) -> list[Any]:
    flags = np.ones(count, np.uint8)
    flags[stop:] = 0
    a, b = np.arange(count, dtype=np.int64) - 2, np.arange(count, dtype=np.int32) * 7
    return [count, True, a, b, flags, np.zeros(count, np.int64)]


@pytest.fixture
def fresh(empty_cache: Path) -> Path:
    return empty_cache


@pytest.mark.parametrize("stop", [99, 3, 0])
def test_same_as_python(fresh: Path, stop: int) -> None:
    native, ours, theirs = python_loops.compiled(weighted, TYPES), arguments(stop=stop), arguments(stop=stop)
    assert native(*ours) == weighted(*theirs)
    np.testing.assert_array_equal(ours[-1], theirs[-1])


def test_from_cache_is_none_until_it_has_been_made(fresh: Path) -> None:
    assert python_loops.from_cache(weighted, TYPES) is None
    made = python_loops.compiled(weighted, TYPES)
    found = python_loops.from_cache(weighted, TYPES)
    assert found is not None
    assert found(*arguments()) == made(*arguments())


def test_wrong_arrays_are_refused(fresh: Path) -> None:
    native = python_loops.compiled(weighted, TYPES)
    for at, wrong in ((2, np.zeros(5, np.int32)), (3, np.zeros(5)), (2, np.zeros((5, 1), np.int64))):
        given = arguments()
        given[at] = wrong
        with pytest.raises(TypeError, match="machine code"):
            native(*given)
    with pytest.raises(TypeError, match="contiguous"):
        native(*[a[::2] if isinstance(a, np.ndarray) else a for a in arguments()])


def test_a_constant_is_part_of_the_identity(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python_loops.compiled(weighted, TYPES)
    monkeypatch.setitem(globals(), "SCALE", 4)
    assert python_loops.from_cache(weighted, TYPES) is None


def test_numba_can_be_switched_off(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert python_loops.compiled(weighted, TYPES) is weighted
    assert python_loops.from_cache(weighted, TYPES) is None


def test_later_processes_do_without_numba(fresh: Path) -> None:
    code = textwrap.dedent("""
        import sys
        import numpy as np
        from pto_wsp.sim import inorder

        inorder._played_plainly = inorder.WORTH_MAKING
        engine = inorder.InOrderEngine(workers=3, window=2)
        engine.play(np.zeros(600, np.int32), np.full(600, 10))
        print(engine.counters().total_cycles, "numba" in sys.modules)
    """)
    seen = [subprocess.check_output([sys.executable, "-c", code], text=True).split() for _ in range(2)]
    assert seen == [["3000", "True"], ["3000", "False"]]
