"""Emitted AscendC sources on this machine: compile them against the shim with a C++ compiler, run them on arrays.

`build` turns source texts into a `HostProgram`; `HostProgram.run` starts a kernel in a process of its own on copies of
NumPy arrays and brings the contents back. A check of the shim that fails, or a crash, is a `ShimError` here; the
interpreter is never at risk. Compiled things are kept on disk, named by all that determines them.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from pto_wsp.errors import CompileError, ExecutionError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Compiler", "HostProgram", "Launch", "Out", "ShimError", "Workspace", "build", "compiler", "shim_folder"]

VARIABLE = "PTO_WSP_HOST_BUILD_DIR"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
_KEPT = 400  # programs in the cache
_CHECK_FAILED, _REFUSED = 86, 87  # exit codes, see shim/pto_shim/machine.h and runner.h
_MESSAGE = re.compile(r"pto_shim: error: (?P<file>[^\n]*?):(?P<line>\d+): (?P<call>[^\n]*?): (?P<text>.*)", re.DOTALL)
_ENTRY = re.compile(r'extern\s+"C"\s+__global__\s+__aicore__\s+void\s+(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)\s*\{')
_MAIN = '#include "kernel_operator.h"\n#include "pto_shim/runner.h"\n'
_MACHINE = '#define PTO_SHIM_IMPLEMENTATION\n#include "kernel_operator.h"\n#include "pto_shim/all_impl.h"\n'


class ShimError(ExecutionError):
    """A kernel broke a rule of the device, or crashed, on the host shim.

    file, line   place in the emitted source       call   AscendC call that was refused, "" for a crash
    """

    def __init__(self, message: str = "", file: str = "", source_line: int = 0, call: str = "") -> None:
        super().__init__(message)
        self.file, self.source_line, self.call = file, source_line, call


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its path and what it says of its version."""

    path: str
    version: str


@dataclass(frozen=True)
class Out:
    """An array whose contents the kernel must not read before it wrote them."""

    array: NDArray[Any]


@dataclass(frozen=True)
class Workspace:
    """GM scratch of so many bytes, contents arbitrary, not brought back."""

    nbytes: int


Argument = Union["NDArray[Any]", Out, Workspace, int, float, bool, np.generic]


@dataclass(frozen=True)
class Launch:
    """One start of a kernel: arrays (views share the memory of the array they look into) and scalars, in order."""

    kernel: str
    args: Sequence[Argument]
    blocks: int = 1


def shim_folder() -> Path:
    """The folder with `kernel_operator.h`."""
    return Path(__file__).parent / "shim"


@cache
def compiler() -> Compiler:
    """The C++ compiler: $CXX, else g++, clang++, c++ from the path. CompileError when there is none."""
    tried = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in tried:
        path = shutil.which(name)
        if path:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return Compiler(path, done.stdout.splitlines()[0] if done.stdout else "")
    raise CompileError(
        f"Running emitted AscendC on the host needs a C++17 compiler; none of {', '.join(tried)} was found. "
        "Install g++ or set the environment variable CXX."
    )


def build(
    sources: Mapping[str, str],
    *,
    include: Sequence[Path] = (),
    flags: Sequence[str] = (),
    optimise: str = "-O1",
    exact: bool = False,
    programs: bool = False,
) -> HostProgram:
    """Compile a tree of sources against the shim.

    sources   relative path -> text. Files with a kernel entry (extern "C" __global__ __aicore__ void ...) become
              translation units; all others are there to be included
    include   further include folders; the root of the tree and the shim are always there
    exact     also require what the device's parameter structs require: no narrowing in braces
    programs  the tree has its own main(): every .cpp, .asc and .aicpu file is a translation unit; launches written
              `kernel<<<blocks, x, stream>>>(args)` are understood
    raises    CompileError with the compiler's output, or when there is no compiler
    """
    tool = compiler()
    common = ["-std=c++17", *WARNINGS, optimise, "-DPTO_SHIM_SEPARATE", *flags]
    folders = [f"-I{path}" for path in include]
    key = _key(tool, " ".join(common + folders), repr((exact, programs)), _shim_digest(), *_flat(sources))
    home = _root() / "programs" / key
    program = HostProgram(home / "program", _signatures(sources))
    if program.path.exists():
        _mark_used(home)
        return program
    objects = _machine(tool) if programs else _machine(tool) + _runner(tool)
    with _workshop(home) as folder:
        _write_tree(folder / "src", sources)
        units = list(_units(folder, sources, programs))
        search = ["-I.", *folders, f"-I{shim_folder()}"]
        if exact:
            check = [tool.path, *common, "-DPTO_SHIM_EXACT=1", "-fsyntax-only", *search, "-x", "c++"]
            _each([[*check, unit] for unit in units], folder / "src")
        made = [f"../unit{i}.o" for i in range(len(units))]
        work = [[tool.path, *common, *search, "-x", "c++", "-c", u, "-o", o] for u, o in zip(units, made)]
        _each(work, folder / "src")
        link = [tool.path, *made, *map(str, objects), "-o", "../program", "-ldl", "-lpthread"]
        _each([link], folder / "src")
    return program


