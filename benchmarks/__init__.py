"""Claims of speed and accuracy, one file each. BLAS and JAX get one thread, and compiled code a cache of its own.

The settings are made here since libraries read them when they are imported. Peers are measured at their best: what an
environment says about the CPU that BLAS, NumPy or numba shall make do with is left out, and memory that is freed stays
with the process, without the page faults that malloc gives NumPy for large temporaries. Only PTO_WSP_CPU, which
`python -m benchmarks --cpu` sets, holds them back: to the same CPU as our own code, as far down as they go. CONDITIONS
says both, for the head of a table.
"""

import atexit
import ctypes
import os
import shutil
import tempfile

HANDICAPS = ("OPENBLAS_", "BLIS_", "MKL_DEBUG", "MKL_ENABLE", "NPY_DISABLE_CPU", "NPY_ENABLE_CPU", "NUMBA_CPU_")
NO_AVX512 = "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"     # in versions of NumPy
NO_AVX = f"X86_V3 AVX F16C FMA3 AVX2 {NO_AVX512}"
LIMITS = {      # CPU -> OpenBLAS's kernels, what NumPy shall not use, the most that XLA may use
    "x86-64": ("Prescott", NO_AVX, "SSE4_2"),
    "x86-64-v2": ("Nehalem", NO_AVX, "SSE4_2"),
    "x86-64-v3": ("Haswell", NO_AVX512, "AVX2"),
    "x86-64-v4": ("SkylakeX", "AVX512_ICL AVX512_SPR", "AVX512"),
}

CPU = os.environ.get("PTO_WSP_CPU", "")
_blas, _numpy, _xla = LIMITS.get(CPU, ("", "", ""))
_wanted = {"OPENBLAS_CORETYPE": _blas, "NPY_DISABLE_CPU_FEATURES": _numpy,
           "NUMBA_CPU_NAME": CPU, "NUMBA_CPU_FEATURES": ""} if CPU else {}
LEFT_OUT = [f"{name}={os.environ.pop(name)}" for name, value in sorted(os.environ.items())
            if name.startswith(HANDICAPS) and not name.endswith("_NUM_THREADS") and _wanted.get(name) != value]
CONDITIONS = [f"all code is made for {CPU}, that of the peers too"] * bool(CPU)
CONDITIONS += [" ".join(["left out, so that peers run at their best:", *LEFT_OUT])] * bool(LEFT_OUT)

os.environ.update(_wanted)
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ["XLA_FLAGS"] += f" --xla_cpu_max_isa={_xla}" * bool(_xla)
if hasattr(_libc := ctypes.CDLL(None), "mallopt"):
    for _option, _most in ((-1, 2**31 - 1), (-3, 2**30)):       # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        _libc.mallopt(_option, _most)
os.environ["PTO_WSP_CODEGEN_CACHE_DIR"] = _cache = tempfile.mkdtemp(prefix="pto_wsp-benchmarks-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
