"""Compares result files with expected ones: compare.py OUTPUT EXPECTED [TOLERANCE].

OUTPUT, EXPECTED  folders with <tensor>.bin;  TOLERANCE  relative, 1e-3 unless given; integers have to be equal.
Shapes and dtypes are those of manifest.json beside this folder.
"""

import json
import sys
from pathlib import Path

import numpy as np


def read(path, dtype):
    """The elements of a file, as float64 where they are floats."""
    if dtype == "bf16":
        return (np.fromfile(path, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    kinds = {"f": "f", "i": "i", "u": "u"}
    kind = np.dtype(bool) if dtype == "bool" else np.dtype(f"{kinds[dtype[0]]}{int(dtype[1:]) // 8}")
    values = np.fromfile(path, kind)
    return values.astype(np.float64) if kind.kind == "f" else values


def main(output, expected, tolerance=1e-3):
    manifest = json.loads((Path(__file__).parent.parent / "manifest.json").read_text())
    wrong = 0
    for tensor in manifest["tensors"]:
        if tensor["direction"] == "in" or not Path(expected, tensor["file"]).exists():
            continue
        have, want = (read(Path(folder, tensor["file"]), tensor["dtype"]) for folder in (output, expected))
        if have.shape != want.shape:
            print(f"{tensor['name']}: {have.size} elements, expected {want.size}")
            wrong += 1
            continue
        exact = tensor["dtype"][0] not in "fb" or tensor["dtype"] == "bool"
        good = have == want if exact else np.isclose(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)
        wrong += not good.all()
        first = "" if good.all() else f"; first at {int(np.argmin(good))}: {have[~good][0]}, expected {want[~good][0]}"
        print(f"{tensor['name']}: {int(good.sum())} of {good.size} elements agree{first}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3], *map(float, sys.argv[3:4])))
