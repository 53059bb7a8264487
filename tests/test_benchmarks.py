"""The benchmark tool, without running benchmarks: they need a quiet machine."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COMPARE = """
from benchmarks.__main__ import regressions
def row(median, **ratios):
    return {"name": "case", "median": median, "spread": 0.02, "ratios": ratios, "at_least": False}
assert regressions({"a": [row(1.0, numpy=2.0)]}, {"a": [row(9.0, numpy=2.1)]}) == []          # the peer was slower too
assert len(regressions({"a": [row(1.0, numpy=2.0)]}, {"a": [row(1.0, numpy=3.0)]})) == 1
assert len(regressions({"a": [row(1.2)]}, {"a": [row(1.0)]})) == 1                            # no peer: the time counts
assert regressions({"a": [row(1.0)]}, {"a": [row(1.2)]}) == []
"""


def run(*arguments: str) -> str:
    """In a process of its own, since importing `benchmarks` sets up its environment."""
    return subprocess.check_output([sys.executable, *arguments], text=True, cwd=ROOT)


def test_every_claim_is_listed():
    listed = {line.split()[0] for line in run("-m", "benchmarks", "--list").splitlines()}
    assert listed == {p.stem for p in (ROOT / "benchmarks").glob("*.py") if "\ndef cases(" in p.read_text()}


def test_what_became_slower_is_found():
    run("-c", COMPARE)


def test_peers_run_without_handicaps(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    code = "import os, benchmarks; print(benchmarks.LEFT_OUT, *os.environ)"
    left_out, *kept = run("-c", code).rpartition("]")[0::2]
    assert "OPENBLAS_CORETYPE=Haswell" in left_out and "OPENBLAS_CORETYPE" not in kept[0]
    assert "OPENBLAS_NUM_THREADS" in kept[0] and "OPENBLAS_NUM_THREADS" not in left_out


def test_peers_are_held_to_the_same_cpu(monkeypatch):
    """Also in the processes that `python -m benchmarks --cpu` starts, which inherit its settings."""
    code = "import os, benchmarks as b; print(b.CONDITIONS, *map(os.environ.get, sorted(b._wanted)))"
    monkeypatch.setenv("PTO_WSP_CPU", "x86-64-v3")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    again = f"import subprocess, sys, benchmarks; subprocess.run([sys.executable, '-c', {code!r}])"
    for started in (code, again):
        found = run("-c", started)
        assert "made for x86-64-v3" in found and "OPENBLAS_CORETYPE=" not in found
        assert "X86_V4" in found and "Haswell" in found


@pytest.mark.parametrize("arguments, words", [
    (["nothing"], "no benchmark 'nothing'; there are: against_numpy, "),
    (["launch", "--compare", "missing.json"], "missing.json is not a file that --json wrote: FileNotFoundError"),
    (["launch", "--compare", "README.md"], "README.md is not a file that --json wrote: JSONDecodeError"),
    (["launch", "--json", "no_such_folder/new.json"], "no folder "),
    (["launch", "--roofline", "picture.png"], "draws what vector, matmul, attention find"),
    (["--cpu", "z80"], "invalid choice"),
])
def test_mistakes_are_told_before_anything_is_measured(arguments, words):
    ended = subprocess.run([sys.executable, "-m", "benchmarks", *arguments], text=True, cwd=ROOT, capture_output=True)
    assert ended.returncode == 2 and words in ended.stderr and "Traceback" not in ended.stderr


def test_a_benchmark_that_fails_is_no_success():
    code = "from benchmarks.__main__ import run; print(run(['nothing'], {'nothing': ''}))"
    assert run("-c", code).endswith("({'nothing': []}, ['nothing'])\n")
