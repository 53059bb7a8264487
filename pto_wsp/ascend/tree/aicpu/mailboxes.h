// The order of tasks that are run while others are made.
#ifndef PTO_WSP_MAILBOXES_H_
#define PTO_WSP_MAILBOXES_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "aicpu_api.h"
#include "include/plan.h"

namespace aicpu {

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
    task->round = plan_->firstRound;
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
    plan_->numRounds = 1;
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

}  // namespace aicpu

#endif  // PTO_WSP_MAILBOXES_H_
