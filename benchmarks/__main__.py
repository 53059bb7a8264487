"""One file per claim of speed or accuracy.

    python -m benchmarks                 what there is
    python -m benchmarks startup         run one, or several
    python -m benchmarks all             run them all, one after the other
"""

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def available() -> dict[str, str]:
    """Name of each benchmark and the first line of its docstring."""
    files = sorted(path for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0] for path in files}


def main(names: list[str]) -> None:
    known = available()
    if not names:
        print(__doc__)
        for name, claim in known.items():
            print(f"    {name:<12} {claim}")
    for name in known if names == ["all"] else names:
        if name not in known:
            sys.exit(f"no benchmark {name!r}; there are: {', '.join(known)}")
        print(f"---- {name}: {known[name]}", flush=True)
        arguments, sys.argv = sys.argv, [str(HERE / f"{name}.py")]
        try:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=False)
        finally:
            sys.argv = arguments


if __name__ == "__main__":
    main(sys.argv[1:])
