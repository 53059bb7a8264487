"""Claims of speed and accuracy, one file each. BLAS and JAX get one thread, and compiled code a cache of its own.

The settings are made here since libraries read them when they are imported. Peers are measured at their best: what an
environment says about the CPU that BLAS, NumPy or numba shall make do with is left out (LEFT_OUT; the harness prints
it), and memory that is freed stays with the process, without the page faults that malloc gives NumPy for large
temporaries.
"""

import atexit
import ctypes
import os
import shutil
import tempfile

HANDICAPS = ("OPENBLAS_", "BLIS_", "MKL_DEBUG", "MKL_ENABLE", "NPY_DISABLE_CPU", "NPY_ENABLE_CPU", "NUMBA_CPU_")
LEFT_OUT = [f"{name}={os.environ.pop(name)}" for name in sorted(os.environ)
            if name.startswith(HANDICAPS) and not name.endswith("_NUM_THREADS")]

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
if hasattr(_libc := ctypes.CDLL(None), "mallopt"):
    for _option, _most in ((-1, 2**31 - 1), (-3, 2**30)):       # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        _libc.mallopt(_option, _most)
os.environ["PTO_WSP_CODEGEN_CACHE_DIR"] = _cache = tempfile.mkdtemp(prefix="pto_wsp-benchmarks-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
