"""How long until the first result: import, and the quick start in a fresh process with an empty and a full cache.

Claims: import under 300 ms; the quick start compiles under 300 ms with an empty cache, under 30 ms with a full one.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

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


def main(runs: int = 7) -> None:
    cases = (("import", IMPORT, False), ("empty cache", PROBE, True), ("full cache", PROBE, False))
    with tempfile.TemporaryDirectory() as folder:
        cache = os.path.join(folder, "cache")
        for title, code, clear in cases:
            measure(code, cache, 1, False)
            for name, times in measure(code, cache, runs, clear).items():
                print(f"{title:<12} {name:<14} median {statistics.median(times):7.1f} ms   best {min(times):7.1f} ms")


if __name__ == "__main__":
    main()
