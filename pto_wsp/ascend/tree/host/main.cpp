// Runs the program on one NPU: arrays from files, task generator, workers,
// results to files. What is special to this program is in program.h and plan.h.
//
// The task generator fills a table with as many tasks as it has room for, and
// the workers run them, until no task is left.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "acl/acl.h"
#include "host/device.h"
#include "host/files.h"
#include "host/launch.h"
#include "host/options.h"
#include "host/program.h"
#include "host/report.h"
#include "include/plan.h"

namespace {

constexpr uint32_t kFirstLoads = 1 << 16;  // room in the log of loaded slots

// Cores that tasks can be sent to: groups of one cube and two vector cores
// where there are cube kernels, else vector cores.
uint32_t CountWorkers(const Options& options) {
  int64_t cubes = 0, vectors = 0;
  const uint32_t device = static_cast<uint32_t>(options.device);
  CHECK_ACL(aclrtGetDeviceInfo(device, ACL_DEV_ATTR_CUBE_CORE_NUM, &cubes));
  CHECK_ACL(aclrtGetDeviceInfo(device, ACL_DEV_ATTR_VECTOR_CORE_NUM, &vectors));
  int64_t workers = program::kHasCube ? std::min(cubes, vectors / 2) : vectors;
  if (options.workers > 0) {
    workers = std::min<int64_t>(workers, options.workers);
  }
  workers = std::min<int64_t>(workers, plan::kTargets);
  if (workers < 1) {
    throw std::runtime_error("the device has no cores for this program");
  }
  return static_cast<uint32_t>(workers);
}

// The arrays of the program on the device.
class Arrays {
 public:
  Arrays(const Options& options, plan::Plan* p) {
    for (size_t k = 0; k < program::kTensors.size(); ++k) {
      PutTensor(options, k, &p->tensor[k]);
    }
    for (size_t k = 0; k < program::kAxes.size(); ++k) {
      PutAxis(options, program::kAxes[k], &p->axis[k]);
    }
  }

  void Write(const Options& options) const {
    for (size_t k = 0; k < program::kTensors.size(); ++k) {
      if (program::kTensors[k].written) {
        std::vector<char> bytes(tensors_[k].bytes());
        tensors_[k].Get(bytes.data(), bytes.size());
        WriteFile(options.output + "/" + program::kTensors[k].name + ".bin",
                  bytes.data(), bytes.size());
      }
    }
  }

 private:
  void PutTensor(const Options& options, size_t k, plan::Tensor* out) {
    const program::Tensor& tensor = program::kTensors[k];
    out->elemBytes = tensor.elementBytes;
    out->rank = tensor.rank;
    int64_t elements = 1;
    for (uint32_t d = tensor.rank; d-- > 0;) {
      out->shape[d] = options.shapes[k][d];
      out->stride[d] = elements;
      elements *= out->shape[d];
    }
    out->bytes = static_cast<uint64_t>(elements) * tensor.elementBytes;
    Memory memory(out->bytes);
    const std::string path = options.input + "/" + tensor.name + ".bin";
    if (tensor.read || FileExists(path)) {
      memory.Put(ReadFile(path, out->bytes).data(), out->bytes);
    } else {
      memory.Clear();  // elements that no task writes are 0
    }
    out->addr = memory.address();
    tensors_.push_back(std::move(memory));
  }

  void PutAxis(const Options& options, const program::Axis& axis,
               plan::Axis* out) {
    uint64_t* const addresses[] = {&out->entries, &out->indices};
    std::vector<std::vector<int32_t>> parts;
    for (int part = 0; part < 2 && axis.parts[part] != nullptr; ++part) {
      parts.push_back(ReadIntegers(options.input + "/" + axis.name + "." +
                                   axis.parts[part] + ".bin"));
      Memory memory(std::max<size_t>(parts.back().size(), 1) * 4);
      memory.Clear();
      memory.Put(parts.back().data(), parts.back().size() * 4);
      *addresses[part] = memory.address();
      axes_.push_back(std::move(memory));
    }
    const bool sparse = parts.size() == 2;
    out->rows = static_cast<int64_t>(parts[0].size()) - (sparse ? 1 : 0);
    CheckAxis(axis, parts);
  }

  // What the task generator takes for granted.
  static void CheckAxis(const program::Axis& axis,
                        const std::vector<std::vector<int32_t>>& parts) {
    const std::string what = std::string("axis ") + axis.name;
    for (const std::vector<int32_t>& part : parts) {
      if (std::any_of(part.begin(), part.end(), [](int n) { return n < 0; })) {
        throw std::runtime_error(what + " has a negative entry");
      }
    }
    if (parts.size() == 2) {
      const std::vector<int32_t>& start = parts[0];
      if (start.empty() || !std::is_sorted(start.begin(), start.end()) ||
          static_cast<size_t>(start.back()) > parts[1].size()) {
        throw std::runtime_error(what +
                                 ": indptr has to rise from row to row, and "
                                 "to end within indices");
      }
    }
  }

