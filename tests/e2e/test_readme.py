"""README.md says the truth: its Python blocks run, and print what the block after them shows."""

import contextlib
import io
import linecache
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAIRS = re.findall(r"```python\n(.*?)```(?:\n+```\n(.*?)```)?", README, re.S)


def test_blocks_print_what_is_shown():
    scope = {}
    assert len(PAIRS) >= 4
    for code, shown in PAIRS:
        linecache.cache["norm.py"] = (len(code), None, code.splitlines(True), "norm.py")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, "norm.py", "exec"), scope)
        if sys.version_info < (3, 11):  # no columns, hence no carets
            shown = re.sub(r"\n *\^+(?=\n)", "", shown)
        assert out.getvalue().strip() == shown.strip()


def test_number_of_ops():
    from pto_wsp.trace.ops import INTERNAL, OPS

    assert f"{len(OPS) - len(INTERNAL)} ops" in README


FILES = re.findall(r"`((?:docs|examples|benchmarks|pto_wsp)/[\w./]+)`|\]\((docs/[^)]+)\)", README)


@pytest.mark.parametrize("path", FILES)
def test_files_exist(path):
    assert (ROOT / (path[0] or path[1])).exists()


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_the_op_of_the_recipe_is_free():
    from pto_wsp.trace.ops import OPS

    assert "relu2" not in OPS
