// Kernel rotate, golden_kernels.py. Written by pto_wsp.
//
//   x: in tile 32x128 f16
//   cos_2: in tile 32x64 f16
//   sin_2: in tile 32x64 f16
//   out: out tile 32x128 f16
//
// tile              memory  offset  bytes  live   holds
// x                 UB           0   8192  0-16   32x128 f16, queue
// cos_2             UB        8192   4096  0-16   32x64 f16, queue
// sin_2             UB       12288   4096  0-16   32x64 f16, queue
// out               UB       16384   8192  0-16   32x128 f16, queue
// offsets           UB       24576    512  0-3    1x128 i32
// muls_2            UB       24576    512  3-4    1x128 i32
// add               UB       24576    512  4-15   1x128 i32
// offsets_shifted   UB       25088    512  1-2    1x128 i32
// muls              UB       25088    512  2-4    1x128 i32
// slice_even        UB       25088   4096  5-11   32x64 f16
// mul_4             UB       25088   4096  11-12  32x64 f16
// slice_odd         UB       29184   4096  6-10   32x64 f16
// mul_3             UB       29184   4096  10-12  32x64 f16
// add_2             UB       29184   4096  12-14  32x64 f16
// mul               UB       33280   4096  7-9    32x64 f16
// sub               UB       33280   4096  9-13   32x64 f16
// mul_2             UB       37376   4096  8-9    32x64 f16
// interleave_pairs  UB       37376   8192  13-15  32x128 f16
#ifndef PTO_WSP_KERNEL_ROTATE_H_
#define PTO_WSP_KERNEL_ROTATE_H_

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

