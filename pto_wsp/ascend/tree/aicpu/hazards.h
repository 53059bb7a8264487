// Regions of tensors, and which tasks have touched them.
#ifndef PTO_WSP_HAZARDS_H_
#define PTO_WSP_HAZARDS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "include/plan.h"

namespace aicpu {

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

}  // namespace aicpu

#endif  // PTO_WSP_HAZARDS_H_
