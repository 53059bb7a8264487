"""The whole project tree of a program for the NPU: path -> text, the same bytes for the same program.

In: a WorkloadTree and a Schedule. Out: a Project, its sources and the folder they were written to. Each file has its
writer: include/plan.h plan.py, aicpu/expand.aicpu expander.py, aicore/worker.asc worker.py, kernels/*.h aicore.py,
host/program.h host.py, manifest.json manifest.py; the rest lies in tree/ and shim/, as it is emitted. Start reading
at `sources_of`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pto_wsp.ascend import expander, folder, host, manifest, plan, worker
from pto_wsp.ascend.emission import Emission, emission
from pto_wsp.errors import CompileError
from pto_wsp.schedule import Schedule
from pto_wsp.trace.tree import WorkloadTree

__all__ = ["Project", "Sources", "make", "sources_of"]


class Sources(Mapping[str, str]):
    """The files of a project: path -> text. Prints as a list of them; `print(sources[path])` shows one."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = dict(files)

    def __getitem__(self, path: str) -> str:
        return self._files[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        own = [path for path in self if not path.startswith("check/shim/")]
        width = max(map(len, own), default=0)
        lines = [f"{path:<{width}}  {self[path].count(chr(10)):>5} lines" for path in own]
        return "\n".join([*lines, f"{'check/shim/':<{width}}  {len(self) - len(own):>5} files"])


@dataclass(frozen=True, eq=False)
class Project:
    """A program for the NPU."""

    emission: Emission
    sources: Sources
    folder: Path

    @property
    def placement(self) -> str:
        """Where every tile of every kernel lies: memory, offset, bytes, steps of the kernel that need it."""
        tables = [f"kernel {k.source.name} ({k.core})\n{k.source.placement}" for k in self.emission.kernels]
        return "\n\n".join(tables)


def make(
    tree: WorkloadTree,
    schedule: Schedule,
    title: str,
    place: str | os.PathLike[str] | None = None,
    mailboxes: bool = False,
    isa: str = "ascendc",
) -> Project:
    """Emit a program and write it.

    place      folder, see folder.write; None: one named by its contents under the root of the cache
    mailboxes  see emission;  isa  too
    raises     CompileError; then nothing is written
    """
    found = emission(tree, schedule, title, mailboxes, isa)
    sources = sources_of(found)
    return Project(found, Sources(sources), folder.write(sources, place, found.name))


def sources_of(e: Emission) -> dict[str, str]:
    """Every file of the project, sorted by path."""
    version = str(sys.modules["pto_wsp"].__version__)  # the package is loaded, and its __init__ imports us
    texts = {
        "include/plan.h": plan.plan_h(e),
        "aicpu/expand.aicpu": expander.expand_aicpu(e),
        "aicore/worker.asc": worker.worker_asc(e),
        "host/program.h": host.program_h(e),
        **{k.header: k.source.header for k in e.kernels},
        **_included(e),
    }
    words = host.words(e, version)
    made = {path: host.filled(text, words) for path, text in host.fixed().items()}
    return folder.sealed({**made, **texts}, manifest.describe(e, version))


def _included(e: Emission) -> dict[str, str]:
    """What custom kernels include of the user's.

    raises  CompileError when a file would have to be two
    """
    found = {k.header: "" for k in e.kernels}
    for kernel in e.kernels:
        for path, text in kernel.source.files:
            if found.setdefault(path, text) != text:
                raise CompileError(
                    f"kernel {kernel.name} includes {path.removeprefix('kernels/')!r}, and the tree has another file"
                    " of that name; rename one."
                ).at(kernel.line)
    return {path: text for path, text in found.items() if text}
