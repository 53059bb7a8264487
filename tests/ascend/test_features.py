"""README.md says of each feature what the NPU target does with it, and shows a kernel; this does it again."""

from __future__ import annotations

import linecache
import re
from typing import Any

from tests.ascend import features


def test_the_table_is_current() -> None:
    """If this fails for a good reason: python -m tests.ascend.features"""
    assert features.in_readme() == features.table()


def test_the_kernel_is_current() -> None:
    """The C++ that README.md shows is what its example emits."""
    part = features.README.read_text().split("## For the NPU")[1]
    code, shown = (re.findall(rf"```{kind}\n(.*?)```", part, re.S)[0] for kind in ("python", "cpp"))
    code = code[: code.index("print(")]
    linecache.cache["norm.py"] = (len(code), None, code.splitlines(True), "norm.py")
    scope: dict[str, Any] = {}
    exec(compile(code, "norm.py", "exec"), scope)
    assert shown in scope["npu"].sources["kernels/swish.h"]
