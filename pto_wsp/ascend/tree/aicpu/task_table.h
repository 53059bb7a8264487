// Kernel calls become rows of the task table: regions checked, levels found.
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
// Feeder. Else the table is filled first: see Levels. It is bounded. When it is full, or a slot is to be loaded from an
// element that a task in it writes, the pass ends with `more`; the workers
// empty the table, and the next pass runs through the loops again, skipping the
// tasks that were run and taking the slots' values from a log.
#ifndef PTO_WSP_TASK_TABLE_H_
#define PTO_WSP_TASK_TABLE_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <initializer_list>
#include <type_traits>
#include <vector>

#include "aicpu_api.h"
#include "include/plan.h"

namespace aicpu {

// ---- Numbers: 64 bits that wrap, as the simulator computes --------------

inline int64_t WrapAdd(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) +
                              static_cast<uint64_t>(b));
}
inline int64_t WrapSub(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) -
                              static_cast<uint64_t>(b));
}
inline int64_t WrapMul(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) *
                              static_cast<uint64_t>(b));
}

// C's quotient and remainder; 0 for a zero divisor.
inline int64_t Quotient(int64_t a, int64_t b) {
  return b == 0 ? 0 : b == -1 ? WrapSub(0, a) : a / b;
}
inline int64_t Remainder(int64_t a, int64_t b) {
  return b == 0 || b == -1 ? 0 : a % b;
}
inline uint64_t Quotient(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }
inline uint64_t Remainder(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }

// Less than 0, 0 or more than 0, as the numbers compare in mathematics.
inline int Compare(int64_t a, uint64_t b) {
  if (a < 0 || static_cast<uint64_t>(a) < b) {
    return -1;
  }
  return static_cast<uint64_t>(a) == b ? 0 : 1;
}
inline int Compare(uint64_t a, int64_t b) { return -Compare(b, a); }

// Sums and products of an index: `ok` tells whether all of them were exact.
struct Exact {
  bool ok = true;
  template <typename T>
  T Add(T a, T b) {
    T sum;
    ok = !__builtin_add_overflow(a, b, &sum) && ok;
    return sum;
  }
  template <typename T>
  T Sub(T a, T b) {
    T difference;
    ok = !__builtin_sub_overflow(a, b, &difference) && ok;
    return difference;
  }
  template <typename T>
  T Mul(T a, T b) {
    T product;
    ok = !__builtin_mul_overflow(a, b, &product) && ok;
    return product;
  }
};

template <typename T, typename F>
inline T BitsAs(F from) {
  static_assert(sizeof(T) == sizeof(F), "the same bits");
  T to;
  std::memcpy(&to, &from, sizeof(T));
  return to;
}
// The argument word of an integer: the low bits, as T has them.
template <typename T>
inline int64_t Word(uint64_t bits) {
  return static_cast<int64_t>(static_cast<T>(bits));
}
template <typename T>
inline int64_t Word(int64_t value) {
  return static_cast<int64_t>(static_cast<T>(value));
}
template <typename T>
inline int64_t Word(bool value) {
  return value ? 1 : 0;
}
// The argument word of a float.
inline int64_t FloatWord(float x) { return BitsAs<uint32_t>(x); }
// An integer's float, rounded to the nearest half or bfloat16 (ties to even).
inline float RoundTo(float x, uint32_t cut, float most) {
  const uint32_t bits = BitsAs<uint32_t>(x);
  const uint32_t up = (1u << (cut - 1)) - 1 + ((bits >> cut) & 1);
  const float near = BitsAs<float>((bits + up) >> cut << cut);
  if (near > most || near < -most) {
    return BitsAs<float>((bits & 0x80000000u) | 0x7F800000u);
  }
  return near;
}
inline float AsHalf(float x) {
  const float size = x < 0 ? -x : x;
  if (!(size < 6.103515625e-05f)) {
    return x == x ? RoundTo(x, 13, 65504.0f) : x;
  }
  const float whole = size * 16777216.0f;  // subnormal: a multiple of 2^-24
  uint32_t n = static_cast<uint32_t>(whole);
  const float rest = whole - static_cast<float>(n);
  n += rest > 0.5f || (rest == 0.5f && n % 2 == 1) ? 1 : 0;
  const float near = static_cast<float>(n) / 16777216.0f;
  return x < 0 ? -near : near;
}
inline float AsBfloat16(float x) {
  return x == x ? RoundTo(x, 16, 3.3895314e38f) : x;
}

