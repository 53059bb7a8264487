"""Whole emitted projects on the shim: the host program, the task generator and the workers, as they would run.

The examples, at sizes that the shim runs in seconds: numbers, order, workers and window as on the CPU.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pto_wsp import (
    DenseDyn,
    DispatchPolicy,
    DType,
    In,
    InOut,
    Out,
    P,
    Ragged,
    Scalar,
    Sparse,
    Symbol,
    TaskWindow,
    Tensor,
    Tile,
    WindowMode,
    kernel,
    pto,
    sequential,
    slot_load_u64,
    workload,
)
from pto_wsp.ascend import build, onhost
from pto_wsp.ascend.build import ShimError
from pto_wsp.errors import CompileError, ExecutionError, UsageError
from pto_wsp.program import Program
from pto_wsp.scalar_expr import slot_i64
from tests.ascend import examples

F32, F16, I32 = DType.F32, DType.F16, DType.I32


def close(have: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> None:
    if want.dtype.kind in "iub":
        np.testing.assert_array_equal(have, want)
    else:  # exp, rsqrt and the order of sums differ in the last bits
        np.testing.assert_allclose(have, want, rtol=2e-4, atol=2e-5)


def same_tasks(program: Program, ran: onhost.HostRun, timeline: Any) -> None:
    """Order, names and workers of the tasks, and the window."""
    assert [ran.task(i) for i in range(len(ran))] == [span.name for span in timeline]
    np.testing.assert_array_equal(ran.target, timeline.worker)
    np.testing.assert_array_equal(ran.worker, ran.target % ran.workers)
    window = program.schedule.window
    assert not window or ran.largest_round <= window


@pytest.mark.parametrize("name", examples.SIZES)
def test_examples(name: str) -> None:
    *_, cpu = examples.run(name)
    npu = cpu.workload.compile(target="ascend_npu")
    npu._axis_data = cpu.program._axis_data
    for tensor, array in cpu.before.items():
        tensor.array()[...] = array
    ran = npu.run_on_host()
    for tensor, array in cpu.after.items():
        close(tensor.array(), array)
    assert cpu.timeline is not None
    same_tasks(cpu.program, ran, cpu.timeline)


# ---- a program with everything that the host sets --------------------------------------------------------------------


@kernel
def scale(x: In[Tile[4, 16, F32]], out: Out[Tile[4, 16, F32]], by: Scalar[F32], plus: Scalar[I32]):
    pto.store(out, x * by + pto.cast(pto.iota_u32(16), F32) + plus)


@kernel
def double(x: In[Tile[1, 16, F32]], out: InOut[Tile[1, 16, F32]]):
    pto.store(out, out + x)


class Everything:
    """Sizes, symbols, ragged and sparse axes, slots, partial tiles."""

    def __init__(self, rows: int = 30) -> None:
        rng = np.random.default_rng(3)
        self.x = rng.standard_normal((rows, 16), dtype=np.float32)
        self.out, self.sums = np.zeros_like(self.x), np.zeros((3, 1, 16), np.float32)
        self.which = rng.integers(0, 3, (1, 5)).astype(np.int32)
        self.X, self.OUT, self.SUMS = (Tensor(a, a.shape, F32) for a in (self.x, self.out, self.sums))
        self.WHICH = Tensor(self.which, self.which.shape, I32)
        self.tiles, self.ragged = DenseDyn(8), Ragged(3, [2, 0, 3])
        self.sparse = Sparse(2, [0, 2, 3], [7, 1, 4])

    def workload(self) -> Any:
        @workload
        def scaled():
            for i in P(self.tiles, names="i"):
                scale[i](x=self.X[i * 4 : (i + 1) * 4], out=self.OUT[i * 4 : (i + 1) * 4], by=Symbol("by"), plus=i)

        @workload
        def summed():
            for b in P.seq(3):
                for j in P.seq(self.ragged[b]):
                    double[b, j](x=self.X[b + j : b + j + 1], out=self.SUMS[b])

        @workload
        def selected():
            for r in P.seq(2):
                for e in P.sel(self.sparse[r]):
                    slot_load_u64(3, self.WHICH, col=r)
                    double[r, e](x=self.OUT[e : e + 1], out=self.SUMS[slot_i64(3)])

        both = sequential(scaled(), summed(), selected())
        return both.dispatch(DispatchPolicy.affinity(lambda t: t.params[0] * 5 - 7, 6))

    def results(self) -> list[np.ndarray[Any, Any]]:
        return [self.out.copy(), self.sums.copy()]

    def clear(self) -> None:
        self.out[:], self.sums[:] = 0, 0


@pytest.fixture(scope="module")
def everything() -> tuple[Everything, Program, Program]:
    data = Everything()
    w = data.workload()
    return data, w.compile(), w.compile(target="ascend_npu")


def both(everything: tuple[Everything, Program, Program], **options: Any) -> onhost.HostRun:
    """Run on the CPU and on the shim; the same results and tasks."""
    data, cpu, npu = everything
    data.clear()
    cpu.execute()
    cpu.synchronize()
    want = data.results()
    data.clear()
    ran = npu.run_on_host(**options)
    for have, result in zip(data.results(), want, strict=True):
        close(have, result)
    same_tasks(cpu, ran, cpu.timeline())
    return ran


def test_what_the_host_sets(everything: tuple[Everything, Program, Program]) -> None:
    data, cpu, npu = everything
    for program in (cpu, npu):
        program.set_symbol_f32("by", -2.5)
    assert len(both(everything)) == 8 + 5 + 3
    for program in (cpu, npu):
        program.set_axis_sizes({data.tiles: 6})
        program.set_symbol_f32("by", np.inf)
        program.bind(data.ragged, [1, 4, 1])
        program.bind(data.sparse, ([0, 0, 4], [5, 5, 0, 2]))
    assert len(both(everything)) == 6 + 6 + 4
    ran = both(everything, workers=2, seed=0x11)
    assert ran.workers == 2 and set(ran.worker.tolist()) <= {0, 1} and ran.target.max() > 1
    for program in (cpu, npu):
        program.bind(data.tiles, 8)
        program.bind(data.ragged, data.ragged)
        program.bind(data.sparse, data.sparse)


def test_errors_name_the_task(everything: tuple[Everything, Program, Program]) -> None:
    data, _, npu = everything
    npu.bind(data.tiles, 9)
    before = data.results()
    text = r"task 8, scale\[8\] \(test_host_program.py:\d+\): position 32 of dimension 0 of x, which ends at 30"
    with pytest.raises(ExecutionError, match=text) as caught:
        npu.run_on_host()
    assert caught.value.line is not None and "scale[i](x=self.X" in caught.value.line.text
    npu.bind(data.tiles, 8)
    data.which[0, 1] = 3
    with pytest.raises(ExecutionError, match=r"task 15, double\[1, 4\] .*position 3 of .* of out, which ends at 3"):
        npu.run_on_host()
    data.which[0, 1] = 0
    for have, want in zip(data.results(), before, strict=True):
        np.testing.assert_array_equal(have, want)  # nothing was written
    npu.bind(data.ragged, [1, 1, 100])
    with pytest.raises(ExecutionError, match=r"task 38, double\[2, 28\] .*: out has elements, but another .* none"):
        npu.run_on_host()
    npu.bind(data.ragged, data.ragged)


def test_arrays_of_other_kinds(everything: tuple[Everything, Program, Program]) -> None:
    """Strided, longer, read-only, shared with another tensor, part of an axis."""
    data, cpu, npu = everything
    kept = data.x, data.out
    try:
        wide = np.zeros((40, 2, 32), np.float32)
        many = np.random.default_rng(5).standard_normal((64, 20), dtype=np.float32)
        data.x = data.X.data = many[::-2, 2:18]
        data.out = data.OUT.data = wide[:32, 1, ::-2]
        both((data, cpu, npu))
        assert not wide[:, 0].any() and not wide[:, 1, ::2].any() and wide[:, 1, 1::2].any()
        data.out = data.OUT.data = np.zeros((32, 16), np.float32)
        data.out.flags.writeable = False
        with pytest.raises(ExecutionError, match="tasks write to OUT|out, whose array is read-only"):
            npu.run_on_host()
        data.OUT.data = data.x
        with pytest.raises(ExecutionError, match="share memory"):
            npu.run_on_host()
        data.OUT.data = np.lib.stride_tricks.as_strided(np.zeros(16, np.float32), (32, 16), (0, 4))
        with pytest.raises(ExecutionError, match="share memory"):
            npu.run_on_host()
    finally:
        data.x, data.out = data.X.data, data.OUT.data = kept


def test_window_bounds_the_table() -> None:
    x, out = np.ones((40, 16), np.float32), np.zeros((40, 16), np.float32)
    X, OUT = Tensor(x, x.shape, F32), Tensor(out, out.shape, F32)

    @workload
    def windowed():
        for i in P(10):
            scale[i](x=X[i * 4 : i * 4 + 4], out=OUT[i * 4 : i * 4 + 4], by=1.0, plus=i)

    w = windowed().dispatch(DispatchPolicy.round_robin(4)).task_graph(window=TaskWindow(3, "tasks", WindowMode.STALL))
    npu, cpu = w.compile(target="ascend"), w.compile()
    ran = npu.run_on_host()
    assert ran.round.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    same_tasks(cpu, ran, cpu.timeline())
    np.testing.assert_array_equal(out, np.repeat(np.arange(10), 4)[:, None] + 1 + np.arange(16))


def test_the_log_of_loaded_slots_grows() -> None:
    """More values that tasks wrote are loaded than the host has made room for."""
    x, row, out = np.full((4, 16), 3, np.float32), np.zeros((4, 16), np.float32), np.zeros((4, 16), np.float32)
    X, ROW, OUT = (Tensor(a, a.shape, F32) for a in (x, row, out))

    @workload
    def loads():
        scale[0](x=X, out=ROW, by=1.0, plus=0)
        for _ in P.seq(70_000):
            slot_load_u64(0, ROW, col=2)
        scale[1](x=X, out=OUT, by=1.0, plus=slot_i64(0))

    ran = loads().compile(target="ascend_npu").run_on_host()
    assert ran.round.tolist() == [0, 1]
    np.testing.assert_array_equal(out[0], 3 + np.arange(16) + 5)


# ---- what goes wrong on this machine ---------------------------------------------------------------------------------


def test_without_a_compiler(everything: tuple[Everything, Program, Program], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    build.compiler.cache_clear()
    try:
        with pytest.raises(CompileError, match="needs a C\\+\\+17 compiler; none of no-such-compiler was found"):
            everything[2].run_on_host()
    finally:
        monkeypatch.undo()
        build.compiler.cache_clear()


def test_a_run_that_takes_too_long(everything: tuple[Everything, Program, Program]) -> None:
    with pytest.raises(ShimError, match="did not end within 0.001 seconds"):
        everything[2].run_on_host(timeout=0.001)


def test_only_for_the_npu(everything: tuple[Everything, Program, Program]) -> None:
    cpu, npu = everything[1:]
    for use in (lambda: cpu.run_on_host(), lambda: cpu.sources, lambda: cpu.placement):
        with pytest.raises(UsageError, match="target='ascend_npu'"):
            use()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="run_on_host\\(\\) runs it here"):
            npu.execute()
    npu.synchronize()
    assert not npu.is_complete() and npu.using_cpp_backend and npu.stats.task_count == 0


# ---- the host program by itself --------------------------------------------------------------------------------------


def command(npu: Program, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    program = onhost.compiled(npu._project)  # type: ignore[arg-type]
    return subprocess.run([program.path, *args], cwd=folder, capture_output=True, text=True, check=False)


def test_command_line(everything: tuple[Everything, Program, Program], tmp_path: Path) -> None:
    data, _, npu = everything
    shown = command(npu, tmp_path, "--help")
    assert shown.returncode == 0 and "symbol by: a float" in shown.stdout and "size i: 8 unless set" in shown.stdout
    assert "out.bin  f32 [30, 16]" in shown.stdout.lower() and ".indptr.bin" in shown.stdout
    for args, message in (
        (["--symbol", "none=1"], "names nothing"),
        (["--symbol", "by"], "is not NAME=value"),
        (["--symbol", "by=x"], "--symbol by is a number, not 'x'"),
        (["--size", "i=3.5"], "--size i is an integer, not '3.5'"),
        (["--shape", "kTensorX=3x"], "dimensions|is an integer"),
        (["--device", "-1"], "out of range"),
        (["--frob", "1"], "unknown option --frob"),
        (["--input"], "needs a value"),
    ):
        found = command(npu, tmp_path, *args)
        assert found.returncode == 2, args
        assert re.search(message, found.stderr), found.stderr
    assert "cannot read input/" in command(npu, tmp_path).stderr


def test_saved_inputs(everything: tuple[Everything, Program, Program], tmp_path: Path) -> None:
    """Arrays, axes, symbols and sizes leave for another machine, and the results are compared there."""
    data, _, npu = everything
    npu.set_symbol_f32("by", 3.5)
    data.clear()
    options = shlex.split(npu.save_inputs(tmp_path / "my inputs"))
    npu.run_on_host()
    npu.save_inputs(tmp_path / "expected")
    (tmp_path / "output").mkdir()
    done = command(npu, tmp_path, *options)
    assert done.returncode == 0, done.stderr
    script = [sys.executable, str(Path(str(npu.codegen_artifact_dir)) / "scripts" / "compare.py"), "output", "expected"]
    assert subprocess.run(script, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.count("agree") == 2
    with pytest.raises(UsageError, match="cannot be written to /proc/no: "):
        npu.save_inputs("/proc/no")


def test_options_of_a_run(everything: tuple[Everything, Program, Program]) -> None:
    for options in ({"workers": -1}, {"workers": "2"}, {"seed": 256}, {"seed": True}):
        with pytest.raises(UsageError, match="of run_on_host is a whole number from 0 to"):
            everything[2].run_on_host(**options)  # type: ignore[arg-type]
    with pytest.raises(CompileError, match="mailboxes is True or False; got 'yes'"):
        everything[0].workload().compile(target="ascend_npu", mailboxes="yes")


def test_compare_script(tmp_path: Path, everything: tuple[Everything, Program, Program]) -> None:
    folder = Path(str(everything[2].codegen_artifact_dir))
    manifest = json.loads(everything[2].sources["manifest.json"])
    outs = [t["name"] for t in manifest["tensors"] if t["direction"] != "in"]
    for name in ("have", "want"):
        (tmp_path / name).mkdir()
        for out in outs:
            np.arange(48, dtype=np.float32).tofile(tmp_path / name / f"{out}.bin")

    def compare() -> subprocess.CompletedProcess[str]:
        script = [sys.executable, str(folder / "scripts" / "compare.py"), "have", "want"]
        return subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert compare().returncode == 0
    np.arange(1, 49, dtype=np.float32).tofile(tmp_path / "have" / f"{outs[0]}.bin")
    found = compare()
    assert found.returncode == 1 and "0 of 48 elements agree; element 0 is 1.0, expected 0.0" in found.stdout
