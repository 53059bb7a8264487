"""Claims of speed and accuracy, one file each. BLAS and JAX get one thread, and compiled code a cache of its own.

The settings are made here since libraries read them when they are imported. Memory that is freed stays with the
process: NumPy is measured at its best, without the page faults that malloc gives it for large temporaries.
"""

import atexit
import ctypes
import os
import shutil
import tempfile

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
if hasattr(_libc := ctypes.CDLL(None), "mallopt"):
    for _option, _most in ((-1, 2**31 - 1), (-3, 2**30)):       # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        _libc.mallopt(_option, _most)
os.environ["PTO_WSP_CODEGEN_CACHE_DIR"] = _cache = tempfile.mkdtemp(prefix="pto_wsp-benchmarks-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
