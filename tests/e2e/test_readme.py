"""README.md and docs/performance.md say the truth: Python blocks run, and print what the blocks after them show."""

import contextlib
import io
import linecache
import re
import sys
import warnings
from pathlib import Path

import pytest

import pto_wsp

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
PAIRS = re.findall(r"```python\n(.*?)```(?:\n+```\n(.*?)```)?", README, re.S)


def test_blocks_print_what_is_shown():
    scope = {}
    assert len(PAIRS) >= 4
    for code, shown in PAIRS:
        linecache.cache["norm.py"] = (len(code), None, code.splitlines(True), "norm.py")
        with contextlib.redirect_stdout(io.StringIO()) as out, warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)     # a user should not meet one in his first hour
            exec(compile(code, "norm.py", "exec"), scope)
        if sys.version_info < (3, 11):  # no columns, hence no carets
            shown = re.sub(r"\n *\^+(?=\n)", "", shown)
        assert out.getvalue().strip() == shown.strip()


@pytest.mark.parametrize("page", [README, PERFORMANCE], ids=["README.md", "performance.md"])
def test_stages_are_those_of_today(page):
    """The loops word for word, and the instructions in their order, whatever registers they use."""
    from pto_wsp.lower import jit, pipeline

    section = page.partition("## The stages of one kernel\n")[2].partition("\n## ")[0]
    scope = vars(pto_wsp) | {"F32": pto_wsp.DType.F32}
    exec(re.search(r"```python\n(.*?)```", section, re.S)[1].partition("print(")[0], scope)
    loops = re.search(r"```\n(?:loops |  for ).*?(?=```)", section, re.S)[0].removeprefix("```\n")
    assert loops in str(scope["rmsnorm"].loops) + "\n"

    def instructions(text):
        lines = (re.sub(r"%[a-z]+\d*", "%", line.partition("#")[0]) for line in text.splitlines())
        return [" ".join(line.split()) for line in lines if line.startswith("\t") and "..." not in line]

    target = jit.Target(cpu="x86-64-v4")
    code = iter(instructions(jit.assembly(pipeline.compile_kernel(scope["rmsnorm"].graph, target=target).ir, target)))
    for shown in re.findall(r"```asm\n(.*?)```", section, re.S):
        for line in instructions(shown):
            assert line in code, f"{line} is not there, or not in this place"       # reads on from the line before


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
