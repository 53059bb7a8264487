"""LLVM text to machine code: linked where it runs, shared between programs, freed with the last of them."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from pto_wsp.errors import CompileError
from pto_wsp.lower import copies, image, jit

ADD = """
define i64 @add(i64 %a, i64 %b) {
  %c = add i64 %a, %b
  ret i64 %c
}
"""

# A constant table, a call between functions, a switch (a jump table), library calls: every relocation a kernel needs.
MANY = """
@squares = private constant [5 x i64] [i64 0, i64 1, i64 4, i64 9, i64 16]
@scale = private constant double 2.5
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define i64 @square(i64 %i) noinline {
  %at = getelementptr i64, ptr @squares, i64 %i
  %found = load i64, ptr %at
  ret i64 %found
}
define i64 @choose(i64 %i) {
entry:
  switch i64 %i, label %other [i64 0, label %a
                               i64 1, label %b
                               i64 2, label %c
                               i64 3, label %d
                               i64 4, label %e]
a:
  %ra = call i64 @square(i64 4)
  ret i64 %ra
b:
  %rb = call i64 @square(i64 3)
  ret i64 %rb
c:
  %rc = call i64 @square(i64 2)
  %rc2 = mul i64 %rc, 7
  ret i64 %rc2
d:
  %rd = call i64 @square(i64 %i)
  %rd2 = sub i64 %rd, 100
  ret i64 %rd2
e:
  ret i64 77
other:
  ret i64 -1
}
define double @scaled(double %x) {
  %s = load volatile double, ptr @scale
  %y = fmul double %x, %s
  ret double %y
}
define void @fill(ptr %to, ptr %from, i64 %n) {
  call void @llvm.memset.p0.i64(ptr %to, i8 7, i64 %n, i1 false)
  %half = lshr i64 %n, 1
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %half, i1 false)
  ret void
}
"""


def function(code: jit.Code, name: str, result: object, *arguments: object) -> object:
    return ctypes.CFUNCTYPE(result, *arguments)(code.address(name))


def check_many(code: jit.Code) -> None:
    choose = function(code, "choose", ctypes.c_int64, ctypes.c_int64)
    assert [choose(i) for i in range(-1, 6)] == [-1, 16, 9, 28, -91, 77, -1]
    assert function(code, "scaled", ctypes.c_double, ctypes.c_double)(3.0) == 7.5
    to, source = np.zeros(1000, np.uint8), np.full(1000, 3, np.uint8)
    fill = function(code, "fill", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    fill(to.ctypes.data, source.ctypes.data, 900)
    assert (to == np.repeat(np.array([3, 7, 0], np.uint8), [450, 450, 100])).all()


def test_runs():
    code = jit.load(ADD)
    assert function(code, "add", ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(40, 2) == 42


def test_every_kind_of_reference():
    check_many(jit.load(MANY))


def test_llvms_own_loader_gives_the_same(monkeypatch):
    """What other architectures use."""
    monkeypatch.setattr(image, "can_link", lambda code: False)
    check_many(jit.load(MANY + "; linked by LLVM\n"))


def test_unknown_function():
    with pytest.raises(KeyError):
        jit.load(ADD).address("subtract")


def test_second_load_shares_and_the_cache_remembers(empty_cache):
    text = ADD + "; shared\n"
    first = jit.load(text)
    second = jit.load(text)
    assert (first.origin, second.origin) == ("compiled", "process")
    assert first.address("add") == second.address("add")
    del first, second
    gc.collect()
    assert jit.load(text).origin == "disk"


def test_memory_is_freed_with_the_last_owner(empty_cache):
    first = jit.load(ADD + "; freed\n")
    second = jit.load(ADD + "; freed\n")
    memory = weakref.ref(first._image)
    del first
    gc.collect()
    assert memory() is not None
    assert function(second, "add", ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(1, 2) == 3
    del second
    gc.collect()
    assert memory() is None


def test_many_loads_do_not_pile_up(empty_cache):
    """Each load frees its memory: the address space does not fill with code."""

    def executable() -> int:
        with open("/proc/self/maps") as file:
            return sum(line.split()[1].startswith("r-x") for line in file)

    gc.collect()  # code that earlier tests have left
    before = executable()
    kept = [jit.load(ADD + f"; kept {i}\n") for i in range(20)]
    assert executable() >= before + len(kept)
    del kept
    for i in range(200):
        jit.load(ADD + f"; {i}\n")
    gc.collect()
    assert executable() < before + 10


def test_ir_is_made_only_when_needed(empty_cache):
    made = []

    def make() -> str:
        made.append(1)
        return ADD

    text = "the printed graph of a kernel"
    code = jit.load(text, make)
    address = code.address("add")
    assert jit.load(text, make).address("add") == address
    assert made == [1]
    assert "define i64 @add" in code.ir
    assert code.asm.count("add:") == 1


def test_text_is_the_key(empty_cache):
    one, two = jit.load("graph one", lambda: ADD), jit.load("graph two", lambda: ADD.replace("= add", "= sub"))
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    assert (kind(one.address("add"))(5, 3), kind(two.address("add"))(5, 3)) == (8, 2)


@pytest.mark.parametrize("text", ["define i64 @broken(", "define void @f() { ret i64 3 }", "not LLVM at all"])
def test_bad_text_is_a_compile_error(text):
    with pytest.raises(CompileError, match="LLVM IR is not valid"):
        jit.load(text)


def test_only_exact_library_functions_can_be_called():
    text = """
    declare double @sin(double)
    define double @f(double %x) {
      %y = call double @sin(double %x)
      ret double %y
    }"""
    with pytest.raises(CompileError, match="calls sin, which kernels may not call"):
        jit.load(text)


@pytest.mark.parametrize("value", ["zeroinitializer", "5"])
def test_variables_are_refused(value):
    """Threads would share them, and their memory is not writable."""
    text = f"@count = global i64 {value}\ndefine void @f() {{\n  store i64 3, ptr @count\n  ret void\n}}\n"
    with pytest.raises(CompileError, match="variables of its own"):
        jit.load(text)


def test_refused_code_stays_refused():
    """Also when the object comes from the cache."""
    text = "declare float @expf(float)\ndefine float @f(float %x) {\n %y = call float @expf(float %x)\n ret float %y\n}"
    for _ in range(2):
        with pytest.raises(CompileError, match="expf"):
            jit.load(text)


@pytest.mark.parametrize(
    "target, register",
    [
        (jit.Target(cpu="x86-64"), "xmm"),
        (jit.Target(cpu="x86-64-v3"), "ymm"),
        (jit.Target(cpu="x86-64-v4"), "zmm"),
        (jit.Target("aarch64-linux-gnu", cpu="neoverse-n1"), "v0.4s"),
    ],
)
def test_other_targets_as_text(target, register):
    if not target.triple and platform.machine() != "x86_64":
        pytest.skip("x86 names")
    text = """
    define void @add(ptr %p) {
      %a = load <16 x float>, ptr %p, align 4
      %b = fadd <16 x float> %a, %a
      store <16 x float> %b, ptr %p, align 4
      ret void
    }"""
    assert register in jit.assembly(text, target)


def test_targets_do_not_share_code(empty_cache):
    if platform.machine() != "x86_64":
        pytest.skip("x86 names")
    host, plain = jit.load(ADD), jit.load(ADD, target=jit.Target(cpu="x86-64"))
    assert host.address("add") != plain.address("add")


def test_unknown_target():
    with pytest.raises(CompileError, match="knows no target"):
        jit.assembly(ADD, jit.Target("no-such-machine"))


def test_the_cpu_can_be_named(monkeypatch):
    """PTO_WSP_CPU is read when the package is imported."""
    if platform.machine() != "x86_64":
        pytest.skip("x86 names")
    code = f"from pto_wsp.lower import jit; print(jit.HOST.cpu, jit.load({ADD!r}).target.cpu, jit.cpu_features()[1])"
    monkeypatch.setenv("PTO_WSP_CPU", "x86-64-v2")
    found = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True).stdout
    assert found.split() == ["x86-64-v2", "x86-64-v2", jit.LEVELS["x86-64-v2"]]
    monkeypatch.setenv("PTO_WSP_CPU", "x86-64-v9")
    found = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=False).stderr
    assert "no CPU 'x86-64-v9' is known, perhaps from PTO_WSP_CPU; there are x86-64, x86-64-v2" in found


def test_code_that_cannot_run_here(empty_cache):
    with pytest.raises(CompileError, match="cannot run code for future: it lacks teleport"):
        jit.load(ADD, target=jit.Target(cpu="future", features="+teleport"))


def test_phases_are_timed(empty_cache):
    code = jit.load(ADD + "; timed\n")
    assert {"parse", "optimise", "machine code", "link"} <= code.phases.keys()
    assert all(spent >= 0 for spent in code.phases.values())


def test_shared_functions_are_timed_with_the_code_that_needs_them_first(monkeypatch, empty_cache):
    """Not as linking."""
    text = f"""
