"""Every example runs as a user runs it, checks itself against NumPy and reports cycles and time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(p for p in EXAMPLES.glob("*.py") if p.name not in ("quickstart.py", "demo.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_example(path, tmp_path):
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"equals NumPy; .*[\d,]+ cycles .*[\d.]+ ms", done.stdout), done.stdout


def test_demo(tmp_path):
    done = subprocess.run([sys.executable, str(EXAMPLES / "demo.py"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equals NumPy" in done.stdout and "cycles" in done.stdout
    picture = tmp_path / "timeline.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
