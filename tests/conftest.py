"""What every test has: its own code cache, memory that is never clean, and one hypothesis profile for each purpose.

pytest                                  quick: a moderate number of examples
pytest --hypothesis-profile=thorough    thousands of examples per property
CI=true pytest                          the same examples every time, so that a run can be repeated
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from pto_wsp.lower import tasks
from pto_wsp.sim import execute

SLOW_MACHINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("quick", max_examples=50, deadline=None, suppress_health_check=SLOW_MACHINE)
settings.register_profile("ci", parent=settings.get_profile("quick"), derandomize=True, print_blob=True)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=3000)
settings.load_profile("ci" if os.environ.get("CI") else "quick")


@pytest.fixture(scope="session", autouse=True)
def code_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this session's own for compiled code: the user's cache is neither read nor written.

    Subprocesses that a test starts inherit it through the environment.
    """
    folder = tmp_path_factory.mktemp("code_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTO_WSP_CODEGEN_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def unclean_memory() -> Iterator[None]:
    """What machine code fills begins with garbage, another one each time: tables of tasks and scratch memory.

    Who reads there what nobody has written fails in every run of the tests, not by chance in one of many.
    """
    garbage = itertools.cycle((0xFF, 0x7F, 0x01, 0xA5))  # -1 and not a number; huge; tiny; negative
    table, scratch = tasks.TaskTable.empty, execute._Scratch.__init__

    def unclean_table(*args: Any, **options: Any) -> tasks.TaskTable:
        made = table(*args, **options)
        for column in tasks.COLUMNS:
            getattr(made, column).view(np.uint8)[...] = next(garbage)
        return made

    def unclean_scratch(self: execute._Scratch, room: int) -> None:
        scratch(self, room)
        ctypes.memset(self.address, next(garbage), room)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.TaskTable, "empty", unclean_table)
        patch.setattr(execute._Scratch, "__init__", unclean_scratch)
        yield


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty code cache for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PTO_WSP_CODEGEN_CACHE_DIR", str(folder))
    return folder
