// The device as main.cpp uses it: every call of the runtime is checked, and
// what was taken from the runtime is given back.
#pragma once

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "acl/acl.h"

#define CHECK_ACL(call) CheckAcl((call), #call)

// Throws what the runtime has to say of a call that failed.
inline void CheckAcl(aclError code, const char* call) {
  if (code == ACL_SUCCESS) {
    return;
  }
  const char* reason = aclGetRecentErrMsg();
  throw std::runtime_error(std::string(call) + " failed with error " +
                           std::to_string(code) +
                           (reason != nullptr && *reason != '\0' ? ": " : "") +
                           (reason != nullptr ? reason : ""));
}

// The same where nothing may be thrown.
#define WARN_ACL(call) WarnAcl((call), #call)

inline void WarnAcl(aclError code, const char* call) {
  if (code != ACL_SUCCESS) {
    std::fprintf(stderr, "%s failed with error %d\n", call, code);
  }
}

// One device, from aclInit to aclFinalize.
class Device {
 public:
  explicit Device(int32_t number) : number_(number) {
    CHECK_ACL(aclInit(nullptr));
    aclError code = aclrtSetDevice(number_);
    if (code != ACL_SUCCESS) {
      WARN_ACL(aclFinalize());
      CheckAcl(code, "aclrtSetDevice");
    }
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() {
    WARN_ACL(aclrtResetDevice(number_));
    WARN_ACL(aclFinalize());
  }

 private:
  int32_t number_;
};

class Stream {
 public:
  Stream() { CHECK_ACL(aclrtCreateStream(&stream_)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { WARN_ACL(aclrtDestroyStream(stream_)); }

  aclrtStream get() const { return stream_; }
  void Synchronize() { CHECK_ACL(aclrtSynchronizeStream(stream_)); }

 private:
  aclrtStream stream_ = nullptr;
};

// Lets one stream wait for what another one has been given so far.
class Event {
 public:
  Event() { CHECK_ACL(aclrtCreateEventExWithFlag(&event_, ACL_EVENT_SYNC)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { WARN_ACL(aclrtDestroyEvent(event_)); }

  void Order(const Stream& first, const Stream& then) {
    CHECK_ACL(aclrtRecordEvent(event_, first.get()));
    CHECK_ACL(aclrtStreamWaitEvent(then.get(), event_));
  }

 private:
  aclrtEvent event_ = nullptr;
};

// Device memory. No bytes are no memory: the address is 0.
class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes) : bytes_(bytes) {
    if (bytes_ > 0) {
      CHECK_ACL(aclrtMalloc(&address_, bytes_, ACL_MEM_MALLOC_HUGE_FIRST));
    }
  }
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Memory() {
    if (address_ != nullptr) {
      WARN_ACL(aclrtFree(address_));
    }
  }

  void* get() const { return address_; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(address_); }
  size_t bytes() const { return bytes_; }

  void Clear() {
    if (bytes_ > 0) {
      CHECK_ACL(aclrtMemset(address_, bytes_, 0, bytes_));
    }
  }
  void Put(const void* from, size_t bytes) {
    if (bytes > 0) {
      CHECK_ACL(aclrtMemcpy(address_, bytes_, from, bytes,
                            ACL_MEMCPY_HOST_TO_DEVICE));
    }
  }
  void Get(void* to, size_t bytes) const {
    if (bytes > 0) {
      CHECK_ACL(
          aclrtMemcpy(to, bytes, address_, bytes, ACL_MEMCPY_DEVICE_TO_HOST));
    }
  }

 private:
  void* address_ = nullptr;
  size_t bytes_ = 0;
};
