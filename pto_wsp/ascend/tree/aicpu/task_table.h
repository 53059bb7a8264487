// Kernel calls become rows of the task table: regions checked, edges found.
//
// The loops of the workload are in expand.aicpu; this file is the same in every
// project. A call of the workload becomes
//     Begin(kernel)  Tile(...) per tile  Scalar(...), Axis(...)  End(target)
//
// A task waits for
//   - the step before it, inside a sequential loop or block (Sequence);
//   - the tasks before it that touch the same elements, one of the two
//     writing: results are those of program order (Hazards);
//   - the task before it in its stream, and the calls named in after=[...].
//
// With mailboxes (plan::kMailboxes) tasks are run while others are made: see
// Feeder. Else the table is filled first: see Levels, which keeps the window
// too. The table is bounded, whatever the number of tasks. When it is full, or
// (Levels) a slot is to be loaded from an element that a task in it writes, the
// pass ends with `more`; the workers empty the table, and the next pass runs
// through the loops again, skipping the tasks that were run and taking the
// slots' values from a log.
#ifndef PTO_WSP_TASK_TABLE_H_
#define PTO_WSP_TASK_TABLE_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include "aicpu/hazards.h"
#include "aicpu/levels.h"
#include "aicpu/mailboxes.h"
#include "aicpu/numbers.h"
#include "aicpu_api.h"
#include "include/plan.h"

namespace aicpu {

inline bool HasHeader(const plan::Plan &p) {
  return p.magic == plan::kMagic && p.version == plan::kVersion &&
         p.planBytes == sizeof(plan::Plan) && p.taskBytes == sizeof(plan::Task);
}

// One pass of the loops over the table. Methods that return bool return false
// when the pass ends: the table is full, or something is wrong.
class TaskTable {
 public:
  using Order = std::conditional_t<plan::kMailboxes, Feeder, Levels>;
  using Frame = Order::Frame;

  explicit TaskTable(plan::Plan *p)
      : plan_(p),
        tasks_(reinterpret_cast<plan::Task *>(p->tasks)),
        hazards_(*p),
        order_(p),
        skipped_(p->firstTask) {}

  uint64_t symbol(uint32_t number) const { return plan_->symbol[number]; }
  // Trip count of a loop whose size the host sets.
  int64_t size(uint32_t number) const { return plan_->size[number]; }
  uint64_t slot(uint32_t number) const { return slot_[number]; }
  void Set(uint32_t number, uint64_t value) { slot_[number] = value; }

  // -- A task

  // Starts a task; true if it is to be described. False when it was run
  // before, and the pass goes on, or when the pass ends: see Skipped().
  bool Begin(plan::Kernel kernel, plan::Core core, uint32_t call) {
    number_ = made_++;
    if (number_ < skipped_) {
      return false;
    }
    if (rows_ == plan_->maxTasks) {
      return Stop();
    }
    call_ = call;
    task_ = &tasks_[rows_];
    std::memset(task_, 0, sizeof(plan::Task));
    task_->id = number_;
    task_->row = rows_;
    task_->kernel = kernel;
    task_->core = core;
    task_->call = call;
    operands_ = args_ = 0;
    weight_ = 0;
    return true;
  }
  bool Skipped() const { return !stopped_; }
  // Number of the task in program order.
  uint64_t number() const { return number_; }

  // The next tile.
  void Tile(uint32_t tensor, Access access, std::initializer_list<Dim> dims) {
    Region &region = regions_[operands_];
    plan::Operand &tile = task_->tile[operands_];
    const plan::Tensor &base = plan_->tensor[tensor];
    tile = {Find(tensor, dims, &region), 0, 0, 1, 1};
    uint32_t d = 0;
    for (const Dim &dim : dims) {
      const int64_t there = region.last[d] - region.first[d];
      if (dim.role == kRows) {
        tile.rowStride = base.stride[d];
        tile.rows = static_cast<uint32_t>(there);
      } else if (dim.role == kCols) {
        tile.colStride = base.stride[d];
        tile.cols = static_cast<uint32_t>(there);
      }
      if (dim.together && there > 1 && base.stride[d] != 1) {
        Fail(plan::kBadStride, operands_, d, base.stride[d], 1);
      }
      // What a copy can leave out between two rows is a 32-bit number of bytes.
      const int64_t bytes = base.stride[d] * base.elemBytes;
      if (dim.role != kFixed && there > 1 && bytes > UINT32_MAX) {
        Fail(plan::kTooFarApart, operands_, d, bytes, UINT32_MAX);
      }
      ++d;
    }
    access_[operands_] = access;
    if (plan::kWindowUnit == plan::kEntries && !region.Empty()) {
      ++weight_;
    }
    if (plan::kWindowUnit == plan::kBytes && access != kIn) {
      weight_ += uint64_t{tile.rows} * tile.cols * base.elemBytes;
    }
    ++operands_;
  }
  uint32_t rows(uint32_t operand) const { return task_->tile[operand].rows; }
  uint32_t cols(uint32_t operand) const { return task_->tile[operand].cols; }

