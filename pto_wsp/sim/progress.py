"""A progress bar for long runs: tqdm, imported when a run has lasted long enough to want one."""

from __future__ import annotations

import sys
import time
import warnings
from types import TracebackType
from typing import Any

__all__ = ["Progress", "someone_watches"]

PATIENCE = 1.0  # seconds without a bar


def someone_watches() -> bool:
    """Is standard error a terminal, or this a notebook?"""
    return sys.stderr is not None and sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return hasattr(shell, "kernel")


class Progress:
    """Finished tasks of a run, drawn as a bar once PATIENCE is over."""

    def __init__(self, what: str, unit: str = "tasks") -> None:
        self.what, self.unit = what, unit
        self._bar: Any = None
        self._started = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, total: int) -> None:
        """Draw `done` of `total` tasks; a total of 0 is one that is not known yet."""
        if self._bar is None and time.perf_counter() - self._started > PATIENCE:
            self._bar = self._open(done)
        if self._bar is not None:
            self._bar.total = total or None
            self._bar.update(done - self._bar.n)

    def _open(self, done: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tqdm.auto in a notebook without ipywidgets draws text, with a warning
            from tqdm.auto import tqdm
        return tqdm(desc=self.what, initial=done, unit=f" {self.unit}", unit_scale=True, leave=False)
