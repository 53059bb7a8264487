"""The code cache: content in, the same content out, and whatever is wrong with it is a miss."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pto_wsp.lower import cache, jit
from pto_wsp.lower.cache import Cache, key_of

KEY, OTHER = key_of("some text", ("", "", "")), key_of("other text", ("", "", ""))
CODE = bytes(range(256)) * 20

needs_users = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the cache needs POSIX owners and modes")
pytestmark = needs_users


@pytest.fixture
def folder(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "code")


def file_of(folder: Cache, key: bytes = KEY) -> Path:
    return folder.root / "objects" / key.hex()


def test_what_goes_in_comes_out(folder):
    assert folder.load(KEY) is None
    assert folder.store(KEY, CODE)
    assert folder.load(KEY) == CODE
    assert folder.load(OTHER) is None
    assert folder.store(KEY, b"newer")
    assert folder.load(KEY) == b"newer"


def test_folder_is_for_the_owner_only(folder):
    folder.store(KEY, CODE)
    assert stat.S_IMODE((folder.root / "objects").stat().st_mode) == 0o700
    assert stat.S_IMODE(file_of(folder).stat().st_mode) == 0o600


def test_key_depends_on_everything():
    targets = (("", "", ""), ("", "x", ""), ("t", "", ""), ("", "", "f"))
    assert len({key_of(text, target) for text in ("a", "b") for target in targets}) == 8
    assert key_of("a", ("b", "", "")) != key_of("ab", ("", "", ""))


def test_key_depends_on_versions(monkeypatch):
    before = key_of("text", ("", "", ""))
    monkeypatch.setattr(cache, "_toolchain", lambda: ("another LLVM",))
    assert key_of("text", ("", "", "")) != before


def test_key_depends_on_the_cpu(monkeypatch):
    before, named = key_of("text", ("", "", "")), key_of("text", ("t", "cpu", ""))
    monkeypatch.setattr(cache, "_host", lambda: "another machine")
    assert key_of("text", ("", "", "")) != before
    assert key_of("text", ("t", "cpu", "")) == named


@given(data=st.data())
def test_any_damage_is_a_miss(tmp_path_factory, data):
    folder = Cache(tmp_path_factory.mktemp("cache"))
    folder.store(KEY, CODE[:300])
    file = file_of(folder)
    whole = file.read_bytes()
    if data.draw(st.booleans(), label="cut"):
        broken = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        broken = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    file.write_bytes(broken)
    assert folder.load(KEY) is None
    assert folder.store(KEY, CODE)
    assert folder.load(KEY) == CODE


def test_file_under_another_name_is_a_miss(folder):
    folder.store(KEY, CODE)
    file_of(folder).rename(file_of(folder, OTHER))
    assert folder.load(OTHER) is None


def test_things_that_are_not_files_are_misses(folder):
    folder.store(OTHER, CODE)
    file_of(folder).mkdir()
    assert folder.load(KEY) is None
    file_of(folder).rmdir()
    file_of(folder).symlink_to(file_of(folder, OTHER))
    assert folder.load(KEY) is None
    file_of(folder).unlink()
    os.mkfifo(file_of(folder))
    assert folder.load(KEY) is None


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755, 0o701])
def test_folder_open_to_others_is_not_used(folder, mode):
    folder.store(KEY, CODE)
    (folder.root / "objects").chmod(mode)
    assert folder.load(KEY) is None
    assert not folder.store(OTHER, CODE)
    assert not file_of(folder, OTHER).exists()


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_root_that_others_may_write_to_is_not_used(folder, mode):
    folder.store(KEY, CODE)
    folder.root.chmod(mode)
    assert folder.load(KEY) is None
    assert not folder.store(OTHER, CODE)


def test_links_are_not_followed(tmp_path):
    real = Cache(tmp_path / "real")
    real.store(KEY, CODE)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Cache(tmp_path / "link").load(KEY) is None
    assert not Cache(tmp_path / "link").store(OTHER, CODE)
    (tmp_path / "inner").mkdir(0o700)
    (tmp_path / "inner" / "objects").symlink_to(tmp_path / "real" / "objects")
    assert Cache(tmp_path / "inner").load(KEY) is None
    assert not Cache(tmp_path / "inner").store(OTHER, CODE)
    assert not file_of(real, OTHER).exists()


def test_another_owners_folder_is_not_used(folder, monkeypatch):
    folder.store(KEY, CODE)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert folder.load(KEY) is None
    assert not folder.store(OTHER, CODE)


@pytest.mark.parametrize("root", ["/dev/null/x", "/proc/nothing", "/dev/null", "~nobody-there/x"])
def test_impossible_folders_mean_no_cache(root):
    folder = Cache(Path(root))
    assert folder.load(KEY) is None
    assert not folder.store(KEY, CODE)


def test_variable_names_the_folder(monkeypatch):
    monkeypatch.setenv("PTO_WSP_CODEGEN_CACHE_DIR", "/somewhere/else")
    assert cache.default_root() == Path("/somewhere/else")
    monkeypatch.delenv("PTO_WSP_CODEGEN_CACHE_DIR")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.default_root() == Path("/home/someone/.cache/pto_wsp/codegen")


def test_least_recently_used_go_first(tmp_path):
    folder = Cache(tmp_path / "code", limit=5 * (len(CODE) + 200))
    keys = [key_of(f"text {i}", ("", "", "")) for i in range(8)]
    for age, key in enumerate(keys):
        folder.store(key, CODE)
        when = 1_000_000 + age
        os.utime(file_of(folder, key), (when, when))
    assert folder.load(keys[0]) == CODE  # used just now
    Cache(folder.root, folder.limit).store(OTHER, CODE)
    kept = [key in keys and file_of(folder, key).exists() for key in keys]
    assert kept == [True, False, False, False, False, True, True, True]
    assert folder.load(OTHER) == CODE


def test_leftovers_of_dead_processes_are_removed(folder):
    folder.store(OTHER, CODE)
    old, new = folder.root / "objects" / ".old", folder.root / "objects" / ".new"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (1, 1))
    Cache(folder.root).store(KEY, CODE)
    assert not old.exists()
    assert new.exists()


def test_writers_and_readers_side_by_side(folder):
    wrong: list[object] = []

    def work(k: int) -> None:
        mine = Cache(folder.root)
        for i in range(50):
            mine.store(KEY, CODE)
            found = mine.load(KEY)
            if found != CODE:
                wrong.append((k, i, found))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_failed_write_leaves_nothing(folder, monkeypatch):
    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    folder.store(OTHER, CODE)
    monkeypatch.setattr(os, "replace", full)
    assert not folder.store(KEY, CODE)
    assert [f.name for f in (folder.root / "objects").iterdir()] == [OTHER.hex()]


ADD = "define i64 @f(i64 %a) {\n %b = add i64 %a, 5\n ret i64 %b\n}\n"


def result_of(code: jit.Code) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address("f"))(37))


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x7fELF" * 500])
def test_damaged_code_is_compiled_again(empty_cache, damage):
    text = ADD + f"; {damage!r}\n"
    assert result_of(jit.load(text)) == 42
    (file,) = (empty_cache / "objects").iterdir()
    file.write_bytes(damage)
    code = jit.load(text)
    assert code.origin == "compiled"
    assert result_of(code) == 42


def test_without_a_cache_programs_still_compile(empty_cache):
    empty_cache.mkdir()
    empty_cache.chmod(0o777)
    code = jit.load(ADD + "; no cache\n")
    assert (code.origin, result_of(code)) == ("compiled", 42)
    assert list(empty_cache.iterdir()) == []


def test_another_process_finds_it_and_needs_no_llvm(empty_cache):
    program = f"""
import sys
from pto_wsp.lower import jit
print(jit.load({ADD!r}).origin, "llvmlite.binding" in sys.modules)
"""
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert runs == [["compiled", "True"], ["disk", "False"]]
