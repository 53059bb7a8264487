"""An emitted project on this machine: its sources, unchanged, against the shim.

The host program, the task generator and the workers are compiled with a C++ compiler and run in a process of their own,
on files; whatever goes wrong there is an error here. Start reading at `run`.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pto_wsp.ascend.build import HostProgram, ShimError, build
from pto_wsp.ascend.emission import Emission
from pto_wsp.ascend.names import place_of
from pto_wsp.ascend.project import Project
from pto_wsp.errors import ExecutionError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HostRun", "Inputs", "command_line", "compiled", "run", "save", "save_inputs"]

_SUMMARY = re.compile(r": \d+ tasks on (\d+) workers, \d+ levels, \d+ rounds$")
_OWN = ("include/", "kernels/", "aicore/", "aicpu/", "host/")


@dataclass(frozen=True)
class Inputs:
    """What a run is given, each in the order of the emission.

    arrays   one per tensor, changed in place where tasks write
    symbols  64-bit words      sizes  trip counts      axes  the arrays of each axis, by part
    """

    arrays: Sequence[NDArray[Any]]
    symbols: Sequence[int]
    sizes: Sequence[int]
    axes: Sequence[Sequence[NDArray[Any]]]


@dataclass(frozen=True, eq=False, repr=False)
class HostRun:
    """What ran, one entry per task in program order.

    kernels  names per kernel call of the workload;  call  which of them
    axes     values in brackets                       target  worker that the dispatch policy chose
    worker   core that ran it
    round    how often the window had been emptied     level  in the table: those of one may run at the same time
    workers  cores in use                             text   what the host program printed
    """

    name: str
    workers: int
    kernels: tuple[str, ...]
    call: NDArray[np.int64]
    axes: tuple[tuple[int, ...], ...]
    target: NDArray[np.int64]
    worker: NDArray[np.int64]
    round: NDArray[np.int64]
    level: NDArray[np.int64]
    text: str

    def __len__(self) -> int:
        return len(self.call)

    @property
    def largest_round(self) -> int:
        """Most tasks between two times that the window was empty."""
        return int(np.bincount(self.round).max()) if len(self) else 0

    def task(self, number: int) -> str:
        """`kernel[axis values]`, as the user wrote the call."""
        axes = ", ".join(map(str, self.axes[number]))
        return self.kernels[int(self.call[number])] + (f"[{axes}]" if axes else "")

    def __repr__(self) -> str:
        rounds = int(self.round.max(initial=0)) + 1
        how = "in one round" if rounds == 1 else f"in {rounds} rounds of at most {self.largest_round}"
        tasks, workers = (f"{n} {what}{'s' * (n != 1)}" for n, what in ((len(self), "task"), (self.workers, "worker")))
        return f"{self.name}: {tasks} on {workers}, {how}"


def compiled(project: Project, include: Sequence[str | os.PathLike[str]] = ()) -> HostProgram:
    """The program, built once for all equal projects.

    include  further folders of headers
    raises  CompileError where there is no C++ compiler
    """
    sources = {path: text for path, text in project.sources.items() if path.startswith(_OWN)}
    folders = [Path(folder).resolve() for folder in include]
    headers = (path for folder in folders for path in sorted(folder.rglob("*.h*")) if path.is_file())
    stamps = "".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in headers)
    stamp = f"-DPTO_WSP_HEADERS=0x{blake2b(stamps.encode(), digest_size=6).hexdigest()}"  # changed ones are others
    return build(sources, include=folders, flags=("-Iinclude", *([stamp] if folders else [])), programs=True)


def run(
    project: Project,
    inputs: Inputs,
    *,
    workers: int = 0,
    seed: int = 0xA7,
    timeout: float = 600.0,
    include: Sequence[str | os.PathLike[str]] = (),
) -> HostRun:
    """Run a project on arrays.

    workers  cores to use at most; 0: as many as the schedule has, or the device
    seed     byte that fills memory nobody wrote
    include  further folders of headers that kernels include
    raises   CompileError without a C++ compiler; UsageError for arrays that do not fit; ShimError (an ExecutionError),
             at the user's line where it is about a task, when the program fails: then no array has changed
    """
    e = project.emission
    _check_options(workers, seed)
    _check(e, inputs.arrays)
    program = compiled(project, include)
    with tempfile.TemporaryDirectory(prefix="pto_wsp_") as name:
        folder = Path(name)
        save(e, inputs, folder / "input")
        (folder / "output").mkdir()
        args = ["--report", "tasks.csv", *command_line(e, inputs)]
        args += ["--workers", str(workers)] if workers else []
        try:
            text = program.call(args, cwd=folder, seed=seed, timeout=timeout)
        except ShimError as error:
            raise _at_the_line(error, e) from None
        done = _report(e, (folder / "tasks.csv").read_text(), text)
        written = [(t, array) for t, array in zip(e.tensors, inputs.arrays) if t.direction != "in"]
        results = [_result(t.name, array, folder) for t, array in written]
    for (_, array), result in zip(written, results):
        array[...] = result
    return done


def _check_options(workers: Any, seed: Any) -> None:
    for name, value, most in (("workers", workers, 1 << 16), ("seed", seed, 255)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise UsageError(f"{name} of run_on_host is a whole number from 0 to {most}; got {value!r}")


def _at_the_line(error: ShimError, e: Emission) -> ShimError:
    """An error of the host program without its exit code, at the kernel call that it names."""
    found = re.match(r"The program ended with exit code 1\. .*?: (?=task \d|a slot|a loop|input/|axis )", error.message)
    if found is None:
        return error
    said = ShimError(error.message[found.end() :])
    task = re.match(r"task \d+, (.*?)(\[[-\d, ]*\])? \((.*?:\d+)\): ", said.message)
    calls = [c for c in e.calls if task is not None and place_of(c.task.line) == task[3]]
    return said.at(calls[0].task.line) if calls else said


def _check(e: Emission, arrays: Sequence[NDArray[Any]]) -> None:
    for t, array in zip(e.tensors, arrays, strict=True):
        if array.ndim != t.rank:
            raise UsageError(f"the array of {t.name} has {array.ndim} dimensions; {t.rank} are needed")
        if t.direction != "in" and not array.flags.writeable:
            raise ExecutionError(f"tasks write to {t.name}, whose array is read-only")
    for k, t in enumerate(e.tensors):
        for other, array in zip(e.tensors[:k], arrays):
            written = t.direction != "in" or other.direction != "in"
            if written and np.may_share_memory(array, arrays[k]) and _shares(array, arrays[k]):
                raise ExecutionError(
                    f"{other.name} and {t.name} share memory, and tasks write to it; on the device each tensor has "
                    "memory of its own. Make one Tensor and take views of it: X[...]"
                )


def _shares(a: NDArray[Any], b: NDArray[Any]) -> bool:
    try:
        return bool(np.shares_memory(a, b, max_work=100_000))  # type: ignore[arg-type]  # any number is allowed
    except np.exceptions.TooHardError:
        return True


# ---- files and the command line --------------------------------------------------------------------------------------


def save(e: Emission, inputs: Inputs, folder: Path) -> None:
    """The arrays as the host program reads them, in a folder that is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, array in zip(e.tensors, inputs.arrays):
        (folder / f"{t.name}.bin").write_bytes(np.ascontiguousarray(array).tobytes())
    for axis, arrays in zip(e.axes, inputs.axes):
        for part, values in zip(axis.parts, arrays, strict=True):
            (folder / f"{axis.name}.{part}.bin").write_bytes(values.astype(np.int32).tobytes())


