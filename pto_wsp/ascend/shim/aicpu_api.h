// What code for the control CPU may use beside ordinary C++.
#pragma once
#include "pto_shim/base.h"

#include <cassert>
#include <cstdio>

namespace AscendC {

template <typename... Args> inline int printf(const char *format, Args... args) { return std::fprintf(stderr, format, args...); }
inline void DataStoreBarrier() {}

}   // namespace AscendC
