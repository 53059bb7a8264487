"""The quick start, word for word: in a script, in a fresh process, twice in one process, and its times."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICKSTART = EXAMPLES / "quickstart.py"

# Two tiles of 16 x 128: load, square, row mean (2 cycles a row), rsqrt, product, store.
TILE_CYCLES = 2048 + 2048 + 2 * 16 + 16 + 2048 + 2048


def check(scope):
    x = scope["X_np"]
    expected = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True))
    np.testing.assert_allclose(scope["Y_np"], expected, rtol=1e-5, atol=1e-6)
    assert scope["stats"].total_cycles == TILE_CYCLES  # two tasks on four workers


def test_word_for_word(capsys):
    scope = {"__name__": "__main__"}
    exec(compile(QUICKSTART.read_text(), str(QUICKSTART), "exec"), scope)
    check(scope)
    assert capsys.readouterr().out == f"total_cycles = {TILE_CYCLES}\n"


def test_pasted_into_a_cell_without_a_source_file():
    scope = {}
    exec(QUICKSTART.read_text(), scope)
    check(scope)
    exec(QUICKSTART.read_text(), scope)
    check(scope)


def test_larger_shapes():
    text = QUICKSTART.read_text().replace("batch_size = 1", "batch_size = 3").replace("num_tiles = 2", "num_tiles = 5")
    scope = {}
    exec(text, scope)
    x = scope["X_np"]
    np.testing.assert_allclose(scope["Y_np"], x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True)), rtol=1e-5, atol=1e-6)
    assert scope["stats"].total_cycles == 4 * TILE_CYCLES  # fifteen tasks on four workers


def test_in_a_fresh_process(empty_cache):
    for _ in range(2):
        done = subprocess.run([sys.executable, str(QUICKSTART)], capture_output=True, text=True, check=True)
        assert done.stdout == f"total_cycles = {TILE_CYCLES}\n"
        assert done.stderr == ""


@pytest.mark.parametrize("cache,limit_ms", [("cold", 300), ("warm", 30)])
def test_compile_time(empty_cache, tmp_path, cache, limit_ms):
    """The best of up to 25 processes, as other tests share the machine's cores; bytecode is cached, as by default."""
    probe = QUICKSTART.read_text() + "\nprint('compile', program.stats.compile_time_ms)\n"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path / "bytecode")
    times = []
    while len(times) < 25 and not min(times[1:], default=limit_ms) < limit_ms:
        if cache == "cold":
            shutil.rmtree(empty_cache, ignore_errors=True)
        out = subprocess.check_output([sys.executable, "-c", probe], text=True, env=env)
        times.append(float(re.search(r"compile ([\d.]+)", out)[1]))
    assert min(times[1:]) < limit_ms, times


def test_readme_shows_it_word_for_word():
    readme = (EXAMPLES.parent / "README.md").read_text()
    assert QUICKSTART.read_text().strip() in readme


def test_second_execution_needs_no_compiler():
    scope = {}
    exec(QUICKSTART.read_text(), scope)
    program = scope["program"]
    start = time.perf_counter()
    for _ in range(20):
        scope["Y_np"][:] = 0
        program.execute()
        program.synchronize()
        check(scope | {"stats": program.stats})
    assert time.perf_counter() - start < 5
