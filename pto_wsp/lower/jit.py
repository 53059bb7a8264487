"""LLVM text -> callable machine code.

In: LLVM IR as text.  Out: Code: addresses of its functions, freed when the Code is dropped.  Start reading at load().
"""

from __future__ import annotations

import _thread
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from pto_wsp.errors import CompileError
from pto_wsp.lower import copies, image
from pto_wsp.lower.cache import Cache, default_root, key_of

_T = TypeVar("_T")

__all__ = ["HOST", "Code", "Target", "assembly", "cpu_features", "load", "optimised"]


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that code is made for; an empty field means the host's.

    Target(cpu="x86-64-v3")                        another CPU of this architecture; runs here if the host has it
    Target("aarch64-linux-gnu", cpu="neoverse-n1") another architecture; only as text, see assembly()
    """

    triple: str = ""
    cpu: str = ""
    features: str = ""


VARIABLE = "PTO_WSP_CPU"  # x86-64-v3 makes the code of a machine without AVX-512: slower perhaps, the same bits
HOST = Target(cpu=os.environ.get(VARIABLE, ""))

LEVELS = {  # CPUs that can be named without their features: the levels of the x86-64 psABI, and what we use of them
    "x86-64": "",
    "x86-64-v2": "+ssse3,+sse4.1",
    "x86-64-v3": "+sse4.1,+avx,+avx2,+fma,+f16c",
    "x86-64-v4": "+sse4.1,+avx,+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512cd",
}

# Kernels are vectorised, unrolled and folded before LLVM sees them. Its instruction combining takes five times as long
# as these passes and makes no kernel faster; its floor of f16 is a call of libm for each lane. Expanders are written
# carelessly and gain a third by it. Engines are loops that were Python. Code generation at level 2 takes a third longer
# than at level 1, for nothing.
PASSES: dict[str, tuple[str, ...]] = {
    "kernel": ("sroa", "simplify_cfg"),
    "shared": ("sroa", "simplify_cfg"),
    "expander": ("always_inliner", "sroa", "simplify_cfg", "instruction_combine"),
    "engine": (),  # those of LLVM's -O1
}
CODE_LEVEL = 1


@dataclass(eq=False)
class Code:
    """Machine code of one module. Function addresses are valid while this object lives."""

    _ir: Callable[[], str]
    target: Target
    _image: image.Image = field(repr=False)
    phases: dict[str, float] = field(default_factory=dict)  # what was done to get it -> milliseconds
    origin: str = "compiled"  # or "disk", or "process": another program of this process had it

    def address(self, symbol: str) -> int:
        """Address of a function; KeyError when the module does not define it."""
        return int(self._image.address(symbol))

    @cached_property
    def ir(self) -> str:
        """The LLVM text it was made from (made again if the code came from the cache)."""
        return self._ir()

    @cached_property
    def asm(self) -> str:
        """Assembly text, made on demand."""
        return assembly(self.ir, self.target)


def load(text: str, make_ir: Callable[[], str] | None = None, target: Target = HOST, kind: str = "kernel") -> Code:
    """Machine code for `text`.

    text     what the code is made from, and its key in the disk cache: the LLVM IR itself, or, with make_ir, anything
             that determines it (a printed graph). make_ir is called only when the cache has no code for text
    kind     of code, which decides the PASSES
    returns  Code; programs that load one text share its memory, which goes with the last of them
    raises   CompileError when LLVM refuses the text
    """
    ir = make_ir if make_ir is not None else lambda: text
    phases: dict[str, float] = {}
    key = _timed(phases, "key", lambda: key_of(f"{kind} {text}", (target.triple, target.cpu, target.features)))
    linked = _LOADED.get(key)
    if linked is not None:
        return Code(ir, target, linked, phases, "process")
    disk = _disk(str(default_root()))
    code, origin = _timed(phases, "read", lambda: disk.load(key)), "disk"
    if code is None:
        code, origin = _compile(ir, target, phases, kind), "compiled"
        _timed(phases, "write", lambda: disk.store(key, code))
    for name in copies.names_in(code) if kind == "kernel" else ():
        for phase, spent in copies.prepare(name).items():
            phases[phase] = phases.get(phase, 0.0) + spent
    linked = _LOADED[key] = _timed(phases, "link", lambda: image.link(code))
    return Code(ir, target, linked, phases, origin)


_LOADED: weakref.WeakValueDictionary[bytes, image.Image] = weakref.WeakValueDictionary()


@cache
def _disk(root: str) -> Cache:
    return Cache(Path(root))


def assembly(ir: str, target: Target = HOST) -> str:
    """Assembly text of optimised IR for any target LLVM knows."""
    def made() -> str:
        machine = _machine(target)
        return str(machine.emit_assembly(_optimise(_parse(ir, machine), machine)))

    return _uninterrupted(made)


def optimised(ir: str, target: Target = HOST) -> str:
    """The IR after optimisation."""
    def made() -> str:
        machine = _machine(target)
        return str(_optimise(_parse(ir, machine), machine))

    return _uninterrupted(made)


def _compile(make_ir: Callable[[], str], target: Target, phases: dict[str, float], kind: str) -> bytes:
    def translated() -> bytes:
        module = _timed(phases, "parse", lambda: _parse(ir, machine))
        _timed(phases, "optimise", lambda: _optimise(module, machine, kind))
        return bytes(_timed(phases, "machine code", lambda: machine.emit_object(module)))

    _timed(phases, "start LLVM", lambda: _check_host(target))
    machine = _timed(phases, "start LLVM", lambda: _uninterrupted(lambda: _machine(target)))
    ir = _timed(phases, "emit IR", make_ir)
    return _uninterrupted(translated)


def _uninterrupted(step: Callable[[], _T]) -> _T:
    """What `step` returns or raises. A Ctrl-C waits for its end.

    Python raises it in the main thread, between any two of llvmlite's lines, where memory may be freed twice.
    """
    if threading.current_thread() is not threading.main_thread():
        return step()
    made, failed = list[_T](), list[BaseException]()
    done = _thread.allocate_lock()

    def run() -> None:
        try:
            made.append(step())
        except BaseException as error:
            failed.append(error)
        finally:
            done.release()

    done.acquire()
    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:  # no more threads, or the end of Python
        return step()
    try:
        done.acquire()
    except BaseException:  # before or after the lock was given
        if not (made or failed):
            done.acquire()
        raise
    if failed:
        raise failed[0]
    return made[0]


def _timed(phases: dict[str, float], name: str, step: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = step()
    phases[name] = phases.get(name, 0.0) + (time.perf_counter() - start) * 1e3
    return result


@cache
def _llvm(every_architecture: bool) -> Any:
    import llvmlite.binding as llvm

    if every_architecture:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    else:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    return llvm


@cache
def _host() -> Target:
    """What LLVM says of this machine."""
    llvm = _llvm(False)
    return _uninterrupted(
        lambda: Target(llvm.get_default_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    )


@cache
def _machine(target: Target, level: int = CODE_LEVEL) -> Any:
    llvm, host = _llvm(bool(target.triple)), _host()
    here = not target.triple and not target.cpu
    cpu = host.cpu if here else target.cpu
    features = target.features or (host.features if here else "")
    try:
        found = llvm.Target.from_triple(target.triple or host.triple)
    except RuntimeError as error:
        raise CompileError(f"LLVM knows no target {target.triple}: {error}") from None
    return found.create_target_machine(cpu=cpu, features=features, opt=level, reloc="pic", codemodel="small")


def _parse(ir: str, machine: Any) -> Any:
    llvm = _llvm(False)
    try:
        module = llvm.parse_assembly(ir, llvm.create_context())  # a context of its own is freed with the module
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"generated LLVM IR is not valid: {error}") from None
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    return module


def _optimise(module: Any, machine: Any, kind: str = "kernel") -> Any:
    llvm = _llvm(False)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    passes = llvm.create_new_module_pass_manager() if PASSES[kind] else builder.getModulePassManager()
    for name in PASSES[kind]:
        getattr(passes, f"add_{name}_pass")()
    passes.run(module, builder)
    return module


def cpu_features(target: Target = HOST) -> tuple[str, str]:
    """(triple, features) that code generation may rely on: the host's own, or what a named CPU is known to have.

    raises CompileError for a CPU of the host's architecture that is not in LEVELS, if its features are not given
    """
    if target.triple:
        return target.triple, target.features
    host = _host()
    features = target.features or (LEVELS.get(target.cpu) if target.cpu else host.features)
    if features is None:
        raise CompileError(f"no CPU {target.cpu!r} is known, perhaps from {VARIABLE}; there are {', '.join(LEVELS)}.")
    return host.triple, features


def _check_host(target: Target) -> None:
    """raises CompileError when this machine cannot run code for the target"""
    _, features = cpu_features(target)
    here = _host().features.split(",")
    lacking = [f[1:] for f in features.split(",") if f.startswith("+") and f not in here]
    if lacking:
        raise CompileError(f"this machine cannot run code for {target.cpu}: it lacks {', '.join(lacking)}.")
