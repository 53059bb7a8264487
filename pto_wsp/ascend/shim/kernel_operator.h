// The part of AscendC that pto_wsp emits, for plain C++ on a host CPU: kernels built against it run, give their numbers,
// and end with a message when they break a rule of the device (A2/A3, __NPU_ARCH__ 2201).
#pragma once

#include "pto_shim/base.h"
#include "pto_shim/copy.h"
#include "pto_shim/cube.h"
#include "pto_shim/launch.h"
#include "pto_shim/math.h"
#include "pto_shim/move.h"
#include "pto_shim/pipe.h"
#include "pto_shim/reduce.h"
#include "pto_shim/sync.h"
#include "pto_shim/tensor.h"
#include "pto_shim/vector.h"

#ifndef PTO_SHIM_SEPARATE
#include "pto_shim/all_impl.h"
#endif