declare void @pto_wsp_copy_2(ptr, i64, i64, ptr, i64, i64, i64, i64)
define i64 @kept() {{
  ret i64 ptrtoint (ptr @pto_wsp_copy_2 to i64)
}}
; {time.time_ns()}
"""
    monkeypatch.setattr(copies, "_CODES", {})
    monkeypatch.setattr(jit, "_LOADED", {})  # another test may have needed it before
    first = jit.load(text)
    made = copies._CODES["pto_wsp_copy_2"]
    assert made.origin == "compiled"
    assert first.phases["machine code"] > made.phases["machine code"]
    assert first.phases["link"] > made.phases["link"]
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(first.address("kept"))() != 0
    assert copies.prepare("pto_wsp_copy_2") == {}


def test_ctrl_c_waits_for_llvm(monkeypatch, empty_cache):
    """Between two of llvmlite's lines it would free memory twice."""
    before, ended = signal.signal(signal.SIGINT, signal.default_int_handler), []

    def parse(*args):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        ended.append(jit_parse(*args))
        return ended[0]

    jit_parse = jit._parse
    monkeypatch.setattr(jit, "_parse", parse)
    try:
        with pytest.raises(KeyboardInterrupt):
            jit.load(ADD + "; interrupted\n")
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(ended) == 1


def test_loading_from_many_threads(empty_cache):
    results: list[int] = []

    def work(k: int) -> None:
        for i in range(5):
            code = jit.load(ADD.replace("add i64 %a", f"add i64 {i}"))
            kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
            results.append(kind(code.address("add"))(k, 100) - i)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [100] * 40