// An element as a slot holds it: integers extended by their sign, floats
// truncated; what a slot cannot hold becomes its nearest value, NaN 0.
inline uint64_t Truncated(double x) {
  if (!(x > 0)) {
    return 0;
  }
  return x >= 18446744073709551616.0 ? UINT64_MAX : static_cast<uint64_t>(x);
}
template <typename T>
inline T Read(uint64_t address) {
  T value;
  std::memcpy(&value, reinterpret_cast<const void *>(address), sizeof(T));
  return value;
}
inline double HalfAt(uint64_t address) {
  const uint16_t bits = Read<uint16_t>(address);
  const uint32_t exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent == 31) {
    return fraction != 0 ? 0.0 : bits >> 15 != 0 ? -1.0 : 1e300;
  }
  const double size =
      exponent == 0 ? fraction / 16777216.0
                    : (1024 + fraction) / 16777216.0 *
                          static_cast<double>(1u << (exponent - 1));
  return bits >> 15 != 0 ? -size : size;
}
inline uint64_t Element(uint64_t address, plan::Type type) {
  switch (type) {
    case plan::kF16:
      return Truncated(HalfAt(address));
    case plan::kBf16:
      return Truncated(BitsAs<float>(
          static_cast<uint32_t>(Read<uint16_t>(address)) << 16));
    case plan::kF32:
      return Truncated(Read<float>(address));
    case plan::kF64:
      return Truncated(Read<double>(address));
    case plan::kI8:
      return static_cast<uint64_t>(int64_t{Read<int8_t>(address)});
    case plan::kI16:
      return static_cast<uint64_t>(int64_t{Read<int16_t>(address)});
    case plan::kI32:
      return static_cast<uint64_t>(int64_t{Read<int32_t>(address)});
    case plan::kU8:
      return Read<uint8_t>(address);
    case plan::kU16:
      return Read<uint16_t>(address);
    case plan::kU32:
      return Read<uint32_t>(address);
    default:
      return Read<uint64_t>(address);
  }
}

// ---- Regions -------------------------------------------------------------

constexpr int64_t kEnd = INT64_MAX;
enum Role : uint32_t { kFixed, kRows, kCols };
enum Access : uint32_t { kIn = 1, kOut = 2, kInOut = 3 };

// One dimension of a tensor under a tile: `most` positions from `start`, of
// which those beyond the tensor's or the view's end are not there. The start
// lies inside the view [low, high).
struct Dim {
  Role role;
  bool together;  // the kernel needs these elements next to each other
  int64_t start, most, low, high;
};
inline Dim At(int64_t index, int64_t low = 0, int64_t high = kEnd) {
  return {kFixed, false, index, 1, low, high};
}
inline Dim Rows(int64_t start, int64_t most, int64_t low = 0,
                int64_t high = kEnd) {
  return {kRows, false, start, most, low, high};
}
inline Dim Cols(int64_t start, int64_t most, int64_t low = 0,
                int64_t high = kEnd) {
  return {kCols, true, start, most, low, high};
}
// The rows of a tile of one column.
inline Dim Column(int64_t start, int64_t most, int64_t low = 0,
                  int64_t high = kEnd) {
  return {kRows, true, start, most, low, high};
}
// Columns that may lie at any distance.
inline Dim Across(int64_t start, int64_t most, int64_t low = 0,
                  int64_t high = kEnd) {
  return {kCols, false, start, most, low, high};
}

// Elements [first, last) of a tensor, per dimension.
struct Region {
  uint32_t tensor;
  int64_t first[plan::kMaxRank], last[plan::kMaxRank];
  bool Empty() const {
    for (uint32_t d = 0; d < plan::kMaxRank; ++d) {
      if (first[d] >= last[d]) {
        return true;
      }
    }
    return false;
  }
  bool Meets(const Region &other) const {
    for (uint32_t d = 0; d < plan::kMaxRank; ++d) {
      if (first[d] >= other.last[d] || other.first[d] >= last[d]) {
        return false;
      }
    }
    return tensor == other.tensor;
  }
  bool Covers(const Region &other) const {
    for (uint32_t d = 0; d < plan::kMaxRank; ++d) {
      if (other.first[d] < first[d] || last[d] < other.last[d]) {
        return false;
      }
    }
    return true;
  }
};