  std::vector<Memory> tensors_, axes_;
};

// The plan on the host and on the device, and the memory that it points to.
class Job {
 public:
  Job(const Options& options, uint32_t workers)
      : device_(sizeof(plan::Plan)), arrays_(options, &host_) {
    host_.magic = plan::kMagic;
    host_.version = plan::kVersion;
    host_.planBytes = sizeof(plan::Plan);
    host_.taskBytes = sizeof(plan::Task);
    host_.workers = workers;
    host_.maxTasks = program::kTableTasks;
    std::copy(options.symbols.begin(), options.symbols.end(), host_.symbol);
    std::copy(options.sizes.begin(), options.sizes.end(), host_.size);
    host_.tasks = Room(&tasks_, sizeof(plan::Task) * host_.maxTasks);
    host_.records = Room(&records_, sizeof(plan::Record) * host_.maxTasks);
    host_.queue = Room(&queue_, 4 * (workers + 1 + host_.maxTasks));
    host_.workspace = Room(&workspace_, plan::kWorkspaceBytes * workers);
    if (plan::kMailboxes) {
      host_.mailboxes = Room(&mailboxes_, sizeof(plan::Mailbox) * workers);
    }
    host_.maxLoads = kFirstLoads;
    host_.loads = Room(&loads_, sizeof(uint64_t) * host_.maxLoads);
    device_.Put(&host_, sizeof(host_));
  }

  uint64_t address() const { return device_.address(); }
  const plan::Plan& Get() {
    device_.Get(&host_, sizeof(host_));
    return host_;
  }
  void ClearRecords() { records_.Clear(); }
  void ClearMailboxes() { mailboxes_.Clear(); }
  std::vector<plan::Task> Tasks() const {
    std::vector<plan::Task> tasks(host_.numTasks);
    tasks_.Get(tasks.data(), tasks.size() * sizeof(plan::Task));
    return tasks;
  }
  std::vector<plan::Record> Records() const {
    std::vector<plan::Record> records(host_.numTasks);
    records_.Get(records.data(), records.size() * sizeof(plan::Record));
    return records;
  }
  const Arrays& arrays() const { return arrays_; }

  // Throws what the task generator found wrong. The task it was about lies in
  // the table behind those before it.
  [[noreturn]] void Fail() const {
    const bool about = (host_.errorCall & (plan::kIsLoad | plan::kIsAxis)) == 0;
    const uint64_t row = host_.errorTask - host_.firstTask;
    if (about && row < host_.maxTasks && host_.error != plan::kBadHeader) {
      std::vector<plan::Task> tasks(row + 1);
      tasks_.Get(tasks.data(), tasks.size() * sizeof(plan::Task));
      if (tasks.back().id == host_.errorTask &&
          tasks.back().call == host_.errorCall) {
        throw std::runtime_error(ErrorText(host_, &tasks.back()));
      }
    }
    throw std::runtime_error(ErrorText(host_, nullptr));
  }

  // Twice the room for loaded slots; those that are there stay.
  void GrowLog() {
    std::vector<uint64_t> log(host_.maxLoads);
    loads_.Get(log.data(), host_.numLoads * sizeof(uint64_t));
    host_.maxLoads *= 2;
    host_.loads = Room(&loads_, sizeof(uint64_t) * host_.maxLoads);
    loads_.Put(log.data(), host_.numLoads * sizeof(uint64_t));
    host_.error = plan::kOk;
    host_.numTasks = host_.numRounds = 0;  // the pass begins again
    device_.Put(&host_, sizeof(host_));
  }

 private:
  static uint64_t Room(Memory* memory, uint64_t bytes) {
    *memory = Memory(bytes);
    return memory->address();
  }

  plan::Plan host_ = {};
  Memory device_, tasks_, records_, queue_, loads_, workspace_, mailboxes_;
  Arrays arrays_;
};

// One pass: the task generator on one stream, the workers on another one.
// Returns what the generator has to say.
const plan::Plan& RunPass(Job* job, uint32_t workers, Stream* control,
                           Stream* compute, Event* event) {
  for (;;) {
    if (plan::kMailboxes) {  // the workers wait for the task generator
      job->ClearMailboxes();
      job->ClearRecords();
      LaunchWorker(job->address(), workers, compute->get());
    }
    LaunchExpand(job->address(), control->get());
    const aclError code = aclrtSynchronizeStream(control->get());
    if (plan::kMailboxes) {
      compute->Synchronize();
    }
    const plan::Plan& p = job->Get();
    if (p.error == plan::kTooManyLoads) {
      job->GrowLog();
      continue;
    }
    if (p.error != plan::kOk) {
      job->Fail();
    }
    CheckAcl(code, "expand");
    if (plan::kMailboxes) {
      return p;
    }
    break;
  }
  job->ClearRecords();
  event->Order(*control, *compute);
  LaunchWorker(job->address(), workers, compute->get());
  compute->Synchronize();
  return job->Get();
}

void Run(const Options& options) {
  Device device(options.device);
  Stream control, compute;
  Event event;
  const uint32_t workers = CountWorkers(options);
  Job job(options, workers);
  Report report(options.report, workers);
  bool more = true;
  while (more) {
    const plan::Plan& p = RunPass(&job, workers, &control, &compute, &event);
    more = p.more != 0;
    report.Add(p, job.Tasks(), job.Records());
  }
  job.arrays().Write(options);
  report.Print();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = ParseOptions(argc, argv);
    if (options.help) {
      PrintHelp();
      return 0;
    }
    Run(options);
    return 0;
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "%s: %s\n", program::kTitle, error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program::kTitle, error.what());
    return 1;
  }
}
