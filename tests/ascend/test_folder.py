"""A tree in a folder: all or nothing, never over somebody else's files."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from pto_wsp.ascend import folder
from pto_wsp.errors import CompileError

TREE = folder.sealed({"a.txt": "one\n", "b/c.h": "// two\n"}, {"program": "p"})
OTHER = folder.sealed({"a.txt": "uno\n", "d.h": "// three\n"}, {"program": "p"})


def contents(path: Path) -> dict[str, str]:
    return {p.relative_to(path).as_posix(): p.read_text() for p in path.rglob("*") if p.is_file()}


def refused(sources: dict[str, str], path: object, match: str, parent: Path | None = None) -> None:
    before = contents(parent) if parent is not None else None
    with pytest.raises(CompileError, match=match):
        folder.write(sources, path, "p")  # type: ignore[arg-type]
    assert before is None or contents(parent) == before  # type: ignore[arg-type]


def test_manifest_lists_every_file() -> None:
    manifest = json.loads(TREE["manifest.json"])
    assert manifest["schema"] == folder.SCHEMA and manifest["program"] == "p"
    assert manifest["files"] == {"a.txt": folder.digest("one\n"), "b/c.h": folder.digest("// two\n")}


def test_new_and_unchanged(tmp_path: Path) -> None:
    place = folder.write(TREE, tmp_path / "new" / "deep", "p")
    assert place == tmp_path / "new" / "deep" and contents(place) == TREE
    assert stat.S_IMODE(place.stat().st_mode) == stat.S_IMODE((tmp_path / "new").stat().st_mode)
    inode = (place / "a.txt").stat().st_ino
    folder.write(TREE, place, "p")
    assert (place / "a.txt").stat().st_ino == inode  # nothing was written
    assert [p.name for p in place.parent.iterdir()] == ["deep"]


def test_our_own_tree_is_replaced(tmp_path: Path) -> None:
    place = folder.write(TREE, tmp_path / "x", "p")
    build = place / "build"
    build.mkdir()
    (build / "CMakeCache.txt").write_text("cache")
    (build / "program").write_text("binary")
    folder.write(OTHER, place, "p")
    assert contents(place) == {**OTHER, "build/CMakeCache.txt": "cache", "build/program": "binary"}
    (place / "a.txt").unlink()  # a missing file is written again
    folder.write(OTHER, place, "p")
    assert (place / "a.txt").read_text() == "uno\n"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert contents(folder.write(TREE, tmp_path, "p")) == TREE


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    refused(TREE, tmp_path, "did not write", tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": "somebody else\'s"}')
    refused(TREE, tmp_path, "did not write", tmp_path)
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    refused(TREE, tmp_path, "did not write", tmp_path)


def test_changed_files_are_named(tmp_path: Path) -> None:
    place = folder.write(TREE, tmp_path / "x", "p")
    (place / "a.txt").write_text("my work")
    refused(OTHER, place, r"edited: a\.txt\)", tmp_path)
    refused(TREE, place, r"edited: a\.txt\)", tmp_path)
    (place / "b" / "new\n.h").write_text("my work")
    refused(OTHER, place, r"edited: a\.txt; added: 'b/new\\n\.h'", tmp_path)
    (place / "a.txt").write_text("one\n")
    (place / "b" / "new\n.h").unlink()
    (place / "empty").mkdir()
    refused(OTHER, place, r"added: empty/", tmp_path)
    (place / "empty").rmdir()
    (place / "link").symlink_to("b")
    refused(OTHER, place, r"added: link", tmp_path)


@pytest.mark.parametrize("path", [3, "", "a\0b", b"bytes", None.__class__])
def test_no_path(path: object) -> None:
    refused(TREE, path, "folder is a path|is no path")


def test_places_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused(TREE, tmp_path / "file", "is a file", tmp_path)
    refused(TREE, tmp_path / "file" / "below", "cannot be written to .*Not a directory", tmp_path)
    refused(TREE, tmp_path / ("n" * 300), "cannot be written to .*too long", tmp_path)
    refused(TREE, "/proc/nothing/here", "cannot be written to /proc")
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert folder.write(TREE, tmp_path / "link", "p") == tmp_path / "real"
    folder.write(OTHER, tmp_path / "link", "p")
    assert (tmp_path / "link").is_symlink() and contents(tmp_path / "real") == OTHER


def test_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("with space", "ünïcode 火", "-rf", "a'b\"c", "."):
        if name != ".":
            assert folder.write(TREE, name, "p") == tmp_path / name
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder.write(TREE, "~/x", "p") == tmp_path / "home" / "x"


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder.write(TREE, tmp_path / "x", "p")
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "d.h":
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    refused(OTHER, place, "No space left", tmp_path)
    refused(OTHER, tmp_path / "a" / "b" / "c", "No space left", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["x"]


def test_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTO_WSP_CODEGEN_CACHE_DIR", str(tmp_path))
    place = folder.write(TREE, None, "p")
    assert place.parent == tmp_path / "ascend" and place.name.startswith("p-")
    assert folder.write(TREE, None, "p") == place != folder.write(OTHER, None, "p")
    monkeypatch.setattr(folder, "_KEPT", 1)
    (place / "a.txt").write_text("my work")  # stays, whatever its age
    trees = [folder.sealed({"a": str(n)}, {}) for n in range(3)]
    for tree in trees:
        last = folder.write(tree, None, "p")
    assert sorted(p.name for p in place.parent.iterdir()) == sorted([place.name, last.name])
    monkeypatch.delenv("PTO_WSP_CODEGEN_CACHE_DIR")
    monkeypatch.setenv("HOME", "/proc/nobody")
    refused(TREE, None, "set PTO_WSP_CODEGEN_CACHE_DIR")


def test_many_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(tree: dict[str, str]) -> None:
        try:
            for _ in range(5):
                folder.write(tree, tmp_path / "x", "p")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(tree,)) for tree in (TREE, TREE, TREE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and contents(tmp_path) == {f"x/{name}": text for name, text in TREE.items()}