// ---- Who has touched what in this table ------------------------------------

// Tensors are cut into cells of about the size of their tiles. A claim says
// which part of its cell a task touches. A claim is forgotten when a later
// task that writes covers it: who comes next waits for that one. What a point
// is depends on the way of running, see Levels and Feeder.
class Hazards {
 public:
  explicit Hazards(const plan::Plan &p) {
    for (uint32_t t = 0; t < plan::kTensors; ++t) {
      if (!plan::kWritten[t]) {
        continue;
      }
      Grid &grid = grids_[t];
      std::copy(plan::kCell[t], plan::kCell[t] + plan::kMaxRank, grid.cell);
      while (Cells(p.tensor[t], &grid) > kMostCells) {
        for (int64_t &size : grid.cell) {
          size *= 2;
        }
      }
      grid.first = static_cast<int64_t>(cells_.size());
      cells_.resize(cells_.size() + static_cast<size_t>(grid.cells), -1);
    }
  }

  // Calls meet(point) for the tasks that a task which touches the region has
  // to wait for.
  template <typename Meet>
  void Each(const Region &region, bool writes, Meet meet) const {
    EachCell(region, [&](int64_t cell, const Region &) {
      for (int32_t c = cells_[cell]; c >= 0; c = claims_[c].next) {
        const Claim &claim = claims_[c];
        if ((writes || claim.writes) && claim.part.Meets(region)) {
          meet(claim.point);
        }
      }
    });
  }

  // The task that ends at this point touches the region. `ordered`: of two
  // points the later one is the greater one.
  void Add(const Region &region, bool writes, uint32_t point, bool ordered) {
    EachCell(region, [&](int64_t cell, const Region &part) {
      int32_t *link = &cells_[cell];
      while (*link >= 0) {
        Claim &claim = claims_[*link];
        const bool alike = ordered || claim.point == point;
        if (alike && claim.part.Covers(part) && claim.point >= point &&
            claim.writes == writes) {
          return;  // who would wait for this task waits for that one
        }
        if (part.Covers(claim.part) &&
            (writes || (alike && !claim.writes && claim.point <= point))) {
          const int32_t gone = *link;
          *link = claim.next;
          claim.next = free_;
          free_ = gone;
        } else {
          link = &claim.next;
        }
      }
      const int32_t made = New();
      claims_[made] = {part, point, writes, cells_[cell]};
      cells_[cell] = made;
    });
  }

 private:
  static constexpr int64_t kMostCells = 1 << 20;
  struct Grid {
    int64_t cell[plan::kMaxRank], count[plan::kMaxRank];
    int64_t first, cells;  // of this tensor among all cells
  };
  struct Claim {
    Region part;
    uint32_t point;
    bool writes;
    int32_t next;  // of the same cell, -1 for none
  };

  static int64_t Cells(const plan::Tensor &tensor, Grid *grid) {
    grid->cells = 1;
    for (uint32_t d = 0; d < plan::kMaxRank; ++d) {
      const int64_t size = d < tensor.rank ? tensor.shape[d] : 1;
      grid->count[d] =
          std::max<int64_t>(1, (size + grid->cell[d] - 1) / grid->cell[d]);
      grid->cells = grid->cells > kMostCells ? grid->cells
                                             : grid->cells * grid->count[d];
    }
    return grid->cells;
  }

