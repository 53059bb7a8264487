"""A tree of sources in a folder: all of it or nothing, and never in place of something that somebody else wrote.

A folder is ours when its `manifest.json` says so; the manifest lists every file with its digest, so that files which
were edited or added since can be named. Start reading at `write`.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pto_wsp.errors import CompileError

__all__ = ["MANIFEST", "SCHEMA", "default_folder", "digest", "sealed", "write"]

MANIFEST = "manifest.json"
SCHEMA = "pto_wsp/ascend-project/1"
VARIABLE = "PTO_WSP_CODEGEN_CACHE_DIR"
_KEPT = 200  # trees in the default place
_NAMED = 8  # files that a message lists


def digest(text: str) -> str:
    """Of a file's text, as the manifest has it."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def sealed(sources: Mapping[str, str], description: Mapping[str, Any]) -> dict[str, str]:
    """The sources and their manifest: `description`, and the digest of every file. Sorted by path."""
    files = {path: digest(sources[path]) for path in sorted(sources)}
    manifest = {"schema": SCHEMA, **description, "files": files}
    text = json.dumps(manifest, indent=2, ensure_ascii=True) + "\n"
    return dict(sorted({**sources, MANIFEST: text}.items()))


def default_folder(name: str, sources: Mapping[str, str]) -> Path:
    """Where a tree goes that was given no folder: named by its contents, under the root of the cache."""
    root = os.environ.get(VARIABLE) or os.path.expanduser("~/.cache/pto_wsp/codegen")
    if root.startswith("~"):
        raise CompileError(
            f"this user has no home folder to write the sources to: set {VARIABLE}, or name a folder with "
            "compile(target='ascend_npu', folder=...)"
        )
    return Path(root).absolute() / "ascend" / f"{name}-{digest(sources[MANIFEST])}"


def write(sources: Mapping[str, str], folder: str | os.PathLike[str] | None, name: str) -> Path:
    """Write a sealed tree; returns the absolute path of its folder.

    folder  None: `default_folder`. Folders above it are made. An empty folder is filled. A tree that we wrote, and that
            nobody touched since, is replaced; folders of CMake in it (with a CMakeCache.txt) stay.
    raises  CompileError when the folder is somebody else's, or cannot be written; then nothing has changed
    """
    place = default_folder(name, sources) if folder is None else _as_path(folder)
    try:
        if not _is_there(place, sources):
            _replace(place, sources)
        if folder is None:
            os.utime(place)
            _prune(place)
    except OSError as error:
        advice = "Name another one with compile(target='ascend_npu', folder=...)"
        advice += f", or set {VARIABLE}." if folder is None else "."
        raise CompileError(f"the sources cannot be written to {place}: {error.strerror or error}. {advice}") from error
    return place


def _as_path(folder: Any) -> Path:
    try:
        text = os.fspath(folder)
    except TypeError:
        raise CompileError(f"folder is a path, a str or a pathlib.Path; got {folder!r}") from None
    if not isinstance(text, str) or not text or "\0" in text:
        raise CompileError(f"folder={folder!r} is no path of a folder")
    return Path(os.path.realpath(os.path.expanduser(text)))


# ---- what is there ----------------------------------------------------------------------------------------------


def _is_there(place: Path, sources: Mapping[str, str]) -> bool:
    """Does the folder hold exactly these sources?

    raises  CompileError when it holds something that must not be replaced
    """
    if not os.path.lexists(place):
        return False
    if not place.is_dir():
        raise CompileError(f"{place} is a file; name a folder for the sources")
    if not any(place.iterdir()):
        return False
    listed = _listed(place)
    if listed is None:
        raise CompileError(
            f"{place} holds files that pto_wsp did not write, so nothing was written there. Name a folder that is "
            "empty or does not exist"
        )
    found = dict(_found(place))
    edited = sorted(path for path in listed.keys() & found.keys() if found[path] != listed[path])
    added = sorted(found.keys() - listed.keys() - {MANIFEST})
    if edited or added:
        what = [f"{verb}: {_few(paths)}" for verb, paths in (("edited", edited), ("added", added)) if paths]
        raise CompileError(
            f"files in {place} were changed since pto_wsp wrote them ({'; '.join(what)}), so nothing was written "
            "there. Move them away, or name another folder"
        )
    manifest = (place / MANIFEST).read_bytes()
    return found.keys() == sources.keys() and manifest == sources[MANIFEST].encode()


def _listed(place: Path) -> dict[str, str] | None:
    """The files of the manifest, path -> digest; None when there is no manifest of ours."""
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        return None
    files = manifest.get("files")
    return files if isinstance(files, dict) else None


def _found(place: Path) -> Iterator[tuple[str, str]]:
    """Relative path and digest of everything in the folder, but for what CMake built."""
    for folder, folders, files in os.walk(place):
        here = Path(folder)
        if here.parent == place and "CMakeCache.txt" in files:
            folders.clear()
            continue
        links = [name for name in folders if (here / name).is_symlink()]
        for name in [*files, *links]:
            path = here / name
            plain = stat.S_ISREG(path.lstat().st_mode)
            yield path.relative_to(place).as_posix(), _digest_of(path) if plain else "not a file"
        if here != place and not files and not folders:
            yield here.relative_to(place).as_posix() + "/", "an empty folder"


def _digest_of(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _few(paths: list[str]) -> str:
    shown = [path if path.isprintable() else repr(path) for path in paths[:_NAMED]]
    return ", ".join(shown) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")


# ---- writing ----------------------------------------------------------------------------------------------------


def _replace(place: Path, sources: Mapping[str, str]) -> None:
    """Put a new folder in the place of one that may be replaced, or of none."""
    made = _make_above(place)
    try:
        new = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}.", dir=place.parent))
        try:
            _fill(new, sources)
            _swap(new, place, sources)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except BaseException:
        for folder in reversed(made):
            try:
                folder.rmdir()
            except OSError:
                break
        raise


def _make_above(place: Path) -> list[Path]:
    """Make the folders above; those that were missing, outermost first."""
    missing = []
    above = place.parent
    while not above.exists():
        missing.append(above)
        above = above.parent
    missing.reverse()
    for folder in missing:
        folder.mkdir(exist_ok=True)
    return missing


def _fill(new: Path, sources: Mapping[str, str]) -> None:
    for name, text in sources.items():
        path = new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    os.chmod(new, 0o777 & ~_umask())  # mkdtemp makes it for its owner alone


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _swap(new: Path, place: Path, sources: Mapping[str, str]) -> None:
    """`new` becomes `place`; what CMake built in the old tree moves over."""
    try:
        new.rename(place)  # there was none, or an empty folder
        return
    except OSError:
        if not place.is_dir():
            raise
    if _is_there(place, sources):  # another process was faster
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}.old.", dir=place.parent))
    try:
        place.rename(old)
        try:
            new.rename(place)
        except BaseException:
            old.rename(place)
            raise
        for cache in sorted(old.glob("*/CMakeCache.txt")):
            cache.parent.rename(place / cache.parent.name)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _prune(place: Path) -> None:
    """Keep the trees used last in the default place, and any that somebody has touched."""
    try:
        trees = [path for path in place.parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
        trees.sort(key=lambda path: path.stat().st_mtime)
    except OSError:  # another process prunes, too
        return
    for tree in trees[: max(0, len(trees) - _KEPT)]:
        listed = _listed(tree)
        if listed is not None and {path: d for path, d in _found(tree) if path != MANIFEST} == listed:
            shutil.rmtree(tree, ignore_errors=True)
