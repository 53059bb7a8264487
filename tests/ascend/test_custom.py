"""Custom kernels in the emitted tree: the user's C++ runs on the host shim and agrees with its CPU body."""

from __future__ import annotations

import numpy as np
import pytest

from pto_wsp import Constexpr, DType, In, InOut, Out, Scalar, Tile, kernel
from pto_wsp.ascend.aicore import emit_kernel
from pto_wsp.ascend.build import ShimError, build
from pto_wsp.errors import CompileError
from pto_wsp.trace.interpret import interpret
from tests.ascend.kernels import arguments, placed

F16, F32, I32 = DType.F16, DType.F32, DType.I32


def clip_cpu(x, out, low, high, times):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = min(max(x[i, j], low), high) * times


CLIP = """\
  // Rows arrive one by one; nothing is queued, so one event each way is enough.
  TBuf<TPosition::VECCALC> buffer;
  pipe->InitBuffer(buffer, 64 * sizeof(float));
  LocalTensor<float> row = buffer.Get<float>();
  for (uint32_t r = 0; r < x.rows; ++r) {
    GlobalTensor<float> from, to;
    from.SetGlobalBuffer((__gm__ float *)x.addr + r * x.rowStride, x.cols);
    to.SetGlobalBuffer((__gm__ float *)Out.addr + r * Out.rowStride, x.cols);
    const uint32_t bytes = x.cols * sizeof(float);
    DataCopyPad(row, from, DataCopyExtParams{1, bytes, 0, 0, 0}, DataCopyPadExtParams<float>{});
    PipeBarrier<PIPE_ALL>();
    Maxs(row, row, low, static_cast<int32_t>(x.cols));
    PipeBarrier<PIPE_V>();
    Mins(row, row, high, static_cast<int32_t>(x.cols));
    PipeBarrier<PIPE_V>();
    Muls(row, row, static_cast<float>(times), static_cast<int32_t>(x.cols));
    PipeBarrier<PIPE_ALL>();
    DataCopyPad(to, row, DataCopyExtParams{1, bytes, 0, 0, 0});
    PipeBarrier<PIPE_ALL>();
  }
"""


@kernel(cpp_src=CLIP, cpu=clip_cpu)
def clip(x: In[Tile[6, 48, F32]], Out: Out[Tile[6, 48, F32]], low: Scalar[F32], high: Scalar[F32],
         times: Constexpr[int] = 3):
    raise AssertionError("the Python body of a custom kernel is never run")


def compare(k, arrays, scalars=(), **constexprs):
    graph = k.graph_for(constexprs)
    source = emit_kernel(graph)
    program = build({"k.cpp": source.text, **dict(source.files)}, optimise="-O0")
    want, have = [a.copy() for a in arrays], [placed(a, 3) for a in arrays]
    interpret(graph, want, scalars)
    program.run(source.entry, *arguments(source, have, scalars))
    for w, h in zip(want, have, strict=True):
        np.testing.assert_allclose(h.astype(np.float64), w.astype(np.float64), rtol=1e-6)
    return source