  // Extents that the kernel needs to be equal.
  void Agree(std::initializer_list<uint32_t> extents, uint32_t operand) {
    for (uint32_t extent : extents) {
      if (extent != *extents.begin()) {
        Fail(plan::kDisagree, operand, 0, extent, *extents.begin());
      }
    }
  }
  // Tiles that must not overlap, or (may_equal) only if they are the same.
  void Apart(uint32_t a, uint32_t b, bool may_equal) {
    const Region &one = regions_[a], &other = regions_[b];
    const bool same = one.Covers(other) && other.Covers(one);
    if (one.Meets(other) && !(may_equal && same)) {
      Fail(plan::kOverlap, a, 0, b, 0);
    }
  }
  // An index of the task has left the 64 bits.
  bool Check(const Exact &exact) {
    return exact.ok || Fail(plan::kOverflow, 0, 0, 0, 0);
  }
  void Scalar(int64_t word) { task_->arg[args_++] = word; }
  void Axis(int64_t value) { task_->arg[args_++] = value; }
  // The task waits for a point: of a stream, of a call named in after=[...].
  void After(uint32_t point) { after_.push_back(point); }

  // Puts the task into the table.
  bool End(uint64_t target) {
    if (plan_->error != plan::kOk) {
      return Stop(false);
    }
    if (!Admit()) {
      return false;
    }
    bool whole = true;
    for (uint32_t k = 0; k < operands_; ++k) {
      whole = whole && !regions_[k].Empty();
    }
    if (!whole && !Idle()) {
      return Stop(false);
    }
    task_->target = static_cast<uint32_t>(target);
    order_.Begin();
    for (uint32_t point : after_) {
      order_.After(point);
    }
    for (uint32_t k = 0; k < operands_; ++k) {
      hazards_.Each(regions_[k], (access_[k] & kOut) != 0,
                    [&](uint32_t point) { order_.After(point); });
    }
    point_ = order_.point();
    for (uint32_t k = 0; k < operands_; ++k) {
      hazards_.Add(regions_[k], (access_[k] & kOut) != 0, point_,
                   Order::kOrdered);
    }
    order_.Place(task_);
    after_.clear();
    ++rows_;
    return true;
  }
  // The point at which the last task ends.
  uint32_t Following() const { return point_; }

  // -- Order: a sequence of parts, with Next() after each

  Frame Open() { return order_.Open(); }
  void Next() { order_.Next(); }
  void Close(const Frame &outer) { order_.Close(outer); }

  // -- Slots and axes

  // Loads a slot from an element. `written`: tasks write to the tensor.
  bool Load(uint32_t number, uint32_t tensor, bool written,
            std::initializer_list<Dim> dims, uint32_t load) {
    call_ = load | plan::kIsLoad;
    uint64_t *log = reinterpret_cast<uint64_t *>(plan_->loads);
    const uint32_t at = written ? loads_++ : 0;
    if (written && at < plan_->numLoads) {
      slot_[number] = log[at];
      return true;
    }
    Region region;
    const uint64_t address = Find(tensor, dims, &region);
    if (plan_->error != plan::kOk) {
      return Stop(false);
    }
    uint32_t writer = 0;  // a task in the table that writes the element
    if (written) {
      hazards_.Each(region, false, [&](uint32_t point) { writer = point; });
    }
    if (writer > 0 && !order_.Reach(writer)) {
      return Stop(plan_->error == plan::kOk);
    }
    if (written && at == plan_->maxLoads) {  // the host makes it longer
      return Stop(rows_ > 0 ||
                  Fail(plan::kTooManyLoads, 0, 0, at, plan_->maxLoads));
    }
    slot_[number] = Element(address, plan::kType[tensor]);
    if (written) {
      log[at] = slot_[number];
      plan_->numLoads = at + 1;
    }
    return true;
  }
  // An element of a view: the index lies inside it.
  bool Inside(int64_t index, int64_t extent, uint32_t load) {
    if (index < 0 || index >= extent) {
      call_ = load | plan::kIsLoad;
      Fail(plan::kOutOfTensor, 0, 0, index, extent);
      return Stop(false);
    }
    return true;
  }

