// High-level functions on the simulated core.
#pragma once
#include "math.h"
#include "reduce_impl.h"

namespace pto_shim {

PTO_SHIM_FN void HighOp(const Call &call, Op op, const View &dst, const View &src0, const View *src1, const View *tmp,
                        const Scalar &scalar, int64_t count, int64_t least, bool in_place)
{
    Core &core = VectorCore(call);
    CheckRange(call, "count", count, 0, UINT32_MAX);
    if (count == 0) {
        return;
    }
    int64_t bytes = count * SizeOf(dst.type);
    const View *given[2] = {&src0, src1};
    const char *names[2] = {src1 != nullptr ? "src0" : "src", "src1"};
    CheckUb(call, dst, "dst", 32);
    CheckSpan(call, dst, "dst", 0, bytes);
    for (int i = 0; i < 2; ++i) {
        if (given[i] == nullptr) {
            continue;
        }
        CheckUb(call, *given[i], names[i], 32);
        CheckSpan(call, *given[i], names[i], 0, bytes);
        if (!in_place || given[i]->addr != dst.addr) {
            CheckApart(call, dst, bytes, "dst", *given[i], bytes, names[i]);
        }
        if (tmp != nullptr) {
            CheckApart(call, *tmp, tmp->end - tmp->addr, "tmp", *given[i], bytes, names[i]);
        }
    }
    Instr in = Issue(call, core, PIPE_V);
    if (tmp != nullptr) {
        CheckApart(call, *tmp, tmp->end - tmp->addr, "tmp", dst, bytes, "dst");
        UseTmp(in, *tmp, least);
    }
    Shape s;
    s.counter = true;
    s.count = count;
    DT type = dst.type;
    Active a = ActiveOf(s, 256 / SizeOf(type));
    Operand d = OperandOf(dst, "dst", s, 0, type), x = OperandOf(src0, names[0], s, 1, type);
    Operand y = src1 != nullptr ? OperandOf(*src1, "src1", s, 2, type) : x;
    Memory &m = MemoryOf(core, Mem::kUb);
    static thread_local Lanes A, B;
    for (int64_t r = 0; r < a.repeats; ++r) {
        LoadLanes(in, m, x, a, r, A);
        if (src1 != nullptr) {
            LoadLanes(in, m, y, a, r, B);
        }
        for (size_t i = 0; i < static_cast<size_t>(a.Limit(r)); ++i) {
            if (src1 == nullptr) {
                B.f[i] = scalar.f;
                B.i[i] = scalar.i;
                B.ok[i] = 1;
            }
            if (IsFloat(type)) {
                A.f[i] = FloatResult(op, A.f[i], B.f[i], 0.0f, scalar.f);
            } else {
                A.i[i] = IntResult(op, A.i[i], B.i[i], 0, scalar.i, type);
            }
            A.ok[i] = A.ok[i] & B.ok[i];
        }
        StoreLanes(in, m, d, a, r, A);
    }
}

}   // namespace pto_shim