@pytest.mark.parametrize("shape", [(6, 48), (3, 31)])
def test_an_ascendc_body_agrees_with_the_cpu_body(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    source = compare(clip, [x, np.zeros_like(x)], [-0.5, 0.25], times=2)
    assert "Custom kernel (Path A)" in source.header and CLIP in source.header
    assert "constexpr int64_t times = 2;" in source.header and source.core == "AIV"
    assert "const GmTile &Out" in source.header, "the user's own names"


OLD = """
  const float *x = static_cast<const float *>(task->tensor_ptrs[0]);
  float *out = reinterpret_cast<float *>(task->tensor_ptrs[1]);
  const uint64_t rows = task->args[task->num_axis_args - 4], cols = task->args[task->num_axis_args - 3];
  const int32_t by = static_cast<int32_t>(task->args[task->num_axis_args + 1]);
  const uint32_t bits = static_cast<uint32_t>(task->args[task->num_axis_args]);
  float scale;
  __builtin_memcpy(&scale, &bits, sizeof(scale));
  for (uint64_t i = 0; i < rows; ++i)
    for (uint64_t j = 0; j < cols; ++j)
      out[i * task->tensor_strides[2] + j * task->tensor_strides[3]] =
          x[i * task->tensor_strides[0] + j * task->tensor_strides[1]] * scale + by;
#if defined(__CPU_SIM)
  pto::cpu_sim::add_cycles(7);
#endif
  cycles += rows * cols;
"""


def fma_cpu(x, out, scale, by):
    out[:] = x * scale + by


def signature(x: In[Tile[4, 8, F32]], out: Out[Tile[4, 8, F32]], scale: Scalar[F32], by: Scalar[I32]): ...


def test_a_body_in_the_form_of_old_programs():
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    source = compare(kernel(cpp_src=OLD, cpu=fma_cpu)(signature), [x, np.zeros_like(x)], [1.5, -3])
    assert OLD in source.header


@pytest.mark.parametrize("name", ["signature", "another_name"])
def test_a_translation_unit_in_the_form_of_old_programs(tmp_path, name):
    unit = tmp_path / "unit.cpp"
    text = f'#include <cstdint>\nextern "C" PTO_WSP_KERNEL_ATTR uint64_t signature(const KernelTaskDesc *task,\n' \
           f"    [[maybe_unused]] CSPTContext *cspt) {{\n  uint64_t cycles = 0;\n{OLD}\n  return cycles;\n}}\n"
    unit.write_text(text)
    k = kernel(cpp_tu_path=unit, cpu=fma_cpu)(signature)
    source = emit_kernel(k.graph, name)
    assert text.removesuffix("\n") in source.header and source.entry == f"{name}_task"
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    out = np.zeros_like(x)
    build({"k.cpp": source.text}, optimise="-O0").run(source.entry, *arguments(source, [x, out], [1.5, 2]))
    np.testing.assert_array_equal(out, x * np.float32(1.5) + 2)


def test_a_translation_unit_with_run(tmp_path):
    unit = tmp_path / "unit.cpp"
    unit.write_text("""
namespace pto_signature {
__aicore__ inline void Run(AscendC::TPipe *, const GmTile &x, const GmTile &out, float scale, int32_t by) {
  for (uint32_t i = 0; i < x.rows; ++i)
    for (uint32_t j = 0; j < x.cols; ++j)
      ((__gm__ float *)out.addr)[i * out.rowStride + j] = ((__gm__ float *)x.addr)[i * x.rowStride + j] * scale + by;
}
}
""")
    k = kernel(cpp_tu_path=unit, cpu=fma_cpu)(signature)
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    for name in (None, "mine"):
        source = emit_kernel(k.graph, name)
        out = np.zeros_like(x)
        build({"k.cpp": source.text}, optimise="-O0").run(source.entry, *arguments(source, [x, out], [2, 1]))
        np.testing.assert_array_equal(out, x * 2 + 1)
    unit.write_text("int nothing;")
    with pytest.raises(CompileError, match="does not define"):
        emit_kernel(kernel(cpp_tu_path=unit)(signature).graph)


def test_included_files_beside_the_body_go_into_the_tree(tmp_path):
    (tmp_path / "twice.h").write_text("inline float Twice(float x) { return 2 * x; }\n")
    body, includes = tmp_path / "body.cpp", ["twice.h", "<utility>"]
    body.write_text("  auto *to = (__gm__ float *)out.addr, *from = (__gm__ float *)x.addr;\n"
                    "  to[0] = Twice(from[0] + sizeof(std::pair<char, char>));")

    @kernel(cpp_body_path=body, cpp_includes=includes, cpp_workspace_bytes=64, cpp_core="MIX")
    def f(x: In[Tile[1, 1, F32]], out: Out[Tile[1, 1, F32]]): ...

    source = emit_kernel(f.graph)
    assert source.files == (("kernels/twice.h", "inline float Twice(float x) { return 2 * x; }\n"),)
    assert '#include "twice.h"' in source.header and "#include <utility>" in source.header
    assert "body.cpp" in source.header and str(tmp_path) not in source.header
    assert source.workspace_bytes == 64 and source.core == "MIX"
    out = np.zeros((1, 1), np.float32)
    program = build({"kernels/k.cpp": source.text, **dict(source.files)}, optimise="-O0")
    program.run(source.entry, *arguments(source, [np.ones((1, 1), np.float32), out], []))
    assert out[0, 0] == 6


def test_names_are_safe_and_errors_of_the_body_show():
    def over(int: In[Tile[1, 8, F32]], größe: InOut[Tile[1, 8, F32]], pipe: Scalar[F32]): ...

    over.__name__ = 'x"; evil(); //'
    source = emit_kernel(kernel(cpp_src="  pipe_2;")(over).graph)
    assert "evil()" not in source.header.replace("// ", "").splitlines()[1:][0]
    assert source.name == "x_evil" and "const GmTile &int_2, " in source.header.replace("\n    ", " ")
    assert "size" not in source.name

    @kernel(cpp_src="  Adds(LocalTensor<float>(), LocalTensor<float>(), 1.0f, 8);")
    def wrong(x: In[Tile[1, 8, F32]]): ...

    source = emit_kernel(wrong.graph)
    with pytest.raises(ShimError):
        build({"k.cpp": source.text}).run(source.entry, *arguments(source, [np.zeros((1, 8), np.float32)], []))


def test_what_the_npu_cannot_have_is_refused():
    def f(x: In[Tile[1, 8, F32]], n: Constexpr[str] = "a"): ...

    with pytest.raises(CompileError, match="no form in C"):
        emit_kernel(kernel(cpp_src="")(f).graph)

    def g(x: In[Tile[1, 8, F32]]): ...

    with pytest.raises(CompileError, match="CPU only.*cpp_src"):
        emit_kernel(kernel(cpu=lambda x: None)(g).graph)
    with pytest.raises(CompileError, match=r"task->args\[0\].*Scalar"):
        emit_kernel(kernel(cpp_src="auto r = task->args[0]; (void)r;")(g).graph)


def test_files_of_one_name_and_units_of_one_name_are_refused(tmp_path):
    from pto_wsp import Tensor, workload

    data = Tensor(data=np.zeros((4, 8), np.float32), shape=(4, 8), dtype=F32)
    kernels = []
    for text in ("int a;", "int b;"):
        place = tmp_path / text[4]
        place.mkdir()
        (place / "more.h").write_text(text)
        (place / "body.cpp").write_text(OLD)
        unit = 'extern "C" uint64_t signature(const KernelTaskDesc *, CSPTContext *) { return 0; }'
        (place / "unit.cpp").write_text(unit)
        kernels.append((kernel(cpp_body_path=place / "body.cpp", cpp_includes=["more.h"])(signature),
                        kernel(cpp_tu_path=place / "unit.cpp")(signature)))
    for pair, match in zip(zip(*kernels, strict=True), ("includes 'more.h', and the tree has another", "both define"),
                           strict=True):

        @workload
        def work():
            for k in pair:  # noqa: B023
                k(x=data, out=data, scale=1.0, by=2)

        with pytest.raises(CompileError, match=match):
            work().compile("ascend_npu")
