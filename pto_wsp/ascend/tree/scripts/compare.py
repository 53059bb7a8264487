"""Compares result files with expected ones: compare.py OUTPUT EXPECTED [TOLERANCE].

OUTPUT, EXPECTED  folders with <tensor>.bin;  TOLERANCE  relative, 1e-3 unless given; integers have to be equal.
Dtypes are those of manifest.json, one folder up.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def read(path: Path, dtype: str) -> np.ndarray[Any, Any]:
    """The elements of a file; floats as float64."""
    if dtype == "bf16":
        return (np.fromfile(path, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    kind = np.dtype(bool) if dtype == "bool" else np.dtype(f"{dtype[0]}{int(dtype[1:]) // 8}")
    values = np.fromfile(path, kind)
    return values.astype(np.float64) if kind.kind == "f" else values


def main(output: str, expected: str, tolerance: str = "1e-3") -> int:
    """Prints a line per result; 1 when one of them is wrong, else 0."""
    limit = float(tolerance)
    manifest = json.loads((Path(__file__).parent.parent / "manifest.json").read_text())
    wrong = compared = 0
    for tensor in manifest["tensors"]:
        name, kind = tensor["name"], tensor["dtype"]
        if tensor["direction"] == "in" or not Path(expected, tensor["file"]).exists():
            continue
        compared += 1
        have, want = (read(Path(folder, tensor["file"]), kind) for folder in (output, expected))
        if have.shape != want.shape:
            print(f"{name}: {have.size} elements, expected {want.size}")
            wrong += 1
            continue
        floats = have.dtype.kind == "f"
        good = np.isclose(have, want, rtol=limit, atol=limit, equal_nan=True) if floats else have == want
        first = int(np.argmin(good)) if not good.all() else 0
        place = "" if good.all() else f"; element {first} is {have[first]}, expected {want[first]}"
        print(f"{name}: {int(good.sum())} of {good.size} elements agree{place}")
        wrong += not good.all()
    if not compared:
        print(f"no expected results in {expected}")
    return 1 if wrong or not compared else 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
