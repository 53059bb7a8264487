// What ran where: errors by name, one line per task, a summary per kernel.
#pragma once

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "host/program.h"
#include "include/plan.h"

// kernel[axis values], as the user wrote the call.
inline std::string TaskName(const plan::Task& task) {
  const program::Call& call = program::kCalls[task.call];
  std::string name = call.name;
  for (uint32_t k = 0; k < call.axes; ++k) {
    name += (k == 0 ? "[" : ", ") + std::to_string(task.arg[call.scalars + k]);
  }
  return name + (call.axes > 0 ? "]" : "");
}

// What the task generator found wrong. task: the one it was about, when there
// is one; its axis values are known.
inline std::string ErrorText(const plan::Plan& p, const plan::Task* task) {
  const auto number = [](int64_t n) { return std::to_string(n); };
  std::string where = "task " + std::to_string(p.errorTask);
  std::string operand = "operand " + std::to_string(p.errorOperand);
  if ((p.errorCall & plan::kIsLoad) != 0) {
    where = "a slot that is loaded";
    operand = "the tensor";
  } else if ((p.errorCall & plan::kIsAxis) != 0) {
    where = "a loop";
  } else if (p.errorCall < program::kCalls.size()) {
    const program::Call& call = program::kCalls[p.errorCall];
    where += ", " + (task != nullptr ? TaskName(*task) : call.name) + " (" +
             call.line + ")";
    if (p.errorOperand < plan::kOperands &&
        call.operands[p.errorOperand] != nullptr) {
      operand = call.operands[p.errorOperand];
    }
  }
  const std::string found = number(p.errorFound), bound = number(p.errorBound);
  switch (p.error) {
    case plan::kBadHeader:
      return "the plan is not one of this program's";
    case plan::kTooManyTasks:
      return "the table has room for no task";
    case plan::kOutOfTensor:
      return where + ": position " + found + " of dimension " +
             std::to_string(p.errorDimension) + " of " + operand +
             ", which ends at " + bound;
    case plan::kBadStride:
      return where + ": elements of " + operand + " lie " + found +
             " apart, the kernel needs them next to each other";
    case plan::kTooFarApart:
      return where + ": elements of " + operand + " lie " + found +
             " bytes apart, a copy reaches " + bound;
    case plan::kOverflow:
      return where + ": an index has left the 64 bits";
    case plan::kDisagree:
      return where + ": extents of partial tiles differ: " + found + " and " +
             bound;
    case plan::kEmptyTile:
      return where + ": " + operand +
             " has elements, but another tile has none";
    case plan::kOverlap:
      return where + ": " + operand + " overlaps another operand";
    case plan::kNoRow:
      return where + ": axis " +
             (p.errorOperand < program::kAxes.size()
                  ? program::kAxes[p.errorOperand].name
                  : "?") +
             " has " + bound + " rows and no row " + found;
    case plan::kWindowTooSmall:
      return where + " needs " + found + " of a window of " + bound;
    case plan::kWindowFull:
      return where + ": the window of " + bound + " is full";
    default:
      return where + ": error " + std::to_string(p.error);
  }
}

class Report {
 public:
  // path: a file for one line per task, or nothing
  Report(const std::string& path, uint32_t workers) : workers_(workers) {
    if (path.empty()) {
      return;
    }
    file_.open(path, std::ios::trunc);
    if (!file_) {
      throw std::runtime_error("cannot write " + path);
    }
    file_ << "task,round,level,call,target,worker,begin,end,axes\n";
  }

  // One pass. Throws when a task did not run.
  void Add(const plan::Plan& p, const std::vector<plan::Task>& tasks,
           const std::vector<plan::Record>& records) {
    for (size_t k = 0; k < tasks.size(); ++k) {
      if (records[k].runs != 1) {
        throw std::runtime_error("task " + std::to_string(tasks[k].id) + ", " +
                                 TaskName(tasks[k]) + ", ran " +
                                 std::to_string(records[k].runs) + " times");
      }
      const uint64_t cycles = records[k].end - records[k].begin;
      Sum& sum = sums_[program::kCalls[tasks[k].call].kernel];
      sum.tasks += 1;
      sum.cycles += cycles;
      sum.most = std::max(sum.most, cycles);
      AddLine(tasks[k], records[k]);
    }
    tasks_ += tasks.size();
    levels_ += p.numLevels;
    rounds_ += p.numRounds;
  }

  void Print() {
    if (file_.is_open() && !file_.flush()) {
      throw std::runtime_error("cannot write all of the report");
    }
    std::printf("%s: %" PRIu64 " tasks on %u workers, %" PRIu64
                " levels, %u rounds\n",
                program::kTitle, tasks_, workers_, levels_, rounds_);
    for (size_t k = 0; k < program::kKernels.size(); ++k) {
      const Sum& sum = sums_[k];
      std::printf("  %-24s %8" PRIu64 " tasks, %10" PRIu64
                  " cycles each, %10" PRIu64 " at most\n",
                  program::kKernels[k].name, sum.tasks,
                  sum.tasks > 0 ? sum.cycles / sum.tasks : 0, sum.most);
    }
  }

 private:
  struct Sum {
    uint64_t tasks = 0, cycles = 0, most = 0;
  };

  void AddLine(const plan::Task& task, const plan::Record& record) {
    if (!file_.is_open()) {
      return;
    }
    const program::Call& call = program::kCalls[task.call];
    file_ << task.id << ',' << task.round << ',' << task.level << ',' << task.call
          << ',' << task.target << ',' << record.worker << ',' << record.begin
          << ',' << record.end << ',';
    for (uint32_t a = 0; a < call.axes; ++a) {
      file_ << (a == 0 ? "" : " ") << task.arg[call.scalars + a];
    }
    file_ << '\n';
  }

  uint32_t workers_;
  std::ofstream file_;
  uint64_t tasks_ = 0, levels_ = 0;
  uint32_t rounds_ = 0;
  std::array<Sum, program::kKernels.size() + 1> sums_;
};
