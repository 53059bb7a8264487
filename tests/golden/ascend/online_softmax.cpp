// Kernel online_softmax, golden_kernels.py. Written by pto_wsp.
//
//   x: in tile 16x1024 f32
//   high: inout tile 16x1 f32
//   total: inout tile 16x1 f32
//
// tile             memory  offset  bytes  live   holds
// x                UB           0  65536  0-12   8x1024 f32, queue, x2
// high             UB       65536     64  0-12   8x1 f32, queue, x2
// total            UB       65600     64  0-12   8x1 f32, queue, x2
// total_2          UB       65664     64  0-12   8x1 f32, queue, x2
// new_high         UB       65728     64  0-12   8x1 f32, queue, x2
// rowmax_part      UB       65792    512  0-1    8x16 f32
// sub              UB       65792     32  3-4    8x1 f32
// shrink           UB       65792     32  4-5    8x1 f32
// mul              UB       65792     32  5-11   8x1 f32
// new_high_blocks  UB       65824    256  6-7    8x8 f32
// rowsum           UB       65824     32  10-11  8x1 f32
// sub_2            UB       66080  32768  7-8    8x1024 f32
// exp_2            UB       66080  32768  8-9    8x1024 f32
// rowmax           UB       66304     32  1-2    8x1 f32
// rowsum_part      UB       98848    512  9-10   8x16 f32
#ifndef PTO_WSP_KERNEL_ONLINE_SOFTMAX_H_
#define PTO_WSP_KERNEL_ONLINE_SOFTMAX_H_

#include "kernel_operator.h"

#ifndef PTO_WSP_GM_TILE
#define PTO_WSP_GM_TILE
// A tile in global memory. Element (r, c) lies r * rowStride + c * colStride
// elements after addr.
struct GmTile {
  GM_ADDR addr;
  int64_t rowStride, colStride;
  uint32_t rows, cols;  // that hold data in this task
};
#endif

