// Runs one task generator on what a request says, and prints its tasks; see device.py.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "pto_shim/launch.h"

namespace driver {

template <typename T>
T *Room(uint64_t count, const char *name) {
  void *room = pto_shim::GmAllocate(count * sizeof(T) + 1, name);
  std::memset(room, 0, count * sizeof(T));
  pto_shim::GmSetReady(room, count * sizeof(T));
  return static_cast<T *>(room);
}
template <typename T>
uint64_t Address(T *pointer) { return reinterpret_cast<uint64_t>(pointer); }

int Drive(const char *path) {
  std::ifstream in(path);
  plan::Plan *p = Room<plan::Plan>(1, "plan");
  p->magic = plan::kMagic;
  p->version = plan::kVersion;
  p->planBytes = sizeof(plan::Plan);
  p->taskBytes = sizeof(plan::Task);
  in >> p->workers >> p->maxTasks >> p->maxLoads;
  p->tasks = Address(Room<plan::Task>(p->maxTasks, "tasks"));
  p->queue = Address(Room<uint32_t>(p->workers + 1 + p->maxTasks, "queue"));
  p->records = Address(Room<plan::Record>(p->maxTasks, "records"));
  p->mailboxes = Address(Room<plan::Mailbox>(p->workers, "mailboxes"));
  p->workspace = Address(Room<uint8_t>(plan::kWorkspaceBytes * p->workers, "workspace"));
  p->loads = Address(Room<uint64_t>(p->maxLoads, "loads"));
  for (uint64_t &symbol : p->symbol) in >> symbol;
  for (int64_t &size : p->size) in >> size;
  for (uint32_t k = 0; k < AXES; ++k) {
    uint32_t parts;
    in >> p->axis[k].rows >> parts;
    for (uint32_t part = 0; part < parts; ++part) {
      uint64_t count;
      in >> count;
      int32_t *values = Room<int32_t>(count, "axis");
      for (uint64_t n = 0; n < count; ++n) in >> values[n];
      (part == 0 ? p->axis[k].entries : p->axis[k].indices) = Address(values);
    }
  }
  for (uint32_t k = 0; k < TENSORS_USED; ++k) {
    plan::Tensor &tensor = p->tensor[k];
    in >> tensor.elemBytes >> tensor.rank;
    uint64_t elements = 1;
    for (uint32_t d = 0; d < tensor.rank; ++d) in >> tensor.shape[d];
    for (uint32_t d = tensor.rank; d-- > 0;) {
      tensor.stride[d] = static_cast<int64_t>(elements);
      elements *= static_cast<uint64_t>(tensor.shape[d]);
    }
    int known = 0;
    in >> known;
    tensor.bytes = elements * tensor.elemBytes;
    tensor.addr = 1ull << 40;  // nothing reads it
    if (known) {
      uint8_t *bytes = Room<uint8_t>(tensor.bytes, "tensor");
      for (uint64_t n = 0; n < tensor.bytes; ++n) {
        int byte;
        in >> byte;
        bytes[n] = static_cast<uint8_t>(byte);
      }
      tensor.addr = Address(bytes);
    }
  }
  const uint64_t address = Address(p);
  struct {
    uint64_t plan;
  } args = {address};
  do {
    std::memset(reinterpret_cast<void *>(p->tasks), 0xA7, p->maxTasks * sizeof(plan::Task));
    if (p->version != plan::kVersion) {
      std::printf("error %u 0 0 0 0 0\n", expand(&args));
      return 0;
    }
#ifdef WORKER
    if (plan::kMailboxes) {
      std::memset(reinterpret_cast<void *>(p->mailboxes), 0, sizeof(plan::Mailbox) * p->workers);
      pto_shim::Chevrons(WORKER, p->workers, nullptr, nullptr)(reinterpret_cast<GM_ADDR>(p));
    }
#endif
    pto_shim::Chevrons(expand, 1, nullptr, nullptr)(&args, sizeof(args));
    const uint32_t code = p->error;
#ifdef WORKER
    if (!plan::kMailboxes) {
      pto_shim::Chevrons(WORKER, p->workers, nullptr, nullptr)(reinterpret_cast<GM_ADDR>(p));
    }
    pto_shim::FinishParked(true);
#endif
    if (code != 0) {
      std::printf("error %u %lu %u %u %u %ld\n", code, p->errorTask, p->errorCall, p->errorOperand,
                  p->errorDimension, p->errorFound);
      return 0;
    }
    std::printf("pass %lu %u %u\n", p->firstTask, p->numTasks, p->numLevels);
    const plan::Task *tasks = reinterpret_cast<const plan::Task *>(p->tasks);
    for (uint32_t r = 0; r < p->numTasks; ++r) {
      const plan::Task &t = tasks[r];
      std::printf("task %lu %u %u %u %u %u %u %u", t.id, t.row, t.kernel, t.core, t.call, t.target, t.level, t.round);
      for (uint32_t k = 0; k < OPERANDS[t.call]; ++k) {
        const plan::Operand &o = t.tile[k];
        const plan::Tensor &tensor = p->tensor[TENSORS[t.call][k]];
        std::printf(" %u %ld %ld %ld %u %u", TENSORS[t.call][k],
                    static_cast<int64_t>(o.addr - tensor.addr) / static_cast<int64_t>(tensor.elemBytes), o.rowStride,
                    o.colStride, o.rows, o.cols);
      }
      for (int64_t word : t.arg) std::printf(" %ld", word);
      std::printf("\n");
    }
    std::printf("queue");
    for (uint32_t k = 0; k < p->workers + 1 + p->numTasks; ++k) {
      std::printf(" %u", reinterpret_cast<const uint32_t *>(p->queue)[k]);
    }
    std::printf("\n");
  } while (p->more != 0);
  return 0;
}

}  // namespace driver
