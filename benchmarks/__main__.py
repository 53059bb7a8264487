"""One file per claim of speed or accuracy; each runs in a process of its own.

    python -m benchmarks                            all of them: minutes
    python -m benchmarks vector attention           some
    python -m benchmarks --list                     what there is
    python -m benchmarks --cpu x86-64-v3            what a machine without AVX-512 would do, peers included
    python -m benchmarks --json new.json            keep the numbers
    python -m benchmarks --compare old.json         what became slower than those; exits with 1 if something did
    python -m benchmarks --roofline roofline.png    draw the kernels that were measured (needs matplotlib)
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import CONDITIONS, CPU, LEFT_OUT, LIMITS, roofline

HERE = Path(__file__).parent
TOLERANCE = 0.1                 # slower by less than this, or by less than the spread, is noise

Results = dict[str, list[dict[str, Any]]]       # claim -> rows


def available() -> dict[str, str]:
    """Name of each benchmark and the first line of its docstring."""
    files = {path.stem: path.read_text() for path in sorted(HERE.glob("*.py"))}
    return {name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
            for name, text in files.items() if "\ndef cases(" in text}


def run(names: list[str], claims: dict[str, str]) -> tuple[Results, list[str]]:
    """Each benchmark in a fresh process, which prints as it goes: results, and the names of those that failed."""
    found: Results = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"\n---- {name}: {claims[name]}", flush=True)
            rows = Path(folder, f"{name}.json")
            command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(rows)]
            failed += [name] * bool(subprocess.run(command, cwd=HERE.parent, check=False).returncode)
            found[name] = json.loads(rows.read_text()) if rows.exists() else []
    return found, failed


def kept(file: Path) -> tuple[dict[str, str], Results]:
    """The machine and the results of a file that --json wrote. Raises ValueError that says what is wrong with it."""
    try:
        numbers = json.loads(file.read_text())
        return numbers["machine"], numbers["claims"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a file that --json wrote: {type(error).__name__}: {error}") from None


def processor() -> str:
    """The CPU's name, as Linux knows it."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)", cpus.read_text(), re.M) if cpus.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def regressions(new: Results, old: Results) -> list[str]:
    """Ratios to a peer in the same run where there is one, times and other numbers where there is none."""
    found = []
    for claim, rows in new.items():
        before = {row["name"]: row for row in old.get(claim, [])}
        for row in rows:
            was = before.get(row["name"])
            if was is None:
                continue
            noise = max(TOLERANCE, row["spread"], was["spread"])
            pairs = {f"{row['name']} against {peer}": (ratio, was["ratios"][peer])
                     for peer, ratio in row["ratios"].items() if peer in was["ratios"]}
            if not pairs and was["median"] and row["median"]:
                values = row["median"], was["median"]
                pairs = {row["name"]: values if row["at_least"] else (1 / values[0], 1 / values[1])}
            found += [f"{claim}: {what} is at {now / then:.2f} of what it was"
                      for what, (now, then) in pairs.items() if now < then * (1 - noise)]
    return found


def arguments(claims: dict[str, str]) -> argparse.Namespace:
    """The command line. What would only fail after minutes of measuring is refused here."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(claims))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--cpu", choices=LIMITS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    parser.add_argument("--roofline", type=Path, metavar="FILE")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in claims]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(claims)}")
    for file in filter(None, (options.json, options.roofline)):
        if not file.absolute().parent.is_dir():
            parser.error(f"no folder {file.absolute().parent} to write {file.name} to")
    if options.roofline and not importlib.util.find_spec("matplotlib"):
        parser.error("--roofline needs matplotlib: pip install matplotlib")
    if options.roofline and options.names and not roofline.KINDS.keys() & set(options.names):
        parser.error(f"--roofline draws what {', '.join(roofline.KINDS)} find: name one of them")
    if options.compare:
        try:
            options.old = kept(options.compare)
        except ValueError as error:
            parser.error(f"--compare: {error}")
    return options


def main() -> None:
    claims = available()
    options = arguments(claims)
    if options.list:
        for name, claim in claims.items():
            print(f"{name:<14} {claim}")
        return
    if options.cpu and options.cpu != CPU:      # libraries read their settings when they are imported: begin again
        sys.exit(subprocess.run([sys.executable, "-m", "benchmarks", *sys.argv[1:]], check=False,
                                env=os.environ | {"PTO_WSP_CPU": options.cpu}).returncode)
    names = options.names or list(claims)
    if options.roofline and "machine" not in names:
        names = ["machine", *names]
    print(*CONDITIONS, sep="\n", end="\n" * bool(CONDITIONS), flush=True)
    found, failed = run(names, claims)
    machine = {"processor": processor(), "python": platform.python_version(), "code made for": CPU,
               "settings left out": " ".join(LEFT_OUT)}
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "claims": found}, indent=1))
    if options.roofline and "machine" not in failed:
        roofline.draw(found, options.roofline)
    slower = []
    if options.compare:
        before, old = options.old
        slower = regressions(found, old)
        known = {(claim, row["name"]) for claim, rows in old.items() for row in rows}
        both = sum((claim, row["name"]) in known for claim, rows in found.items() for row in rows)
        print("", *slower, f"{both} cases are in {options.compare} too; worse: {len(slower)} numbers", sep="\n")
        for what in ("processor", "python", "code made for"):
            if before.get(what) != machine[what]:
                print(f"but there, {what} was {before.get(what)!r}, and is {machine[what]!r} now")
    if failed:
        print(f"\nended with an error, see above: {', '.join(failed)}")
    sys.exit(bool(slower or failed))


if __name__ == "__main__":
    main()