@dataclass(frozen=True)
class HostProgram:
    """Compiled kernels of a tree.

    path         the executable       signatures   kernel -> C types of its parameters
    """

    path: Path
    signatures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def run(
        self,
        kernel: str,
        *args: Argument,
        blocks: int = 1,
        seed: int = 0xA7,
        cubes: int = 24,
        vectors: int = 48,
        timeout: float = 120.0,
    ) -> None:
        """Run one kernel; arrays are changed in place. ShimError when it breaks a rule; see `run_all`."""
        self.run_all([Launch(kernel, args, blocks)], seed=seed, cubes=cubes, vectors=vectors, timeout=timeout)

    def run_all(
        self,
        launches: Sequence[Launch],
        *,
        seed: int = 0xA7,
        cubes: int = 24,
        vectors: int = 48,
        timeout: float = 120.0,
    ) -> None:
        """Run kernels one after another on shared arrays, in one process.

        seed             byte that fills memory nobody wrote; a right kernel gives the same for any
        cubes, vectors   physical cores of the device
        timeout          seconds
        """
        request = _Request()
        for launch in launches:
            request.add(launch, self._types(launch))
        with tempfile.TemporaryDirectory(prefix="pto_wsp_") as folder:
            question, answer = Path(folder, "request"), Path(folder, "answer")
            question.write_bytes(request.text(seed, cubes, vectors))
            _raise_for(*self._start([str(question), str(answer)], timeout))
            request.bring_back(answer.read_bytes())

    def call(
        self, args: Sequence[str], *, cwd: Path | None = None, seed: int = 0xA7, timeout: float = 120.0
    ) -> str:
        """Run a program with its own main; what it printed. ShimError when it fails; see `run_all` for seed."""
        code, out, err = self._start(args, timeout, cwd, seed)
        _raise_for(code, out, err)
        return out

    def _types(self, launch: Launch) -> tuple[str, ...]:
        types = self.signatures.get(launch.kernel)
        if types is None:
            known = ", ".join(self.signatures) or "none"
            raise UsageError(f"No kernel {launch.kernel!r} in this program; it has {known}.")
        if len(types) != len(launch.args):
            raise UsageError(f"Kernel {launch.kernel} takes {len(types)} arguments, got {len(launch.args)}.")
        return types

    def _start(
        self, args: Sequence[str], timeout: float, cwd: Path | None = None, seed: int = 0xA7
    ) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                [str(self.path), *args],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                cwd=cwd,
                env={**os.environ, "PTO_SHIM_SEED": str(seed)},
            )
        except subprocess.TimeoutExpired:
            raise ShimError(f"The kernel did not end within {timeout:g} seconds on the host.") from None
        return done.returncode, done.stdout, done.stderr


def _raise_for(code: int, out: str, err: str) -> None:
    if code == 0:
        return
    found = _MESSAGE.search(err)
    if code == _CHECK_FAILED and found:
        text = f"{found['file']}:{found['line']}: {found['call']}: {found['text'].strip()}"
        raise ShimError(text, found["file"], int(found["line"]), found["call"])
    if code == _REFUSED:
        raise UsageError(err.strip())
    if code < 0:
        raise ShimError(f"The kernel crashed on the host with {signal.Signals(-code).name}. {err.strip()}")
    raise ShimError(f"The program ended with exit code {code}. {(err or out).strip()}")


# --------------------------------------------------------------------------------------------- requests and answers


