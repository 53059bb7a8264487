"""Claims of speed and accuracy, one file each. BLAS gets one thread, and compiled code a cache of its own.

The settings are made here since BLAS reads them when NumPy is imported.
"""

import atexit
import os
import shutil
import tempfile

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ["PTO_WSP_CODEGEN_CACHE_DIR"] = _cache = tempfile.mkdtemp(prefix="pto_wsp-benchmarks-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
