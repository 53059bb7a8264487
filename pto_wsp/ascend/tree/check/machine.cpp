// The device that check/shim simulates.
#define PTO_SHIM_IMPLEMENTATION
#include "kernel_operator.h"
#include "pto_shim/all_impl.h"