class _Request:
    """Launches and the buffers they share, as runner.h reads them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.buffers: list[tuple[NDArray[np.uint8] | None, int, bool, str]] = []  # bytes, size, has contents, name
        self.known: dict[int, int] = {}  # id of the array that owns the memory -> buffer
        self.alive: list[object] = []

    def add(self, launch: Launch, types: tuple[str, ...]) -> None:
        given = enumerate(zip(launch.args, types))
        words = [self.word(arg, c_type, f"{launch.kernel}.{i}") for i, (arg, c_type) in given]
        self.lines += [f"launch {launch.kernel} {launch.blocks} {len(words)}", *words]

    def word(self, arg: Argument, c_type: str, name: str) -> str:
        if isinstance(arg, Workspace):
            self.buffers.append((None, max(arg.nbytes, 1), False, name))
            return f"gm {len(self.buffers) - 1} 0"
        if isinstance(arg, Out):
            return self.array(arg.array, name, full=False)
        if isinstance(arg, np.ndarray):
            return self.array(arg, name, full=True)
        return f"word {int.from_bytes(_scalar_bytes(arg, c_type), 'little'):016x}"

    def array(self, array: NDArray[Any], name: str, full: bool) -> str:
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if owner.flags.c_contiguous:
            flat = owner.reshape(-1).view(np.uint8)
        elif owner.flags.f_contiguous:
            flat = owner.T.reshape(-1).view(np.uint8)
        else:
            raise UsageError(f"The memory of {name} is not contiguous.")
        if id(owner) not in self.known:
            self.known[id(owner)] = len(self.buffers)
            self.alive.append(owner)
            self.buffers.append((flat, max(flat.nbytes, 1), full and flat.nbytes > 0, name))
        elif full:
            number = self.known[id(owner)]
            self.buffers[number] = (*self.buffers[number][:2], True, name)
        start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
        return f"gm {self.known[id(owner)]} {start}"

    def text(self, seed: int, cubes: int, vectors: int) -> bytes:
        head = [f"seed {seed}", f"cores {cubes} {vectors}"]
        head += [f"buffer {size} {int(full)} {name}" for _, size, full, name in self.buffers]
        contents = [flat.tobytes() for flat, _, full, _ in self.buffers if full and flat is not None]
        return "\n".join([*head, *self.lines, "end", ""]).encode() + b"".join(contents)

    def bring_back(self, answer: bytes) -> None:
        at = 0
        for flat, size, _, _ in self.buffers:
            if flat is not None and flat.nbytes:
                new = np.frombuffer(answer, np.uint8, flat.nbytes, at)
                if flat.flags.writeable:
                    flat[:] = new
                elif not np.array_equal(flat, new):
                    raise UsageError("The kernel wrote to an array that is read-only.")
            at += size


def _scalar_bytes(value: Any, c_type: str) -> bytes:
    if c_type == "float":
        return struct.pack("<f", value)
    if c_type == "double":
        return struct.pack("<d", value)
    if c_type == "half":
        return struct.pack("<e", value)
    if c_type == "bfloat16_t":
        return (int(np.float32(value).view(np.uint32)) >> 16).to_bytes(2, "little")  # the caller gives exact values
    if isinstance(value, (float, np.floating)):
        raise UsageError(f"A parameter of type {c_type} got the float {value!r}.")
    return (int(value) % (1 << 64)).to_bytes(8, "little")


def _signatures(sources: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    found = {}
    for text in sources.values():
        for entry in _ENTRY.finditer(text):
            parameters = [p.strip() for p in entry["parameters"].split(",") if p.strip()]
            found[entry["name"]] = tuple(re.sub(r"\b(const|__gm__)\b|\w+$", "", p).strip() for p in parameters)
    return found


# ------------------------------------------------------------------------------------------------------- compiling


def _units(folder: Path, sources: Mapping[str, str], programs: bool) -> Iterator[str]:
    """Paths of the translation units, relative to the tree; a kernel's unit also makes it callable by name."""
    for name, text in sources.items():
        if programs:
            if Path(name).suffix in (".cpp", ".asc", ".aicpu"):
                yield name
            continue
        entries = [entry["name"] for entry in _ENTRY.finditer(text)]
        if entries:
            unit = f"../{re.sub(r'[^0-9A-Za-z]', '_', name)}.unit.cpp"
            exports = "".join(f"PTO_SHIM_EXPORT({entry});\n" for entry in entries)
            (folder / "src" / unit).write_text(f'#include "{name}"\n{exports}')
            yield unit