  // visit(cell, part of the region in it)
  template <typename Visit>
  void EachCell(const Region &region, Visit visit) const {
    if (!plan::kWritten[region.tensor] || region.Empty()) {
      return;
    }
    const Grid &grid = grids_[region.tensor];
    int64_t at[plan::kMaxRank];
    for (uint32_t d = 0; d < plan::kMaxRank; ++d) {
      at[d] = region.first[d] / grid.cell[d];
    }
    for (bool going = true; going;) {
      int64_t cell = 0;
      Region part = region;
      for (uint32_t d = 0; d < plan::kMaxRank; ++d) {
        cell = cell * grid.count[d] + at[d];
        part.first[d] = std::max(part.first[d], at[d] * grid.cell[d]);
        part.last[d] = std::min(part.last[d], (at[d] + 1) * grid.cell[d]);
      }
      visit(grid.first + cell, part);
      going = false;
      for (uint32_t d = plan::kMaxRank; d-- > 0 && !going;) {
        going = ++at[d] * grid.cell[d] < region.last[d];
        if (!going) {
          at[d] = region.first[d] / grid.cell[d];
        }
      }
    }
  }

  int32_t New() {
    if (free_ < 0) {
      claims_.emplace_back();
      return static_cast<int32_t>(claims_.size()) - 1;
    }
    const int32_t claim = free_;
    free_ = claims_[claim].next;
    return claim;
  }

  Grid grids_[plan::kTensors];
  std::vector<int32_t> cells_;  // the first claim of each
  std::vector<Claim> claims_;
  int32_t free_ = -1;
};

// ---- Levels ----------------------------------------------------------------

// The order of tasks that are run after the table is full. A task ends at the
// point level + 1; what waits for it has that level or a later one. 0 is the
// beginning.
class Levels {
 public:
  static constexpr bool kOrdered = true;
  explicit Levels(plan::Plan *p) : plan_(p) {}

  void Begin() { level_ = ready_; }
  void After(uint32_t point) { level_ = std::max(level_, point); }
  // Where the task that has begun will end.
  uint32_t point() const { return level_ + 1; }
  void Place(plan::Task *task) {
    task->level = level_;
    done_ = std::max(done_, level_ + 1);
    levels_ = std::max(levels_, level_ + 1);
  }

  // Makes room for a task: there is none but in the next pass.
  bool MakeRoom(uint64_t) { return false; }
  // Waits until the point is reached: only the next pass can do that.
  bool Reach(uint32_t) { return false; }

  // A sequence: Next() after each part.
  struct Frame {
    uint32_t ready, done;
  };
  Frame Open() {
    const Frame outer = {ready_, done_};
    done_ = ready_;
    return outer;
  }
  void Next() { ready_ = done_; }
  void Close(const Frame &outer) {
    ready_ = outer.ready;
    done_ = std::max(done_, outer.done);
  }

  // The queue of each worker: its rows by level, then in program order.
  void Finish(uint32_t rows) {
    const plan::Task *tasks = reinterpret_cast<const plan::Task *>(plan_->tasks);
    const uint32_t workers = plan_->workers;
    uint32_t *start = reinterpret_cast<uint32_t *>(plan_->queue);
    uint32_t *queue = start + workers + 1;
    std::fill(start, start + workers + 1, 0u);
    std::vector<uint32_t> next(levels_ + 1, 0), byLevel(rows);
    for (uint32_t r = 0; r < rows; ++r) {
      ++start[tasks[r].target % workers + 1];
      ++next[tasks[r].level + 1];
    }
    for (uint32_t w = 0; w < workers; ++w) {
      start[w + 1] += start[w];
    }
    for (uint32_t level = 0; level < levels_; ++level) {
      next[level + 1] += next[level];
    }
    for (uint32_t r = 0; r < rows; ++r) {
      byLevel[next[tasks[r].level]++] = r;
    }
    std::vector<uint32_t> free(start, start + workers);
    for (uint32_t r : byLevel) {
      queue[free[tasks[r].target % workers]++] = r;
    }
    plan_->numLevels = levels_;
  }

 private:
  plan::Plan *plan_;
  uint32_t ready_ = 0, done_ = 0, level_ = 0, levels_ = 0;
};

// ---- Mailboxes -------------------------------------------------------------

// What another core has written, read anew.
inline uint32_t Look(const uint32_t *word) {
#if defined(__aarch64__)
  asm volatile("dc civac, %0" : : "r"(word) : "memory");
#endif
  AscendC::DataStoreBarrier();
  return *static_cast<const volatile uint32_t *>(word);
}