namespace pto_rotate {

using namespace AscendC;

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
                           const GmTile &cos_2_gm, const GmTile &sin_2_gm,
                           const GmTile &out_gm) {
  TQue<TPosition::VECIN, 1> x_in;
  pipe->InitBuffer(x_in, 1, 8192);
  TQue<TPosition::VECIN, 1> cos_2_in;
  pipe->InitBuffer(cos_2_in, 1, 4096);
  TQue<TPosition::VECIN, 1> sin_2_in;
  pipe->InitBuffer(sin_2_in, 1, 4096);
  TQue<TPosition::VECOUT, 1> out_out;
  pipe->InitBuffer(out_out, 1, 8192);
  TBuf<TPosition::VECCALC> arena;
  pipe->InitBuffer(arena, 20992);
  LocalTensor<int32_t> offsets = arena.GetWithOffset<int32_t>(128, 0);
  LocalTensor<int32_t> offsets_shifted = arena.GetWithOffset<int32_t>(128, 512);
  LocalTensor<int32_t> muls = arena.GetWithOffset<int32_t>(128, 512);
  LocalTensor<int32_t> muls_2 = arena.GetWithOffset<int32_t>(128, 0);
  LocalTensor<int32_t> add = arena.GetWithOffset<int32_t>(128, 0);
  LocalTensor<half> slice_even = arena.GetWithOffset<half>(2048, 512);
  LocalTensor<half> slice_odd = arena.GetWithOffset<half>(2048, 4608);
  LocalTensor<half> mul = arena.GetWithOffset<half>(2048, 8704);
  LocalTensor<half> mul_2 = arena.GetWithOffset<half>(2048, 12800);
  LocalTensor<half> sub = arena.GetWithOffset<half>(2048, 8704);
  LocalTensor<half> mul_3 = arena.GetWithOffset<half>(2048, 4608);
  LocalTensor<half> mul_4 = arena.GetWithOffset<half>(2048, 512);
  LocalTensor<half> add_2 = arena.GetWithOffset<half>(2048, 4608);
  LocalTensor<half> interleave_pairs = arena.GetWithOffset<half>(4096, 12800);
  // golden_kernels.py:42: pto.store(out, pto.interleave(even * cos - od...
  CreateVecIndex(offsets, static_cast<int32_t>(0), 128);
  PipeBarrier<PIPE_V>();
  ShiftRight(offsets_shifted, offsets, static_cast<int32_t>(1), 128);
  PipeBarrier<PIPE_V>();
  Muls(muls, offsets_shifted, -254, 128);
  Muls(muls_2, offsets, 128, 128);
  PipeBarrier<PIPE_V>();
  Add(add, muls_2, muls, 128);
  const uint32_t n = x_gm.rows;
  const uint32_t count = n * 64;
  LocalTensor<half> x = x_in.AllocTensor<half>();
  LoadRows(x, x_gm, 0, n, 128);
  x_in.EnQue(x);
  x = x_in.DeQue<half>();
  LocalTensor<half> cos_2 = cos_2_in.AllocTensor<half>();
  LoadRows(cos_2, cos_2_gm, 0, n, 64);
  cos_2_in.EnQue(cos_2);
  cos_2 = cos_2_in.DeQue<half>();
  LocalTensor<half> sin_2 = sin_2_in.AllocTensor<half>();
  LoadRows(sin_2, sin_2_gm, 0, n, 64);
  sin_2_in.EnQue(sin_2);
  sin_2 = sin_2_in.DeQue<half>();
  // golden_kernels.py:41: even, odd = pto.slice_even(x), pto.slice_odd(x)
  PipeBarrier<PIPE_V>();
  for (uint32_t r = 0; r < n; ++r) {
    uint64_t kept = 0;  // GatherMask counts into it
    GatherMask(slice_even[r * 64], x[r * 128], 1, true, x_gm.cols / 2 * 2,
               {1, 1, 8, 0}, kept);
  }
  for (uint32_t r = 0; r < n; ++r) {
    uint64_t kept = 0;  // GatherMask counts into it
    GatherMask(slice_odd[r * 64], x[r * 128], 2, true, x_gm.cols / 2 * 2,
               {1, 1, 8, 0}, kept);
  }
  x_in.FreeTensor(x);
  // golden_kernels.py:42: pto.store(out, pto.interleave(even * cos - od...
  PipeBarrier<PIPE_V>();
  Mul(mul, slice_even, cos_2, count);
  Mul(mul_2, slice_odd, sin_2, count);
  PipeBarrier<PIPE_V>();
  Sub(sub, mul, mul_2, count);
  Mul(mul_3, slice_odd, cos_2, count);
  cos_2_in.FreeTensor(cos_2);
  Mul(mul_4, slice_even, sin_2, count);
  sin_2_in.FreeTensor(sin_2);
  PipeBarrier<PIPE_V>();
  Add(add_2, mul_3, mul_4, count);
  DataCopy(interleave_pairs, sub,
           DataCopyParams{static_cast<uint16_t>(n), 4, 0, 4});
  PipeBarrier<PIPE_V>();
  DataCopy(interleave_pairs[64], add_2,
           DataCopyParams{static_cast<uint16_t>(n), 4, 0, 4});
  PipeBarrier<PIPE_V>();
  LocalTensor<half> out = out_out.AllocTensor<half>();
  for (uint32_t r = 0; r < n; ++r) {
    Gather(out[r * 128], interleave_pairs, add.ReinterpretCast<uint32_t>(),
           r * 256, x_gm.cols / 2 * 2);
  }
  out_out.EnQue(out);
  out = out_out.DeQue<half>();
  StoreRows(out_gm, out, 0, n, 128);
  out_out.FreeTensor(out);
}

}  // namespace pto_rotate

#endif  // PTO_WSP_KERNEL_ROTATE_H_

extern "C" __global__ __aicore__ void rotate(GM_ADDR x, int64_t x_row_stride,
                                             int64_t x_col_stride,
                                             uint32_t x_rows, uint32_t x_cols,
                                             GM_ADDR cos_2,
                                             int64_t cos_2_row_stride,
                                             int64_t cos_2_col_stride,
                                             uint32_t cos_2_rows,
                                             uint32_t cos_2_cols, GM_ADDR sin_2,
                                             int64_t sin_2_row_stride,
                                             int64_t sin_2_col_stride,
                                             uint32_t sin_2_rows,
                                             uint32_t sin_2_cols, GM_ADDR out,
                                             int64_t out_row_stride,
                                             int64_t out_col_stride,
                                             uint32_t out_rows,
                                             uint32_t out_cols) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  AscendC::TPipe pipe;
  pto_rotate::Run(
      &pipe, GmTile{x, x_row_stride, x_col_stride, x_rows, x_cols},
      GmTile{cos_2, cos_2_row_stride, cos_2_col_stride, cos_2_rows, cos_2_cols},
      GmTile{sin_2, sin_2_row_stride, sin_2_col_stride, sin_2_rows, sin_2_cols},
      GmTile{out, out_row_stride, out_col_stride, out_rows, out_cols});
}