_CHEVRONS = re.compile(r"(?P<kernel>[A-Za-z_][\w:]*)\s*<<<(?P<config>[^;]*?)>>>\s*\(")


def _plain(text: str) -> str:
    """Launches in chevrons as the call that stands for them on the host."""
    return _CHEVRONS.sub(lambda m: f"::pto_shim::Chevrons({m['kernel']}, {m['config']})(", text)


def _write_tree(root: Path, sources: Mapping[str, str]) -> None:
    for name, text in sources.items():
        path = root / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UsageError(f"Source path {name!r} leaves the tree.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_plain(text))


def _each(commands: Sequence[list[str]], cwd: Path) -> None:
    """Run compiler commands, two at a time; CompileError with the output of the first that fails."""
    cwd.mkdir(parents=True, exist_ok=True)

    def one(command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=cwd, check=False)
        return "" if done.returncode == 0 else (done.stderr or done.stdout or "the compiler failed without a word")

    with ThreadPoolExecutor(min(len(commands), os.cpu_count() or 1) or 1) as pool:
        for trouble in pool.map(one, commands):
            if trouble:
                text = trouble.strip()[:8000]
                raise CompileError(f"The emitted source does not compile:\n{text}", target="ascend_npu")


def _machine(tool: Compiler) -> list[Path]:
    return _part(tool, "machine", _MACHINE)


def _runner(tool: Compiler) -> list[Path]:
    return _part(tool, "runner", _MAIN)


def _part(tool: Compiler, name: str, text: str) -> list[Path]:
    """Object code of a part of the shim, compiled once per compiler and version of the shim."""
    flags = ["-std=c++17", *WARNINGS, "-O2", "-DPTO_SHIM_SEPARATE"]
    home = _root() / "parts" / _key(tool, " ".join(flags), _shim_digest(), name)
    made = home / f"{name}.o"
    if not made.exists():
        with _workshop(home) as folder:
            (folder / f"{name}.cpp").write_text(text)
            _each([[tool.path, *flags, f"-I{shim_folder()}", "-c", f"{name}.cpp", "-o", f"{name}.o"]], folder)
    return [made]


# ----------------------------------------------------------------------------------------------------------- cache


@cache
def _root() -> Path:
    """Where compiled programs are kept: the variable, else the user's cache, else (read-only home) for this process."""
    root = Path(os.environ.get(VARIABLE) or os.path.expanduser("~/.cache/pto_wsp/host"))
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(root, os.W_OK):
            return root
    except OSError:
        pass
    folder = tempfile.mkdtemp(prefix="pto_wsp_host_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _flat(sources: Mapping[str, str]) -> Iterator[str]:
    for name, text in sources.items():
        yield name
        yield text


def _key(tool: Compiler, *parts: str) -> str:
    state = blake2b(digest_size=16)
    for part in (tool.path, tool.version, *parts):
        data = part.encode(errors="surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


@cache
def _shim_digest() -> str:
    state = blake2b(digest_size=16)
    for path in sorted(shim_folder().rglob("*.h")):
        state.update(str(path.relative_to(shim_folder())).encode())
        state.update(path.read_bytes())
    return state.hexdigest()


class _workshop:
    """A fresh folder that becomes `home` when all went well; another process may have been faster."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __enter__(self) -> Path:
        self.home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _prune(self.home.parent)
        self.folder = Path(tempfile.mkdtemp(prefix=".new_", dir=self.home.parent))
        return self.folder

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            try:
                self.folder.rename(self.home)
            except OSError:
                if not self.home.exists():
                    raise
        shutil.rmtree(self.folder, ignore_errors=True)


def _mark_used(home: Path) -> None:
    try:
        os.utime(home)
    except OSError:
        pass  # somebody else's cache, or gone: only its age is at stake


def _prune(folder: Path) -> None:
    """Keep the programs used last; also drop what a dead process left half made."""
    entries = []
    for path in folder.iterdir():
        try:
            entries.append((path.stat().st_mtime, path))
        except OSError:
            continue  # finished, or dropped, by another process just now
    old = sorted(entries)[: max(0, len(entries) - _KEPT)]
    left = [(at, path) for at, path in entries if path.name.startswith(".new_") and at < time.time() - 3600]
    for _, path in old + left:
        shutil.rmtree(path, ignore_errors=True)
