// GlobalTensor, LocalTensor: views with a type; every access goes through the machine.
#pragma once
#include "base.h"

namespace pto_shim {

View SubView(const Call &call, const View &v, uint64_t elements);
GmView SubView(const Call &call, const GmView &v, uint64_t elements);
void GmSetBuffer(const Call &call, GmView &v, const void *addr, uint64_t bytes);
void ScalarRead(const Call &call, const View &v, uint64_t index, void *out);
void ScalarWrite(const Call &call, const View &v, uint64_t index, const void *value);
void ScalarRead(const Call &call, const GmView &v, uint64_t index, void *out);
void ScalarWrite(const Call &call, const GmView &v, uint64_t index, const void *value);
void *Physical(const Call &call, const View &v, uint64_t elements);
void CleanCache(const Call &call, const GmView &v, bool whole);
View StaticView(const Call &call, TPosition pos, uint64_t addr, uint64_t bytes, DT type);

}   // namespace pto_shim

namespace AscendC {

enum class CacheLine : uint64_t { SINGLE_CACHE_LINE = 0, ENTIRE_DATA_CACHE };
enum class DcciDst : uint64_t { CACHELINE_ALL = 0, CACHELINE_UB, CACHELINE_OUT, CACHELINE_ATOMIC };
enum class CacheRwMode { READ = 1, WRITE = 2, RW = 3 };
enum class CacheMode { CACHE_MODE_DISABLE = 0, CACHE_MODE_NORMAL = 1, CACHE_MODE_LAST = 2, CACHE_MODE_PERSISTENT = 4 };

template <typename T> class GlobalTensor {
public:
    using PrimType = T;
    GlobalTensor() { v.type = pto_shim::TypeOf<T>(); }
    void SetGlobalBuffer(T *buffer, uint64_t bufferSize, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        pto_shim::GmSetBuffer({"SetGlobalBuffer", at}, v, buffer, bufferSize * sizeof(T));
        size = bufferSize;
    }
    void SetGlobalBuffer(T *buffer, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        pto_shim::GmSetBuffer({"SetGlobalBuffer", at}, v, buffer, ~uint64_t{0});
    }
    GlobalTensor operator[](pto_shim::Offset offset) const
    {
        GlobalTensor t(*this);
        t.v = pto_shim::SubView(pto_shim::Call{"GlobalTensor[]", offset.at}, v, offset.v);
        return t;
    }
    T GetValue(uint64_t offset, pto_shim::Loc at = pto_shim::Loc::Here()) const
    {
        T out;
        pto_shim::ScalarRead({"GlobalTensor::GetValue", at}, v, offset, &out);
        return out;
    }
    void SetValue(uint64_t offset, T value, pto_shim::Loc at = pto_shim::Loc::Here()) const
    {
        pto_shim::ScalarWrite({"GlobalTensor::SetValue", at}, v, offset, &value);
    }
    const T *GetPhyAddr() const { return reinterpret_cast<const T *>(v.addr); }
    T *GetPhyAddr(uint64_t offset) const { return reinterpret_cast<T *>(v.addr) + offset; }
    uint64_t GetSize() const { return size; }
    void SetL2CacheHint(CacheMode) {}
    template <CacheRwMode rwMode = CacheRwMode::RW> void SetL2CacheHint(CacheMode) {}

    pto_shim::GmView v;
    uint64_t size = 0;
};

template <typename T> class LocalTensor {
public:
    using PrimType = T;
    LocalTensor() { v.type = pto_shim::TypeOf<T>(); }
    LocalTensor(TPosition pos, uint32_t addr, uint32_t elements, pto_shim::Loc at = pto_shim::Loc::Here())
        : v(pto_shim::StaticView({"LocalTensor", at}, pos, addr, elements * sizeof(T), pto_shim::TypeOf<T>()))
    {}
    explicit LocalTensor(const pto_shim::View &view) : v(view) { v.type = pto_shim::TypeOf<T>(); }
    LocalTensor operator[](pto_shim::Offset offset) const
    {
        return LocalTensor(pto_shim::SubView(pto_shim::Call{"LocalTensor[]", offset.at}, v, offset.v));
    }
    T GetValue(uint32_t index, pto_shim::Loc at = pto_shim::Loc::Here()) const
    {
        T out;
        pto_shim::ScalarRead({"GetValue", at}, v, index, &out);
        return out;
    }
    template <typename U>
    void SetValue(uint32_t index, U value, pto_shim::Loc at = pto_shim::Loc::Here()) const
    {
        T cast = static_cast<T>(value);
        pto_shim::ScalarWrite({"SetValue", at}, v, index, &cast);
    }
    template <typename U> LocalTensor<U> ReinterpretCast() const { return LocalTensor<U>(v); }
    uint32_t GetSize() const { return (v.end - v.addr) / static_cast<uint32_t>(sizeof(T)); }
    uint32_t GetLength() const { return v.end - v.addr; }
    int32_t GetPosition() const { return static_cast<int32_t>(v.pos); }
    T *GetPhyAddr(pto_shim::Offset offset = 0) const
    {
        return static_cast<T *>(pto_shim::Physical({"GetPhyAddr", offset.at}, v, offset.v));
    }

    pto_shim::View v;
};

template <typename T, CacheLine entireType, DcciDst dcciDst>
inline void DataCacheCleanAndInvalid(const GlobalTensor<T> &dst, pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::CleanCache({"DataCacheCleanAndInvalid", at}, dst.v, entireType == CacheLine::ENTIRE_DATA_CACHE);
}
template <typename T, CacheLine entireType>
inline void DataCacheCleanAndInvalid(const GlobalTensor<T> &dst, pto_shim::Loc at = pto_shim::Loc::Here())
{
    pto_shim::CleanCache({"DataCacheCleanAndInvalid", at}, dst.v, entireType == CacheLine::ENTIRE_DATA_CACHE);
}

}   // namespace AscendC
