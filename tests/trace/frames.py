"""Whose frames a traceback shows."""

from __future__ import annotations

import sys
import traceback


def files(error: BaseException) -> set[str]:
    """The files in an error's traceback.

    Before Python 3.11 an error that leaves an entry point takes the entry point's own frames along; they do not count.
    """
    found = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    if sys.version_info >= (3, 11):
        return found
    return {file for file in found if "/pto_wsp/" not in file and not file.endswith("contextlib.py")}
