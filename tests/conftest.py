"""What every test has: its own code cache, and one hypothesis profile for each purpose.

pytest                                  quick: a moderate number of examples
pytest --hypothesis-profile=thorough    thousands of examples per property
CI=true pytest                          the same examples every time, so that a run can be repeated
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty code cache for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PTO_WSP_CODEGEN_CACHE_DIR", str(folder))
    return folder
