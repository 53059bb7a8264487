// The order of tasks that are run after the table is full.
#ifndef PTO_WSP_LEVELS_H_
#define PTO_WSP_LEVELS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "include/plan.h"

namespace aicpu {

// The order of tasks that are run after the table is full. A task ends at the
// point level + 1; what waits for it has that level or a later one. 0 is the
// beginning. A window cuts the levels into rounds: what does not fit any more
// has levels after all that there is, and begins when that is done.
class Levels {
 public:
  static constexpr bool kOrdered = true;
  explicit Levels(plan::Plan *p) : plan_(p), round_(p->firstRound) {}

  void Begin() { level_ = std::max(ready_, floor_); }
  void After(uint32_t point) { level_ = std::max(level_, point); }
  // Where the task that has begun will end.
  uint32_t point() const { return level_ + 1; }
  void Place(plan::Task *task) {
    task->level = level_;
    task->round = round_;
    done_ = std::max(done_, level_ + 1);
    levels_ = std::max(levels_, level_ + 1);
  }

  // Makes room for a task in the window; false when nothing may wait for it.
  bool MakeRoom(uint64_t weight) {
    if (plan::kWindow > 0 && used_ + weight > plan::kWindow) {
      if (plan::kWindowAborts) {
        return false;
      }
      floor_ = levels_;
      ++round_;
      used_ = 0;
    }
    used_ += weight;
    return true;
  }
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
    const plan::Task *tasks =
        reinterpret_cast<const plan::Task *>(plan_->tasks);
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
    plan_->numRounds = round_ - plan_->firstRound + 1;
  }

 private:
  plan::Plan *plan_;
  uint32_t ready_ = 0, done_ = 0, level_ = 0, levels_ = 0;
  uint32_t floor_ = 0, round_;  // the first level of this round
  uint64_t used_ = 0;           // of the window
};

}  // namespace aicpu

#endif  // PTO_WSP_LEVELS_H_