  // Positions [*first, *last) of one row of a sparse axis; the length of a row
  // of a ragged one is *last. False when there is no such row.
  bool Row(uint32_t number, int64_t row, int64_t *first, int64_t *last) {
    const plan::Axis &axis = plan_->axis[number];
    if (row < 0 || row >= axis.rows) {
      call_ = number | plan::kIsAxis;
      Fail(plan::kNoRow, 0, 0, row, axis.rows);
      return Stop(false);
    }
    const int32_t *entry = reinterpret_cast<const int32_t *>(axis.entries);
    *first = axis.indices == 0 ? 0 : entry[row];
    *last = axis.indices == 0 ? entry[row] : entry[row + 1];
    return true;
  }
  // The same for one flat loop over all rows.
  void AllRows(uint32_t number, int64_t *first, int64_t *last) const {
    const plan::Axis &axis = plan_->axis[number];
    const int32_t *entry = reinterpret_cast<const int32_t *>(axis.entries);
    *first = *last = 0;
    if (axis.indices != 0) {
      *first = entry[0];
      *last = entry[axis.rows];
      return;
    }
    for (int64_t row = 0; row < axis.rows; ++row) {
      *last += entry[row];
    }
  }
  int64_t Index(uint32_t number, int64_t at) const {
    return reinterpret_cast<const int32_t *>(plan_->axis[number].indices)[at];
  }
  // Notes what is wrong, unless something was before; false.
  bool Fail(plan::Error error, uint32_t operand, uint32_t dimension,
            int64_t found, int64_t bound) {
    if (plan_->error == plan::kOk) {
      plan_->error = error;
      plan_->errorTask = number_;
      plan_->errorCall = call_;
      plan_->errorOperand = operand;
      plan_->errorDimension = dimension;
      plan_->errorFound = found;
      plan_->errorBound = bound;
    }
    return false;
  }

  // Ends the pass; an Error.
  uint32_t Finish() {
    order_.Finish(rows_);
    const bool good = plan_->error == plan::kOk;
    plan_->numTasks = good ? rows_ : 0;
    plan_->numLevels = good ? plan_->numLevels : 0;
    plan_->more = good && more_ ? 1 : 0;
    AscendC::DataStoreBarrier();
    return plan_->error;
  }

 private:
  // Is there room for the task in the window?
  bool Admit() {
    const uint64_t weight = plan::kWindowUnit == plan::kTasks ? 1 : weight_;
    if (plan::kWindow > 0 && weight > plan::kWindow) {
      Fail(plan::kWindowTooSmall, 0, 0, static_cast<int64_t>(weight),
           static_cast<int64_t>(plan::kWindow));
      return Stop(false);
    }
    if (order_.MakeRoom(weight)) {
      return true;
    }
    Fail(plan::kWindowFull, 0, 0, rows_, static_cast<int64_t>(plan::kWindow));
    return Stop(false);
  }

  // Ends the pass; `more`: there is another one.
  bool Stop(bool more = true) {
    stopped_ = true;
    more_ = more;
    if (more && rows_ == 0) {
      Fail(plan::kTooManyTasks, 0, 0, 0, plan_->maxTasks);
      more_ = false;
    }
    return false;
  }

  // Address of the region's first element. Every index is checked here.
  uint64_t Find(uint32_t tensor, std::initializer_list<Dim> dims,
                Region *region) {
    const plan::Tensor &base = plan_->tensor[tensor];
    int64_t offset = 0;
    uint32_t d = 0;
    region->tensor = tensor;
    std::fill(region->first, region->first + plan::kMaxRank, 0);
    std::fill(region->last, region->last + plan::kMaxRank, 1);
    for (const Dim &dim : dims) {
      const int64_t end = std::min(base.shape[d], dim.high);
      const int64_t last = dim.role == kFixed ? end - 1 : end;
      if (dim.start < std::max<int64_t>(dim.low, 0) || dim.start > last) {
        Fail(plan::kOutOfTensor, operands_, d, dim.start, end);
        return base.addr;
      }
      region->first[d] = dim.start;
      region->last[d] = dim.start + std::min(dim.most, end - dim.start);
      offset += dim.start * base.stride[d];
      ++d;
    }
    return base.addr + static_cast<uint64_t>(offset) * base.elemBytes;
  }

  // A task without elements to write runs on no core.
  bool Idle() {
    for (uint32_t k = 0; k < operands_; ++k) {
      if ((access_[k] & kOut) != 0 && !regions_[k].Empty()) {
        return Fail(plan::kEmptyTile, k, 0, 0, 1);
      }
    }
    task_->core = plan::kNoCore;
    return true;
  }

  plan::Plan *plan_;
  plan::Task *tasks_;
  Hazards hazards_;
  Order order_;
  uint64_t skipped_;  // tasks that earlier passes have seen to
  uint64_t made_ = 0, number_ = 0;
  plan::Task *task_ = nullptr;
  Region regions_[plan::kOperands];
  Access access_[plan::kOperands];
  uint32_t operands_ = 0, args_ = 0, call_ = 0;
  uint32_t rows_ = 0, loads_ = 0;
  uint64_t weight_ = 0;  // of the task in the window
  std::vector<uint32_t> after_;
  uint32_t point_ = 0;
  bool stopped_ = false, more_ = false;
  uint64_t slot_[plan::kSlots] = {};
};

}  // namespace aicpu

#endif  // PTO_WSP_TASK_TABLE_H_
