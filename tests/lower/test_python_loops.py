"""Python functions over arrays as machine code: same results, kept on disk."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("switch", python_loops.SWITCHES)
def test_machine_code_can_be_switched_off(switch: str, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch, "1")
    assert python_loops.compiled(weighted, TYPES) is weighted
    assert python_loops.from_cache(weighted, TYPES) is None


def test_later_processes_load_it(fresh: Path) -> None:
    code = textwrap.dedent("""
        import sys
        import numpy as np
        from pto_wsp.sim import inorder

        inorder.PLAY.making = 0
        engine = inorder.InOrderEngine(workers=3, window=2)
        engine.play(np.zeros(600, np.int32), np.full(600, 10))
        origin = inorder.PLAY.machine_code().code.origin
        print(engine.counters().total_cycles, origin, "llvmlite.binding" in sys.modules)
    """)
    seen = [subprocess.check_output([sys.executable, "-c", code], text=True).split() for _ in range(2)]
    assert seen == [["3000", "compiled", "True"], ["3000", "disk", "False"]]


def helper(a: Any, i: int, most: int) -> int:
    if i >= len(a) or not i < most:
        return -1
    return a[i]  # type: ignore[no-any-return]


def everything(n: int, a: Any, b: Any, flags: Any) -> int:
    """All that the language has."""
    x = y = 1
    for i in range(n):
        if i == 7:
            continue
        if i > 40 and (a[0] > 0 or flags[0] == 1):
            break
        x, y = y, x + (a[i % len(a)] if i & 1 else -i)
        b[i % len(b)] = x ^ (y << 3)
        x -= y // 3 + (0 - y) // 3 + y % 7 + (0 - y) % 7
        y = min(max(y >> 1, -(1 << 40)), 1 << 40) | 5
        flags[i % len(flags)] += 3
    while True:
        x += 1
        if x % SCALE == 0:
            break
    for k in range(2, n, 2):
        x += k * (n > k) * helper(a, k, n)
    return x + ~y


@given(st.integers(0, 60), st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=9))
def test_every_construct_does_what_python_does(n: int, values: list[int]) -> None:
    types = ("i64", "i64[]", "i32[]", "u8[]")
    given_ = [(n, np.array(values), np.zeros(3, np.int32), np.zeros(2, np.uint8)) for _ in range(2)]
    lists = [a.tolist() if isinstance(a, np.ndarray) else a for a in given_[0]]
    assert python_loops.compiled(everything, types)(*given_[1]) == wrapped(everything(*lists), 64)
    assert given_[1][2].tolist() == [wrapped(v, 32) for v in lists[2]]
    assert given_[1][3].tolist() == [v % 256 for v in lists[3]]


def wrapped(value: int, bits: int) -> int:
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def test_what_is_not_in_the_language_is_an_error_at_the_line(fresh: Path) -> None:
    def floats(n: int) -> int:
        return n * 1.5  # type: ignore[return-value]

    def lists(n: int) -> int:
        return sum([n])

    def over(n: int) -> int:
        for _ in "ab":
            n += 1
        return n

    for function, words in ((floats, "1.5"), (lists, "call of sum"), (over, "range")):
        line = function.__code__.co_firstlineno + 1
        with pytest.raises(SyntaxError, match=f"test_python_loops.py:{line}: .*{words}.* not in the compiled language"):
            python_loops.compiled(function, ("i64",))


def test_threads_do_not_disturb_each_other(fresh: Path) -> None:
    """The arguments of a call live until it is over, whatever other threads allocate meanwhile."""
    native = python_loops.compiled(weighted, TYPES)

    def calls(stop: int) -> list[int]:
        return [native(*arguments(9, stop)) for _ in range(3000)]

    with ThreadPoolExecutor(6) as pool:
        for stop, found in zip(range(6), pool.map(calls, range(6)), strict=True):
            assert found == [stop] * 3000


def quotient(a, b, i, numbers):
    numbers[i] = a // b
    return numbers[i] % b


@pytest.mark.parametrize("a, b, i", [(7, 2, 3), (7, 2, -1), (7, 2, 4), (7, 0, 0), (-(2**63), -1, 0), (-7, -1, 0)])
def test_checked_code_reports_what_would_go_wrong(a, b, i):
    """In a process of its own: the report must not return."""
    text = f"""
import ctypes, os
import numpy as np
from pto_wsp.lower import python_loops
from tests.lower.test_python_loops import quotient

def stop(line, a, b):
    print(line, a, b, flush=True)
    os._exit(3)

report = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(stop)
address = ctypes.cast(report, ctypes.c_void_p).value
code = python_loops.compiled(quotient, ("i64", "i64", "i64", "i64[]"), address)
print(code({a}, {b}, {i}, np.zeros(4, np.int64)))
"""
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    line = quotient.__code__.co_firstlineno + 1
    if b == 0 or (a, b) == (-(2**63), -1):
        assert ran.stdout == f"{line} {a} {b}\n", ran.stderr
    elif not 0 <= i < 4:
        assert ran.stdout == f"{line} {i} 4\n", ran.stderr
    else:
        assert ran.stdout == f"{a // b % b}\n", ran.stderr
