// The host runtime of the shim: strict about ranges, pairs and contents.
#pragma once
#include "../acl/acl.h"
#include "launch_impl.h"

#include <set>

namespace pto_shim {

// What is known to be done when the next thing of a stream (null: the host) starts: launches per stream.
using StreamClock = std::map<void *, int>;
struct StreamState {
    int launches = 0;
    Call last{"", {}};
    StreamClock known;
};
struct HostState {
    bool started = false, device = false;
    std::map<void *, Loc> handles, pinned, memory;   // streams and events; host memory; device memory
    std::map<void *, uint32_t> failed;               // stream -> what its AICPU kernel returned
    std::map<void *, StreamState> streams;           // with the default stream, null
    std::map<void *, StreamClock> recorded;          // event -> clock
    StreamClock known;                               // of the host
    int64_t handle = 0;
    std::string message;
};
inline HostState &TheHost()
{
    static HostState *h = new HostState;
    return *h;
}
PTO_SHIM_FN void NeedDevice(const Call &call)
{
    if (!TheHost().started || !TheHost().device) {
        Fail(call, "%s was not called", TheHost().started ? "aclrtSetDevice" : "aclInit");
    }
}
PTO_SHIM_FN void NeedHandle(const Call &call, void *handle, const char *what)
{
    if (handle != nullptr && TheHost().handles.count(handle) == 0) {
        Fail(call, "%s does not exist (any more)", what);
    }
}
PTO_SHIM_FN aclError NewHandle(const Call &call, void **out)
{
    NeedDevice(call);
    HostState &h = TheHost();
    *out = reinterpret_cast<void *>(static_cast<uintptr_t>(++h.handle * 64));
    h.handles[*out] = call.at;
    return ACL_SUCCESS;
}
PTO_SHIM_FN aclError DropHandle(const Call &call, void *handle, const char *what)
{
    NeedDevice(call);
    if (TheHost().handles.erase(handle) == 0) {
        Fail(call, "%s does not exist (any more)", what);
    }
    return ACL_SUCCESS;
}
PTO_SHIM_FN void JoinClock(StreamClock &into, const StreamClock &from)
{
    for (auto &entry : from) {
        int &v = into[entry.first];
        v = v > entry.second ? v : entry.second;
    }
}
// All launches so far are known to `known` to be done.
PTO_SHIM_FN void NeedDone(const Call &call, const StreamClock &known, void *self, const char *cure)
{
    for (auto &entry : TheHost().streams) {
        auto it = known.find(entry.first);
        if (entry.first != self && entry.second.launches > (it == known.end() ? 0 : it->second)) {
            Fail(call, "the launch at %s:%d on another stream may still run: %s", entry.second.last.at.file, entry.second.last.at.line,
                 cure);
        }
    }
}
PTO_SHIM_FN void StreamStarts(const Call &call, void *stream, bool beside)
{
    HostState &h = TheHost();
    if (!h.started) {
        return;   // launched by a test or a runner, without the runtime
    }
    NeedDevice(call);
    NeedHandle(call, stream, "stream");
    StreamState &s = h.streams[stream];
    JoinClock(s.known, h.known);
    if (!beside || TheMachine().parked == nullptr) {
        NeedDone(call, s.known, stream, "aclrtRecordEvent and aclrtStreamWaitEvent are missing");
    }
    s.known[stream] = ++s.launches;
    s.last = call;
}
PTO_SHIM_FN void NeedIdle(const Call &call) { NeedDone(call, TheHost().known, &TheHost(), "aclrtSynchronizeStream is missing"); }
PTO_SHIM_FN void StreamReturned(const Call &call, void *stream, uint32_t code)
{
    CheckGuards(call);
    FinishParked(false);
    if (code != 0) {
        TheHost().failed[stream] = code;
    }
}
PTO_SHIM_FN GmBlock &DeviceRange(const Call &call, const void *p, size_t bytes, const char *what)
{
    GmBlock *b = LookUpGm(reinterpret_cast<uintptr_t>(p));
    if (b == nullptr) {
        Fail(call, "%s is no device memory", what);
    }
    uint64_t at = reinterpret_cast<uintptr_t>(p) - b->base;
    if (at + bytes > b->bytes) {
        Fail(call, "%s: bytes %llu..%llu of device memory with %llu bytes (%s)", what, static_cast<unsigned long long>(at),
             static_cast<unsigned long long>(at + bytes), static_cast<unsigned long long>(b->bytes), b->name.c_str());
    }
    return *b;
}

PTO_SHIM_FN aclError MemoryCopy(const Call &call, void *dst, size_t room, const void *src, size_t bytes, aclrtMemcpyKind kind)
{
    if (bytes > room) {
        Fail(call, "count = %zu bytes, destMax is %zu", bytes, room);
    }
    bool from_device = kind == ACL_MEMCPY_DEVICE_TO_HOST || kind == ACL_MEMCPY_DEVICE_TO_DEVICE;
    bool to_device = kind == ACL_MEMCPY_HOST_TO_DEVICE || kind == ACL_MEMCPY_DEVICE_TO_DEVICE;
    if (from_device) {
        GmBlock &b = DeviceRange(call, src, bytes, "src");
        uint64_t first = reinterpret_cast<uintptr_t>(src) - b.base;
        const void *bad = std::memchr(b.ready.data() + first, 0, bytes);
        if (bad != nullptr && kind == ACL_MEMCPY_DEVICE_TO_HOST) {
            Fail(call, "src: byte %lld was never written on the device",
                           static_cast<long long>(static_cast<const uint8_t *>(bad) - b.ready.data()));
        }
    } else if (LookUpGm(reinterpret_cast<uintptr_t>(src)) != nullptr) {
        Fail(call, "src is device memory, kind says host");
    }
    if (to_device) {
        DeviceRange(call, dst, room, "dst");
        GmSetReady(dst, bytes);
    } else if (LookUpGm(reinterpret_cast<uintptr_t>(dst)) != nullptr) {
        Fail(call, "dst is device memory, kind says host");
    }
    std::memcpy(dst, src, bytes);
    return ACL_SUCCESS;
}

}   // namespace pto_shim