namespace pto_online_softmax {

using namespace AscendC;

__aicore__ inline uint32_t Least(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

// Rows [first, first + rows) of a tile to UB, `pitch` elements apart there.
template <typename T>
__aicore__ inline void LoadRows(const LocalTensor<T> &ub, const GmTile &gm,
                                uint32_t first, uint32_t rows,
                                uint32_t pitch) {
  if (rows == 0 || gm.cols == 0) {
    return;
  }
  GlobalTensor<T> from;
  from.SetGlobalBuffer(
      (__gm__ T *)gm.addr + first * gm.rowStride,
      static_cast<uint64_t>((rows - 1) * gm.rowStride + gm.cols));
  if (gm.cols == pitch && (rows == 1 || gm.rowStride == pitch)) {
    DataCopy(ub, from, rows * pitch);  // whole blocks, one after another
    return;
  }
  const int64_t between = rows == 1 ? 0 : gm.rowStride - gm.cols;
  const uint32_t bytes = static_cast<uint32_t>(gm.cols * sizeof(T));
  const uint32_t pad = static_cast<uint32_t>(pitch * sizeof(T) - bytes);
  DataCopyPad(ub, from,
              DataCopyExtParams{static_cast<uint16_t>(rows), bytes,
                                static_cast<uint32_t>(between * sizeof(T)),
                                pad / 32, 0},
              DataCopyPadExtParams<T>{});
}

// Elements [first, first + rows) of a tile of one column, packed in UB.
template <typename T>
__aicore__ inline void LoadColumn(const LocalTensor<T> &ub, const GmTile &gm,
                                  uint32_t first, uint32_t rows) {
  if (rows == 0) {
    return;
  }
  GlobalTensor<T> from;
  from.SetGlobalBuffer((__gm__ T *)gm.addr + first, rows);
  DataCopyPad(ub, from,
              DataCopyExtParams{1, static_cast<uint32_t>(rows * sizeof(T)), 0,
                                0, 0},
              DataCopyPadExtParams<T>{});
}

// A packed column in UB to a tile of one column from element `first` on.
template <typename T>
__aicore__ inline void StoreColumn(const GmTile &gm, const LocalTensor<T> &ub,
                                   uint32_t first, uint32_t rows) {
  if (rows == 0) {
    return;
  }
  GlobalTensor<T> to;
  to.SetGlobalBuffer((__gm__ T *)gm.addr + first, rows);
  DataCopyPad(to, ub,
              DataCopyExtParams{1, static_cast<uint32_t>(rows * sizeof(T)), 0,
                                0, 0});
}

__aicore__ inline void Run(TPipe *pipe, const GmTile &x_gm,
                           const GmTile &high_gm, const GmTile &total_gm) {
  TQue<TPosition::VECIN, 1> x_in;
  pipe->InitBuffer(x_in, 2, 32768);
  TQue<TPosition::VECIN, 1> high_in;
  pipe->InitBuffer(high_in, 2, 32);
  TQue<TPosition::VECIN, 1> total_in;
  pipe->InitBuffer(total_in, 2, 32);
  TQue<TPosition::VECOUT, 1> total_2_out;
  pipe->InitBuffer(total_2_out, 2, 32);
  TQue<TPosition::VECOUT, 1> new_high_out;
  pipe->InitBuffer(new_high_out, 2, 32);
  TBuf<TPosition::VECCALC> arena;
  pipe->InitBuffer(arena, 33568);
  LocalTensor<float> rowmax_part = arena.GetWithOffset<float>(128, 0);
  LocalTensor<float> rowmax = arena.GetWithOffset<float>(8, 512);
  LocalTensor<float> sub = arena.GetWithOffset<float>(8, 0);
  LocalTensor<float> shrink = arena.GetWithOffset<float>(8, 0);
  LocalTensor<float> mul = arena.GetWithOffset<float>(8, 0);
  LocalTensor<float> new_high_blocks = arena.GetWithOffset<float>(64, 32);
  LocalTensor<float> sub_2 = arena.GetWithOffset<float>(8192, 288);
  LocalTensor<float> exp_2 = arena.GetWithOffset<float>(8192, 288);
  LocalTensor<float> rowsum_part = arena.GetWithOffset<float>(128, 33056);
  LocalTensor<float> rowsum = arena.GetWithOffset<float>(8, 32);
  for (uint32_t first = 0; first < x_gm.rows; first += 8) {
    const uint32_t n = Least(x_gm.rows - first, 8);
    LocalTensor<float> x = x_in.AllocTensor<float>();
    LoadRows(x, x_gm, first, n, 1024);
    x_in.EnQue(x);
    x = x_in.DeQue<float>();
    LocalTensor<float> high = high_in.AllocTensor<float>();
    LoadColumn(high, high_gm, first, n);
    high_in.EnQue(high);
    high = high_in.DeQue<float>();
    LocalTensor<float> total = total_in.AllocTensor<float>();
    LoadColumn(total, total_gm, first, n);
    total_in.EnQue(total);
    total = total_in.DeQue<float>();
    // golden_kernels.py:19: new_high = pto.maximum(high, pto.rowmax(x))
    PipeBarrier<PIPE_V>();
    for (uint32_t r = 0; r < n; ++r) {
      WholeReduceMax(rowmax_part[r * 16], x[r * 1024], 64, x_gm.cols / 64, 1, 1,
                     8, ReduceOrder::ORDER_ONLY_VALUE);
      if (x_gm.cols % 64 != 0) {
        WholeReduceMax(rowmax_part[r * 16 + x_gm.cols / 64],
                       x[r * 1024 + x_gm.cols / 64 * 64], x_gm.cols % 64, 1, 1,
                       1, 8, ReduceOrder::ORDER_ONLY_VALUE);
      }
    }
    PipeBarrier<PIPE_V>();
    WholeReduceMax(rowmax, rowmax_part, (x_gm.cols + 63) / 64, n, 1, 1, 2,
                   ReduceOrder::ORDER_ONLY_VALUE);
    PipeBarrier<PIPE_V>();
    LocalTensor<float> new_high = new_high_out.AllocTensor<float>();
    Max(new_high, high, rowmax, n);
    // golden_kernels.py:20: shrink = pto.exp(high - new_high)
    PipeBarrier<PIPE_V>();
    Sub(sub, high, new_high, n);
    high_in.FreeTensor(high);
    PipeBarrier<PIPE_V>();
    Exp(shrink, sub, n);
    // golden_kernels.py:21: pto.store(total, total * shrink + pto.rowsum(...
    PipeBarrier<PIPE_V>();
    Mul(mul, total, shrink, n);
    total_in.FreeTensor(total);
    Brcb(new_high_blocks, new_high, (n + 7) / 8, {1, 8});
    PipeBarrier<PIPE_V>();
    for (uint32_t c = 0; c < 1024; c += 64) {
      Sub(sub_2[c], x[c], new_high_blocks, 64, static_cast<uint8_t>(n),
          {1, 1, 0, 128, 128, 1});
    }
    x_in.FreeTensor(x);
    PipeBarrier<PIPE_V>();
    Exp(exp_2, sub_2, n * 1024);
    PipeBarrier<PIPE_V>();
    for (uint32_t r = 0; r < n; ++r) {
      WholeReduceSum(rowsum_part[r * 16], exp_2[r * 1024], 64, x_gm.cols / 64,
                     1, 1, 8);
      if (x_gm.cols % 64 != 0) {
        WholeReduceSum(rowsum_part[r * 16 + x_gm.cols / 64],
                       exp_2[r * 1024 + x_gm.cols / 64 * 64], x_gm.cols % 64, 1,
                       1, 1, 8);
      }
    }
    PipeBarrier<PIPE_V>();
    WholeReduceSum(rowsum, rowsum_part, (x_gm.cols + 63) / 64, n, 1, 1, 2);
    PipeBarrier<PIPE_V>();
    LocalTensor<float> total_2 = total_2_out.AllocTensor<float>();
    Add(total_2, mul, rowsum, n);
    total_2_out.EnQue(total_2);
    total_2 = total_2_out.DeQue<float>();
    StoreColumn(total_gm, total_2, first, n);
    total_2_out.FreeTensor(total_2);
    new_high_out.EnQue(new_high);
    new_high = new_high_out.DeQue<float>();
    StoreColumn(high_gm, new_high, first, n);
    new_high_out.FreeTensor(new_high);
  }
}

}  // namespace pto_online_softmax

#endif  // PTO_WSP_KERNEL_ONLINE_SOFTMAX_H_

extern "C" __global__ __aicore__ void online_softmax(GM_ADDR x,
                                                     int64_t x_row_stride,
                                                     int64_t x_col_stride,
                                                     uint32_t x_rows,
                                                     uint32_t x_cols,
                                                     GM_ADDR high,
                                                     int64_t high_row_stride,
                                                     int64_t high_col_stride,
                                                     uint32_t high_rows,
                                                     uint32_t high_cols,
                                                     GM_ADDR total,
                                                     int64_t total_row_stride,
                                                     int64_t total_col_stride,
                                                     uint32_t total_rows,
                                                     uint32_t total_cols) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  AscendC::TPipe pipe;
  pto_online_softmax::Run(
      &pipe, GmTile{x, x_row_stride, x_col_stride, x_rows, x_cols},
      GmTile{high, high_row_stride, high_col_stride, high_rows, high_cols},
      GmTile{total, total_row_stride, total_col_stride, total_rows,
             total_cols});
}
