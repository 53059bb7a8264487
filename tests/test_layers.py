"""The rooms of the house: imports point one way, and `import pto_wsp` stays light.

Reads the import statements (not what happens to be loaded), so a lazy import inside a function counts too.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pto_wsp"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A module may import from its own room and from rooms of a lower number. `ascend` is beside `lower`.
VOCABULARY = {"arguments", "axes", "csp", "dtypes", "errors", "layout", "linear_layout", "scalar_expr", "schedule",
              "tensor", "type_checker", "types"}
LEVEL = {"vocabulary": 0, "trace": 1, "lower": 2, "ascend": 2, "sim": 3, "program": 4, "__init__": 5}

# Code of a lower room that only starts a higher one on the user's behalf (`workload.compile()`, `kernel.llvm`): the
# import stands inside a function, and the thing imported is an entry point of the room.
DOORS = {
    ("vocabulary", "trace"),  # csp.send(...) makes a Workload
    ("trace", "program"),  # Workload.compile(...) makes a Program
    ("trace", "lower"),  # kernel.loops, kernel.llvm, kernel.asm print the stages
}

HEAVY = {"numba", "llvmlite", "ml_dtypes", "matplotlib", "tqdm", "IPython"}
LATE = {"asyncio", "concurrent", "difflib", "json", "multiprocessing", "pto_wsp.ascend", "subprocess"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    if len(parts) == 1:
        return "__init__"
    return "vocabulary" if parts[1] in VOCABULARY else parts[1]


def imports(tree: ast.Module, module: str, is_package: bool) -> list[tuple[str, int, bool]]:
    """(imported module, line, at run time of a function or only for type checking) of every import statement."""
    found = []

    def visit(node: ast.AST, late: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                is_module = (ROOT / inner.replace(".", "/")).with_suffix(".py").exists() or (
                    ROOT / inner.replace(".", "/")
                ).is_dir()
                found.append((inner if is_module else base, node.lineno, late))
        inside_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, late or inside_function or for_types)

    visit(tree, False)
    return found


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    module = module_name(path)
    here = room_of(module)
    for target, line, late in imports(parsed(path), module, path.name == "__init__.py"):
        if target.split(".")[0] != "pto_wsp":
            continue
        there = room_of(target)
        if here == there or LEVEL[there] < LEVEL[here] or (late and (here, there) in DOORS):
            continue
        raise AssertionError(
            f"{path.relative_to(ROOT)}:{line}: {here} imports {target} of {there}; "
            f"imports run vocabulary <- trace <- lower <- sim <- program"
        )


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_heavy_packages_are_imported_late(path: Path) -> None:
    for target, line, late in imports(parsed(path), module_name(path), path.name == "__init__.py"):
        assert late or target.split(".")[0] not in HEAVY or room_of(module_name(path)) in {"lower", "sim"}, (
            f"{path.relative_to(ROOT)}:{line}: import {target} inside the function that needs it"
        )


def test_numba_compiles_cpu_bodies_only() -> None:
    users = {
        module_name(path) for path in MODULES
        if any(target.split(".")[0] == "numba" for target, _, _ in imports(parsed(path), module_name(path), False))
    }  # fmt: skip
    assert users == {"pto_wsp.lower.custom"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(parsed(path)), f"{path.relative_to(ROOT)} opens without a docstring"


def test_type_checkers_see_every_public_name() -> None:
    """What stands in kernel annotations is of type Any to them, and the real thing at run time."""
    assert (PACKAGE / "py.typed").exists()
    choice = next(node for node in parsed(PACKAGE / "__init__.py").body if isinstance(node, ast.If))
    declared = {node.target.id for node in choice.body if isinstance(node, ast.AnnAssign)}
    imported = {alias.name for node in choice.orelse if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert declared == imported == {"Constexpr", "Dense", "In", "InOut", "Out", "Scalar", "Tile"}


def test_the_map_names_files_that_exist() -> None:
    """`docs/architecture.md` gives paths of the package; a name without a folder is in the folder named before it."""
    folder = ""
    for name in re.findall(r"`([a-z_/]+\.py)`", (ROOT / "docs/architecture.md").read_text(encoding="utf-8")):
        if (ROOT / name).exists():
            continue
        folder = name.rpartition("/")[0] or folder
        places = [PACKAGE / name, PACKAGE / folder / name]
        assert any(place.exists() for place in places), f"docs/architecture.md names {name}, which is not in {folder}"


def test_every_room_is_known() -> None:
    assert {room_of(module_name(path)) for path in MODULES} <= LEVEL.keys()


def test_import_is_light() -> None:
    """`import pto_wsp` loads no compiler, no plotting, nothing of the NPU, and costs about as much as NumPy (0.06 s).

    Processor time beside that of NumPy in the same process, the least of five: other tests run at the same time.
    With bytecode, which the first process writes, as an installation does.
    """
    script = (
        "import sys, time; start = time.process_time(); import numpy; middle = time.process_time(); "
        "import pto_wsp; "
        "print([middle - start, time.process_time() - middle, sorted(sys.modules)])"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs = [
        ast.literal_eval(subprocess.check_output([sys.executable, "-c", script], text=True, cwd=ROOT, env=env))
        for _ in range(6)
    ]
    loaded = set(runs[0][2])
    needless = {name for name in loaded if name.split(".")[0] in HEAVY or name in LATE}
    assert not needless, f"import pto_wsp also imports {needless}"
    numpy, ours = (min(run[i] for run in runs[1:]) for i in (0, 1))
    assert ours < 3 * numpy, f"import numpy: {numpy:.3f} s, then import pto_wsp: {ours:.3f} s"
