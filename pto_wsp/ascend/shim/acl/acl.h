// The runtime calls of an emitted host program. Device memory is host memory with guard zones; launches run at once.
#pragma once
#include "../pto_shim/launch.h"

#include <cstddef>

using aclError = int;
using aclrtStream = void *;
using aclrtEvent = void *;
using aclrtContext = void *;
constexpr aclError ACL_SUCCESS = 0, ACL_ERROR_NONE = 0, ACL_ERROR_INVALID_PARAM = 100000, ACL_ERROR_RT_AICPU_EXCEPTION = 507018;

enum aclrtMemMallocPolicy { ACL_MEM_MALLOC_HUGE_FIRST, ACL_MEM_MALLOC_HUGE_ONLY, ACL_MEM_MALLOC_NORMAL_ONLY };
enum aclrtMemcpyKind {
    ACL_MEMCPY_HOST_TO_HOST, ACL_MEMCPY_HOST_TO_DEVICE, ACL_MEMCPY_DEVICE_TO_HOST, ACL_MEMCPY_DEVICE_TO_DEVICE
};
enum aclrtDevAttr {
    ACL_DEV_ATTR_AICPU_CORE_NUM = 1, ACL_DEV_ATTR_AICORE_CORE_NUM = 101, ACL_DEV_ATTR_CUBE_CORE_NUM = 102,
    ACL_DEV_ATTR_VECTOR_CORE_NUM = 201
};
constexpr uint32_t ACL_EVENT_SYNC = 1, ACL_EVENT_TIME_LINE = 8;

#define PTO_ACL_LOC pto_shim::Loc at = pto_shim::Loc::Here()
aclError aclInit(const char *config, PTO_ACL_LOC);
aclError aclFinalize(PTO_ACL_LOC);
aclError aclrtSetDevice(int32_t device, PTO_ACL_LOC);
aclError aclrtResetDevice(int32_t device, PTO_ACL_LOC);
aclError aclrtGetDeviceInfo(uint32_t device, aclrtDevAttr attribute, int64_t *value, PTO_ACL_LOC);
aclError aclrtCreateStream(aclrtStream *stream, PTO_ACL_LOC);
aclError aclrtDestroyStream(aclrtStream stream, PTO_ACL_LOC);
aclError aclrtSynchronizeStream(aclrtStream stream, PTO_ACL_LOC);
aclError aclrtSynchronizeDevice(PTO_ACL_LOC);
aclError aclrtMalloc(void **device, size_t bytes, aclrtMemMallocPolicy policy, PTO_ACL_LOC);
aclError aclrtFree(void *device, PTO_ACL_LOC);
aclError aclrtMallocHost(void **host, size_t bytes, PTO_ACL_LOC);
aclError aclrtFreeHost(void *host, PTO_ACL_LOC);
aclError aclrtMemcpy(void *dst, size_t room, const void *src, size_t bytes, aclrtMemcpyKind kind, PTO_ACL_LOC);
aclError aclrtMemcpyAsync(void *dst, size_t room, const void *src, size_t bytes, aclrtMemcpyKind kind, aclrtStream stream,
                          PTO_ACL_LOC);
aclError aclrtMemset(void *device, size_t room, int32_t value, size_t bytes, PTO_ACL_LOC);
aclError aclrtCreateEvent(aclrtEvent *event, PTO_ACL_LOC);
aclError aclrtCreateEventWithFlag(aclrtEvent *event, uint32_t flag, PTO_ACL_LOC);
aclError aclrtCreateEventExWithFlag(aclrtEvent *event, uint32_t flag, PTO_ACL_LOC);
aclError aclrtDestroyEvent(aclrtEvent event, PTO_ACL_LOC);
aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream, PTO_ACL_LOC);
aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent event, PTO_ACL_LOC);
const char *aclGetRecentErrMsg();
