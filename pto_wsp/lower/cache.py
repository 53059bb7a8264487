"""Object code on disk, so that a program compiles once per machine and not once per process.

A file holds one object, named by a hash of all that determines it; see `key_of`. Nothing in it is ever executed or
unpickled before its checksum and its key are known to be right, and any damage is a miss, never an error. The folder
belongs to the user alone; if it does not (a link, another owner, others may write to it), there is no cache.
"""

from __future__ import annotations

import os
import platform
import stat
import sys
import time
from functools import cache
from pathlib import Path

try:
    from _blake2 import blake2b  # the same function; hashlib would load OpenSSL first, which costs 6 ms
except ImportError:
    from hashlib import blake2b

__all__ = ["Cache", "default_root", "key_of"]

FORMAT = b"pto_wsp object 1\n"
VARIABLE = "PTO_WSP_CODEGEN_CACHE_DIR"
LIMIT = 256 << 20  # bytes
_DIGEST = 32
_HEAD = len(FORMAT) + 2 * _DIGEST
_UNUSABLE = (OSError, AttributeError, NotImplementedError)  # the latter on systems without folders opened as files
_STALE = 3600.0  # seconds after which an unfinished file was left behind by a process that died
_EVERY = 64  # stores between looks at the size of the folder


def default_root() -> Path:
    """Where files are kept: the variable PTO_WSP_CODEGEN_CACHE_DIR, else ~/.cache/pto_wsp/codegen."""
    return Path(os.environ.get(VARIABLE) or os.path.expanduser("~/.cache/pto_wsp/codegen"))


def key_of(text: str, target: tuple[str, str, str]) -> bytes:
    """Digest of all that determines object code: the text it is made from, the target (triple, CPU, features; empty
    ones mean this machine's), LLVM, and the sources of the compiler itself."""
    parts = [text, *target, *_toolchain()]
    if not all(target[:2]):
        parts.append(_host())
    return _digest(*(part.encode(errors="surrogatepass") for part in parts))


def _digest(*parts: bytes) -> bytes:
    state = blake2b(digest_size=_DIGEST)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


@cache
def _toolchain() -> tuple[str, ...]:
    """Versions of LLVM and of this compiler: a file that has changed is another version."""
    import llvmlite

    package = Path(__file__).parent.parent
    libraries = sorted(Path(llvmlite.__file__).parent.glob("binding/*llvmlite*"))
    sources = sorted(p for room in ("lower", "trace") for p in (package / room).glob("*.py"))
    return (llvmlite.__version__, *(_identity(path) for path in (*libraries, *sources)))


def _identity(path: Path) -> str:
    found = path.stat()
    return f"{path.name} {found.st_size} {found.st_mtime_ns}"


@cache
def _host() -> str:
    """What this machine's CPU is and can do, without asking LLVM, whose import would cost more than a load."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU", "Features")
    try:
        with open("/proc/cpuinfo", "rb") as file:
            first = file.read(1 << 15).decode(errors="replace").split("\n\n")[0]
    except OSError:
        first = ""
    lines = [line for line in first.splitlines() if line.startswith(wanted)]
    if not lines:
        import llvmlite.binding as llvm

        lines = [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    return "\n".join([platform.machine(), sys.platform, *lines])


class Cache:
    """The objects of one folder. Every method is safe to call from any number of threads and processes at once.

    root   the folder; its sub-folder "objects" is made, for this user alone, when it is missing
    limit  bytes; when there is more, the objects that were not used for the longest time go
    """

    def __init__(self, root: Path | None = None, limit: int = LIMIT) -> None:
        self.root = root if root is not None else default_root()
        self.limit = limit
        self._stores = 0

    def load(self, key: bytes) -> bytes | None:
        """The object stored under a key; None if there is none, or if anything about it is wrong."""
        try:
            folder = self._open_folder(create=False)
        except _UNUSABLE:
            return None
        try:
            return _read(folder, key)
        except OSError:
            return None
        finally:
            os.close(folder)

    def store(self, key: bytes, code: bytes) -> bool:
        """Keep an object; False where that is not possible."""
        try:
            folder = self._open_folder(create=True)
        except _UNUSABLE:
            return False
        try:
            _write(folder, key, code)
            if self._stores % _EVERY == 0:
                _evict(folder, self.limit)
            self._stores += 1
            return True
        except OSError:
            return False
        finally:
            os.close(folder)

    def _open_folder(self, create: bool) -> int:
        """The folder, open, and known to be the user's own.

        raises  one of _UNUSABLE
        """
        if str(self.root).startswith("~"):
            raise FileNotFoundError("this user has no home folder")
        if create:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        root = os.open(self.root, flags)
        try:
            _check_owner(root, forbidden=0o022)
            if create:
                try:
                    os.mkdir("objects", 0o700, dir_fd=root)
                except FileExistsError:
                    pass
            folder = os.open("objects", flags, dir_fd=root)
        finally:
            os.close(root)
        try:
            _check_owner(folder, forbidden=0o077)
        except OSError:
            os.close(folder)
            raise
        return folder


def _check_owner(descriptor: int, forbidden: int) -> None:
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & forbidden:
        raise PermissionError("the code cache is not this user's own")


def _read(folder: int, key: bytes) -> bytes | None:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(key.hex(), flags, dir_fd=folder)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size > LIMIT:
            return None
        data = file.read()
        head, code = data[:_HEAD], data[_HEAD:]
        if head != _head(key, code):
            return None
        os.utime(descriptor)
    return code


def _head(key: bytes, code: bytes) -> bytes:
    return FORMAT + key + _digest(key, code)


def _write(folder: int, key: bytes, code: bytes) -> None:
    """All or nothing: another process sees the old file or the new one."""
    name = f".{key.hex()[:16]}.{os.getpid()}.{time.monotonic_ns()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(_head(key, code) + code)
        os.replace(name, key.hex(), src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise


def _evict(folder: int, limit: int) -> None:
    """Delete unfinished files of dead processes, and the least recently used objects beyond the limit."""
    now, files = time.time(), []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:  # just deleted by another process
                continue
            if not entry.name.startswith("."):
                files.append((found.st_mtime, found.st_size, entry.name))
            elif now - found.st_mtime > _STALE:
                _delete(folder, entry.name)
    total = sum(size for _, size, _ in files)
    for _, size, name in sorted(files):
        if total <= limit:
            break
        _delete(folder, name)
        total -= size


def _delete(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        pass
