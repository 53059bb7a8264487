// Kernel rmsnorm, golden_kernels.py. Written by pto_wsp.
//
//   x: in tile 64x4096 f32
//   weight: in tile 1x4096 f32
//   out: out tile 64x4096 f32
//   eps: scalar f32
//
// tile          memory  offset  bytes  live  holds
// x             UB           0  65536  0-11  2x4096 f32, queue, x2
// weight        UB       65536  16384  0-11  1x4096 f32, queue
// out           UB       81920  65536  0-11  2x4096 f32, queue, x2
// mul           UB      147456  32768  0-1   2x4096 f32
// rowmean       UB      147456     32  2-4   2x1 f32
// add           UB      147456     32  4-5   2x1 f32
// sqrt_2        UB      147456     32  5-7   2x1 f32
// ones          UB      147488     32  6-7   2x1 f32
// scale         UB      147488     32  7-8   2x1 f32
// scale_blocks  UB      147520    256  8-9   2x8 f32
// mul_2         UB      147776  32768  9-10  2x4096 f32
// rowmean_part  UB      180224    512  1-2   2x64 f32
#ifndef PTO_WSP_KERNEL_RMSNORM_H_
#define PTO_WSP_KERNEL_RMSNORM_H_

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

namespace pto_rmsnorm {

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

// `rows` rows in UB, `pitch` elements apart, to a tile from row `first` on.
template <typename T>
__aicore__ inline void StoreRows(const GmTile &gm, const LocalTensor<T> &ub,
                                 uint32_t first, uint32_t rows,
                                 uint32_t pitch) {
  if (rows == 0 || gm.cols == 0) {
    return;
  }
  GlobalTensor<T> to;
  to.SetGlobalBuffer(
      (__gm__ T *)gm.addr + first * gm.rowStride,
      static_cast<uint64_t>((rows - 1) * gm.rowStride + gm.cols));
  if (gm.cols == pitch && (rows == 1 || gm.rowStride == pitch)) {
    DataCopy(to, ub, rows * pitch);  // whole blocks, one after another
    return;
  }
  const int64_t between = rows == 1 ? 0 : gm.rowStride - gm.cols;
  const uint32_t bytes = static_cast<uint32_t>(gm.cols * sizeof(T));
  const uint32_t pad = static_cast<uint32_t>(pitch * sizeof(T) - bytes);
  DataCopyPad(to, ub,
              DataCopyExtParams{static_cast<uint16_t>(rows), bytes, pad / 32,
                                static_cast<uint32_t>(between * sizeof(T)),
                                0});
}

__aicore__ inline void Run(TPipe *pipe, const GmTile &x_gm,
                           const GmTile &weight_gm, const GmTile &out_gm,
                           float eps) {
  TQue<TPosition::VECIN, 1> x_in;
  pipe->InitBuffer(x_in, 2, 32768);
  TQue<TPosition::VECIN, 1> weight_in;
  pipe->InitBuffer(weight_in, 1, 16384);
  TQue<TPosition::VECOUT, 1> out_out;
  pipe->InitBuffer(out_out, 2, 32768);
  TBuf<TPosition::VECCALC> arena;
  pipe->InitBuffer(arena, 33280);
  LocalTensor<float> mul = arena.GetWithOffset<float>(8192, 0);
  LocalTensor<float> rowmean_part = arena.GetWithOffset<float>(128, 32768);
  LocalTensor<float> rowmean = arena.GetWithOffset<float>(8, 0);
  LocalTensor<float> add = arena.GetWithOffset<float>(8, 0);
  LocalTensor<float> sqrt_2 = arena.GetWithOffset<float>(8, 0);
  LocalTensor<float> ones = arena.GetWithOffset<float>(8, 32);
  LocalTensor<float> scale = arena.GetWithOffset<float>(8, 32);
  LocalTensor<float> scale_blocks = arena.GetWithOffset<float>(64, 64);
  LocalTensor<float> mul_2 = arena.GetWithOffset<float>(8192, 320);
  LocalTensor<float> weight = weight_in.AllocTensor<float>();
  LoadRows(weight, weight_gm, 0, 1, 4096);
  weight_in.EnQue(weight);
  weight = weight_in.DeQue<float>();
  for (uint32_t first = 0; first < x_gm.rows; first += 2) {
    const uint32_t n = Least(x_gm.rows - first, 2);
    LocalTensor<float> x = x_in.AllocTensor<float>();
    LoadRows(x, x_gm, first, n, 4096);
    x_in.EnQue(x);
    x = x_in.DeQue<float>();
    // golden_kernels.py:13: scale = pto.rsqrt(pto.rowmean(x * x) + eps)
    PipeBarrier<PIPE_V>();
    Mul(mul, x, x, n * 4096);
    PipeBarrier<PIPE_V>();
    for (uint32_t r = 0; r < n; ++r) {
      WholeReduceSum(rowmean_part[r * 64], mul[r * 4096], 64, x_gm.cols / 64, 1,
                     1, 8);
      if (x_gm.cols % 64 != 0) {
        WholeReduceSum(rowmean_part[r * 64 + x_gm.cols / 64],
                       mul[r * 4096 + x_gm.cols / 64 * 64], x_gm.cols % 64, 1,
                       1, 1, 8);
      }
    }
    PipeBarrier<PIPE_V>();
    WholeReduceSum(rowmean, rowmean_part, (x_gm.cols + 63) / 64, n, 1, 1, 8);
    PipeBarrier<PIPE_V>();
    Muls(rowmean, rowmean, 1.0f / static_cast<float>(x_gm.cols), n);
    PipeBarrier<PIPE_V>();
    Adds(add, rowmean, eps, n);
    PipeBarrier<PIPE_V>();
    Sqrt(sqrt_2, add, n);
    Duplicate(ones, 1.0f, n);
    PipeBarrier<PIPE_V>();
    Div(scale, ones, sqrt_2, n);
    // golden_kernels.py:14: pto.store(out, x * scale * weight)
    PipeBarrier<PIPE_V>();
    Brcb(scale_blocks, scale, (n + 7) / 8, {1, 8});
    PipeBarrier<PIPE_V>();
    for (uint32_t r = 0; r < n; ++r) {
      Mul(mul_2[r * 4096], x[r * 4096], scale_blocks[r * 8], 64, 64,
          {1, 1, 0, 8, 8, 0});
    }
    x_in.FreeTensor(x);
    PipeBarrier<PIPE_V>();
    LocalTensor<float> out = out_out.AllocTensor<float>();
    for (uint32_t r = 0; r < n; ++r) {
      Mul(out[r * 4096], mul_2[r * 4096], weight, 4096);
    }
    out_out.EnQue(out);
    out = out_out.DeQue<float>();
    StoreRows(out_gm, out, first, n, 4096);
    out_out.FreeTensor(out);
  }
  weight_in.FreeTensor(weight);
}

}  // namespace pto_rmsnorm

#endif  // PTO_WSP_KERNEL_RMSNORM_H_

extern "C" __global__ __aicore__ void rmsnorm(GM_ADDR x, int64_t x_row_stride,
                                              int64_t x_col_stride,
                                              uint32_t x_rows, uint32_t x_cols,
                                              GM_ADDR weight,
                                              int64_t weight_row_stride,
                                              int64_t weight_col_stride,
                                              uint32_t weight_rows,
                                              uint32_t weight_cols, GM_ADDR out,
                                              int64_t out_row_stride,
                                              int64_t out_col_stride,
                                              uint32_t out_rows,
                                              uint32_t out_cols, float eps) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  AscendC::TPipe pipe;
  pto_rmsnorm::Run(
      &pipe, GmTile{x, x_row_stride, x_col_stride, x_rows, x_cols},
      GmTile{weight, weight_row_stride, weight_col_stride, weight_rows,
             weight_cols},
      GmTile{out, out_row_stride, out_col_stride, out_rows, out_cols}, eps);
}