// The order of tasks that are run while others are made. A node is a task or
// the end of several tasks; a point is a node, counted from 1, and 0 is the
// beginning. A task that waits for nothing goes to its worker as soon as that
// is free.
class Feeder {
 public:
  static constexpr bool kOrdered = false;
  explicit Feeder(plan::Plan *p)
      : plan_(p), boxes_(reinterpret_cast<plan::Mailbox *>(p->mailboxes)) {
    workers_.resize(plan_->workers);
  }

  void Begin() {
    task_ = New();
    After(ready_);
  }
  void After(uint32_t point) { Edge(point, task_); }
  uint32_t point() const { return task_ + 1; }
  void Place(plan::Task *task) {
    nodes_[task_].row = static_cast<int64_t>(task->row);
    nodes_[task_].weight = weight_;
    live_ += weight_;
    step_.push_back(task_);
    if (--nodes_[task_].missing == 0) {
      Eligible(task_);
    }
    Serve();
  }

  // Waits until the window has room for a task of that weight.
  bool MakeRoom(uint64_t weight) {
    weight_ = weight;
    while (plan::kWindow > 0 && live_ + weight > plan::kWindow) {
      if (!Wait()) {
        return false;
      }
    }
    return true;
  }
  // Waits until the task has run.
  bool Reach(uint32_t point) {
    while (!nodes_[point - 1].done) {
      if (!Wait()) {
        return false;
      }
    }
    return true;
  }

  // A sequence: Next() after each part.
  struct Frame {
    uint32_t ready;
    std::vector<uint32_t> step;
  };
  Frame Open() {
    Frame outer = {ready_, {}};
    outer.step.swap(step_);
    return outer;
  }
  void Next() {
    if (step_.empty()) {
      return;
    }
    uint32_t gate = step_.front();
    if (step_.size() > 1) {
      gate = New();
      for (uint32_t node : step_) {
        Edge(node + 1, gate);
      }
      if (--nodes_[gate].missing == 0) {
        Done(gate);
      }
    }
    ready_ = gate + 1;
    step_.clear();
  }
  void Close(const Frame &outer) {
    Next();
    std::vector<uint32_t> step = outer.step;
    if (ready_ != outer.ready) {
      step.push_back(ready_ - 1);
    }
    step_.swap(step);
    ready_ = outer.ready;
  }

  // Waits for all tasks and sends the workers home.
  void Finish(uint32_t) {
    while (busy_ > 0 || waiting_ > 0) {
      if (!Wait()) {
        break;
      }
    }
    for (uint32_t w = 0; w < plan_->workers; ++w) {
      boxes_[w].go.word = plan::kStop;
    }
    AscendC::DataStoreBarrier();
  }

 private:
  static constexpr uint64_t kPatience = uint64_t{1} << 32;  // looks in vain
  struct Node {
    uint32_t missing = 1;  // predecessors, and the making of the node itself
    uint32_t stamp = 0;    // the last node that waits for it
    int64_t row = -1;      // of a task
    uint64_t weight = 0;   // in the window
    bool done = false;
    std::vector<uint32_t> next;
  };
  struct Worker {
    std::deque<uint32_t> eligible;
    uint32_t node = 0, go = 0;  // what it runs; go 0: nothing
  };

  uint32_t New() {
    nodes_.emplace_back();
    return static_cast<uint32_t>(nodes_.size()) - 1;
  }
  void Edge(uint32_t point, uint32_t node) {
    if (point == 0 || nodes_[point - 1].done ||
        nodes_[point - 1].stamp == node) {
      return;
    }
    nodes_[point - 1].stamp = node;
    nodes_[point - 1].next.push_back(node);
    ++nodes_[node].missing;
  }
  // All that the node waits for is done, and the node with it.
  void Done(uint32_t node) {
    std::vector<uint32_t> ended = {node};
    while (!ended.empty()) {
      const uint32_t last = ended.back();
      ended.pop_back();
      nodes_[last].done = true;
      for (uint32_t next : nodes_[last].next) {
        if (--nodes_[next].missing == 0) {
          if (nodes_[next].row < 0) {
            ended.push_back(next);
          } else {
            Eligible(next);
          }
        }
      }
      nodes_[last].next.clear();
    }
  }
  plan::Task &TaskOf(uint32_t node) {
    return reinterpret_cast<plan::Task *>(plan_->tasks)[nodes_[node].row];
  }
  void Eligible(uint32_t node) {
    const uint32_t target = TaskOf(node).target % plan_->workers;
    (plan::kPolicy == plan::kWorkSteal ? any_ : workers_[target].eligible)
        .push_back(node);
    ++waiting_;
  }