#define PTO_ACL PTO_SHIM_FN aclError
PTO_ACL aclInit(const char *, pto_shim::Loc at)
{
    if (pto_shim::TheHost().started) {
        pto_shim::Fail({"aclInit", at}, "called a second time");
    }
    pto_shim::TheHost().started = true;
    return ACL_SUCCESS;
}
PTO_ACL aclFinalize(pto_shim::Loc at)
{
    pto_shim::HostState &h = pto_shim::TheHost();
    if (!h.started) {
        pto_shim::Fail({"aclFinalize", at}, "aclInit was not called");
    }
    for (auto *kind : {&h.memory, &h.pinned, &h.handles}) {
        if (!kind->empty()) {
            pto_shim::Fail({kind == &h.handles ? "aclrtCreateStream or event" : "aclrtMalloc", kind->begin()->second},
                           "not released before aclFinalize");
        }
    }
    h.started = false;
    return ACL_SUCCESS;
}
PTO_ACL aclrtSetDevice(int32_t device, pto_shim::Loc at)
{
    if (!pto_shim::TheHost().started) {
        pto_shim::Fail({"aclrtSetDevice", at}, "aclInit was not called");
    }
    pto_shim::TheHost().device = device == 0;
    return device == 0 ? ACL_SUCCESS : ACL_ERROR_INVALID_PARAM;
}
PTO_ACL aclrtResetDevice(int32_t, pto_shim::Loc at)
{
    pto_shim::NeedDevice({"aclrtResetDevice", at});
    pto_shim::TheHost().device = false;
    return ACL_SUCCESS;
}
PTO_ACL aclrtGetDeviceInfo(uint32_t, aclrtDevAttr attribute, int64_t *value, pto_shim::Loc)
{
    pto_shim::Machine &m = pto_shim::TheMachine();
    *value = attribute == ACL_DEV_ATTR_AICPU_CORE_NUM ? 6 : attribute == ACL_DEV_ATTR_VECTOR_CORE_NUM ? m.vectors : m.cubes;
    return ACL_SUCCESS;
}
PTO_ACL aclrtCreateStream(aclrtStream *stream, pto_shim::Loc at) { return pto_shim::NewHandle({"aclrtCreateStream", at}, stream); }
PTO_ACL aclrtDestroyStream(aclrtStream stream, pto_shim::Loc at)
{
    return pto_shim::DropHandle({"aclrtDestroyStream", at}, stream, "stream");
}
PTO_ACL aclrtSynchronizeStream(aclrtStream stream, pto_shim::Loc at)
{
    pto_shim::Call call{"aclrtSynchronizeStream", at};
    pto_shim::NeedDevice(call);
    pto_shim::NeedHandle(call, stream, "stream");
    pto_shim::FinishParked(true);
    pto_shim::HostState &h = pto_shim::TheHost();
    pto_shim::JoinClock(h.known, h.streams[stream].known);
    auto it = h.failed.find(stream);
    if (it == h.failed.end()) {
        return ACL_SUCCESS;
    }
    h.message = "an AICPU kernel returned " + std::to_string(it->second);
    h.failed.erase(it);
    return ACL_ERROR_RT_AICPU_EXCEPTION;
}
PTO_ACL aclrtSynchronizeDevice(pto_shim::Loc at)
{
    pto_shim::NeedDevice({"aclrtSynchronizeDevice", at});
    pto_shim::FinishParked(true);
    for (auto &entry : pto_shim::TheHost().streams) {
        pto_shim::JoinClock(pto_shim::TheHost().known, entry.second.known);
    }
    bool failed = !pto_shim::TheHost().failed.empty();
    pto_shim::TheHost().failed.clear();
    return failed ? ACL_ERROR_RT_AICPU_EXCEPTION : ACL_SUCCESS;
}
PTO_ACL aclrtMalloc(void **device, size_t bytes, aclrtMemMallocPolicy, pto_shim::Loc at)
{
    pto_shim::NeedDevice({"aclrtMalloc", at});
    if (bytes == 0) {
        return ACL_ERROR_INVALID_PARAM;
    }
    std::string name = std::string("made at ") + at.file + ":" + std::to_string(at.line);
    *device = pto_shim::GmAllocate(bytes, name.c_str());
    if (*device == nullptr) {
        return ACL_ERROR_INVALID_PARAM;
    }
    pto_shim::TheHost().memory[*device] = at;
    return ACL_SUCCESS;
}
PTO_ACL aclrtFree(void *device, pto_shim::Loc at)
{
    pto_shim::NeedDevice({"aclrtFree", at});
    pto_shim::NeedIdle({"aclrtFree", at});
    if (pto_shim::TheHost().memory.erase(device) == 0) {
        pto_shim::Fail({"aclrtFree", at}, "the address is no device memory (any more)");
    }
    pto_shim::GmRelease(device);
    return ACL_SUCCESS;
}
PTO_ACL aclrtMallocHost(void **host, size_t bytes, pto_shim::Loc at)
{
    *host = std::malloc(bytes);
    pto_shim::TheHost().pinned[*host] = at;
    return *host != nullptr ? ACL_SUCCESS : ACL_ERROR_INVALID_PARAM;
}
PTO_ACL aclrtFreeHost(void *host, pto_shim::Loc at)
{
    if (pto_shim::TheHost().pinned.erase(host) == 0) {
        pto_shim::Fail({"aclrtFreeHost", at}, "the address is no pinned memory (any more)");
    }
    std::free(host);
    return ACL_SUCCESS;
}
PTO_ACL aclrtMemcpy(void *dst, size_t room, const void *src, size_t bytes, aclrtMemcpyKind kind, pto_shim::Loc at)
{
    pto_shim::Call call{"aclrtMemcpy", at};
    pto_shim::NeedDevice(call);
    pto_shim::NeedIdle(call);
    return pto_shim::MemoryCopy(call, dst, room, src, bytes, kind);
}
PTO_ACL aclrtMemcpyAsync(void *dst, size_t room, const void *src, size_t bytes, aclrtMemcpyKind kind, aclrtStream stream,
                         pto_shim::Loc at)
{
    pto_shim::StreamStarts({"aclrtMemcpyAsync", at}, stream);
    return pto_shim::MemoryCopy({"aclrtMemcpyAsync", at}, dst, room, src, bytes, kind);
}
PTO_ACL aclrtMemset(void *device, size_t room, int32_t value, size_t bytes, pto_shim::Loc at)
{
    pto_shim::Call call{"aclrtMemset", at};
    pto_shim::NeedDevice(call);
    if (bytes > room) {
        pto_shim::Fail(call, "count = %zu bytes, maxCount is %zu", bytes, room);
    }
    pto_shim::DeviceRange(call, device, room, "devPtr");
    pto_shim::GmSetReady(device, bytes);
    std::memset(device, value, bytes);
    return ACL_SUCCESS;
}
PTO_ACL aclrtCreateEvent(aclrtEvent *event, pto_shim::Loc at) { return pto_shim::NewHandle({"aclrtCreateEvent", at}, event); }
PTO_ACL aclrtCreateEventWithFlag(aclrtEvent *event, uint32_t, pto_shim::Loc at)
{
    return pto_shim::NewHandle({"aclrtCreateEventWithFlag", at}, event);
}
PTO_ACL aclrtCreateEventExWithFlag(aclrtEvent *event, uint32_t, pto_shim::Loc at)
{
    return pto_shim::NewHandle({"aclrtCreateEventExWithFlag", at}, event);
}
PTO_ACL aclrtDestroyEvent(aclrtEvent event, pto_shim::Loc at)
{
    return pto_shim::DropHandle({"aclrtDestroyEvent", at}, event, "event");
}
PTO_ACL aclrtRecordEvent(aclrtEvent event, aclrtStream stream, pto_shim::Loc at)
{
    pto_shim::NeedHandle({"aclrtRecordEvent", at}, event, "event");
    pto_shim::NeedHandle({"aclrtRecordEvent", at}, stream, "stream");
    pto_shim::StreamState &s = pto_shim::TheHost().streams[stream];
    pto_shim::TheHost().recorded[event] = s.known;
    return ACL_SUCCESS;
}
PTO_ACL aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent event, pto_shim::Loc at)
{
    pto_shim::NeedHandle({"aclrtStreamWaitEvent", at}, event, "event");
    pto_shim::NeedHandle({"aclrtStreamWaitEvent", at}, stream, "stream");
    pto_shim::HostState &h = pto_shim::TheHost();
    if (h.recorded.count(event) == 0) {
        pto_shim::Fail({"aclrtStreamWaitEvent", at}, "the event was never recorded");
    }
    pto_shim::JoinClock(h.streams[stream].known, h.recorded[event]);
    return ACL_SUCCESS;
}
#undef PTO_ACL
PTO_SHIM_FN const char *aclGetRecentErrMsg() { return pto_shim::TheHost().message.c_str(); }
