// What code for the control CPU may use beside ordinary C++.
#pragma once
#include "pto_shim/base.h"

#include <cassert>
#include <cstdio>

namespace pto_shim {

void GiveWay(const Call &call);

}   // namespace pto_shim

namespace AscendC {

template <typename... Args> inline int printf(const char *format, Args... args) { return std::fprintf(stderr, format, args...); }
inline void DataStoreBarrier(pto_shim::Loc at = pto_shim::Loc::Here()) { pto_shim::GiveWay({"DataStoreBarrier", at}); }

}   // namespace AscendC