def save_inputs(e: Emission, inputs: Inputs, folder: str | os.PathLike[str]) -> str:
    """`save`, and the options with which the host program reads them: one line for a shell.

    raises  UsageError when the folder cannot be written
    """
    try:
        save(e, inputs, Path(folder))
    except OSError as error:
        raise UsageError(f"the arrays cannot be written to {folder}: {error.strerror or error}") from error
    return shlex.join(["--input", os.fspath(folder), *command_line(e, inputs)])


def command_line(e: Emission, inputs: Inputs) -> list[str]:
    """Options of the host program that give it these symbols, sizes and shapes."""
    given: list[str] = []
    for symbol, word in zip(e.symbols, inputs.symbols, strict=True):
        given += ["--symbol", f"{symbol.enum}={word % (1 << 64):#x}"]
    for size, trips in zip(e.sizes, inputs.sizes, strict=True):
        given += ["--size", f"{size.enum}={trips}"]
    for t, array in zip(e.tensors, inputs.arrays):
        if t.rank:  # an array may have been bound since
            given += ["--shape", f"{t.enum}={'x'.join(map(str, array.shape))}"]
    return given


def _result(name: str, array: NDArray[Any], folder: Path) -> NDArray[Any]:
    data = (folder / "output" / f"{name}.bin").read_bytes()
    return np.frombuffer(data, array.dtype).reshape(array.shape)


def _report(e: Emission, report: str, text: str) -> HostRun:
    rows = list(csv.DictReader(report.splitlines()))
    rows.sort(key=lambda row: int(row["task"]))
    for number, row in enumerate(rows):
        if int(row["task"]) != number:
            raise ExecutionError(f"task {number} is missing in the report of the host program")

    def column(name: str) -> NDArray[np.int64]:
        return np.array([int(row[name]) for row in rows], np.int64)

    return HostRun(
        name=e.title,
        workers=int(_SUMMARY.findall(text.splitlines()[0])[0]),
        kernels=tuple(c.kernel.name for c in e.calls),
        call=column("call"),
        axes=tuple(tuple(map(int, row["axes"].split())) for row in rows),
        target=column("target"),
        worker=column("worker"),
        round=column("round"),
        level=column("level"),
        text=text,
    )