  // Hears of tasks that have run, gives eligible ones to free workers.
  void Serve() {
    for (uint32_t w = 0; w < plan_->workers; ++w) {
      Worker &worker = workers_[w];
      if (worker.go != 0 && Ended(w)) {
        worker.go = 0;
        --busy_;
        live_ -= nodes_[worker.node].weight;
        looks_ = 0;
        Done(worker.node);
      }
    }
    for (uint32_t w = 0; w < plan_->workers; ++w) {
      Worker &worker = workers_[w];
      std::deque<uint32_t> &from =
          plan::kPolicy == plan::kWorkSteal ? any_ : worker.eligible;
      if (worker.go == 0 && !from.empty()) {
        worker.node = from.front();
        from.pop_front();
        --waiting_;
        Send(w);
      }
    }
  }
  bool Ended(uint32_t w) {
    for (const plan::Word &done : boxes_[w].done) {
      if (Look(&done.word) != workers_[w].go) {
        return false;
      }
    }
    return true;
  }
  // The task first, then the word that tells of it.
  void Send(uint32_t w) {
    plan::Task &task = TaskOf(workers_[w].node);
    if (plan::kPolicy == plan::kWorkSteal) {
      task.target = w;
    }
    workers_[w].go = task.row + 1;
    ++busy_;
    AscendC::DataStoreBarrier();
    boxes_[w].go.word = workers_[w].go;
    AscendC::DataStoreBarrier();
  }
  // Until something may have changed; false when no worker answers.
  bool Wait() {
    if (++looks_ > kPatience || busy_ == 0) {
      if (plan_->error == plan::kOk) {
        plan_->error = plan::kNoAnswer;
      }
      return false;
    }
    Serve();
    return true;
  }

  plan::Plan *plan_;
  plan::Mailbox *boxes_;
  std::vector<Node> nodes_;
  std::vector<Worker> workers_;
  std::deque<uint32_t> any_;     // eligible tasks that any worker may take
  std::vector<uint32_t> step_;   // nodes of this part of the sequence
  uint32_t task_ = 0, ready_ = 0;
  uint32_t busy_ = 0, waiting_ = 0;  // workers; eligible tasks
  uint64_t weight_ = 1, live_ = 0, looks_ = 0;
};

// ---- The table -------------------------------------------------------------

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
        skipped_(p->firstTask),
        most_(p->maxTasks) {
    if (!plan::kMailboxes && plan::kWindowUnit == plan::kTasks &&
        plan::kWindow > 0) {
      most_ = std::min<uint64_t>(most_, plan::kWindow);
    }
  }

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
    if (rows_ == most_) {
      return Full();
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
      ++d;
    }
    access_[operands_] = access;
    weight_ += plan::kWindowUnit == plan::kEntries ? 1 : 0;
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
    if (plan::kMailboxes) {
      return order_.MakeRoom(weight) || Stop(false);
    }
    if (plan::kWindow > 0 && used_ + weight > plan::kWindow) {
      return Full();
    }
    used_ += weight;
    return true;
  }
  // The window holds no more tasks.
  bool Full() {
    if (plan::kWindowAborts) {
      Fail(plan::kWindowFull, 0, 0, rows_, static_cast<int64_t>(plan::kWindow));
    }
    return Stop(!plan::kWindowAborts);
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
  uint64_t most_;  // rows of this pass
  uint64_t weight_ = 0, used_ = 0;                // of the window
  std::vector<uint32_t> after_;
  uint32_t point_ = 0;
  bool stopped_ = false, more_ = false;
  uint64_t slot_[plan::kSlots] = {};
};

}  // namespace aicpu

#endif  // PTO_WSP_TASK_TABLE_H_
