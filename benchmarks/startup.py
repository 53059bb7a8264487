"""How long until the first result: import, and the quick start in a fresh process with an empty and a full cache.

Claims: import under 300 ms; the quick start compiles under 300 ms with an empty cache, under 30 ms with a full one.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Fact, main

ROOT = Path(__file__).parents[1]
PROBE = (ROOT / "examples" / "quickstart.py").read_text() + """
print("compile", program.stats.compile_time_ms, "execute", program.stats.execute_time_ms)
"""
IMPORT = ("import time; start = time.perf_counter(); import numpy; numpy_done = time.perf_counter(); import pto_wsp; "
          "print('import', (time.perf_counter() - start) * 1e3, 'of that numpy', (numpy_done - start) * 1e3)")


def environment(cache: str) -> dict[str, str]:
    """Bytecode is cached, as it is by default; it is a user's second run that is measured."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PTO_WSP_CODEGEN_CACHE_DIR": cache, "PYTHONPYCACHEPREFIX": cache + ".bytecode"}


def measure(code: str, cache: str, runs: int, clear: bool) -> dict[str, list[float]]:
    """Milliseconds by name, as printed by `runs` fresh processes."""
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        if clear:
            shutil.rmtree(cache, ignore_errors=True)
        out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT, env=environment(cache))
        for name, number in re.findall(r"([a-z][a-z ]*) ([\d.e+-]+)", out.rpartition("\n")[0].splitlines()[-1]):
            found.setdefault(name.strip(), []).append(float(number))
    return found


LIMITS = {"import import": 300.0, "empty cache compile": 300.0, "full cache compile": 30.0}


def cases(runs: int = 7) -> Iterator[Fact]:
    ways = (("import", IMPORT, False), ("empty cache", PROBE, True), ("full cache", PROBE, False))
    with tempfile.TemporaryDirectory() as folder:
        cache = os.path.join(folder, "cache")
        for title, code, clear in ways:
            measure(code, cache, 1, False)
            for name, times in measure(code, cache, runs, clear).items():
                yield Fact(f"{title}: {name}", times, "ms", LIMITS.get(f"{title} {name}"))


if __name__ == "__main__":
    main(cases)
