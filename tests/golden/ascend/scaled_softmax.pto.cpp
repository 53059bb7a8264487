// Kernel scaled_softmax, test_ptoisa.py. PTO-ISA tile code, written by pto_wsp.
//
//   x: in tile 16x100 f32
//   out: out tile 16x100 f32
//   scale: scalar f32
//
// tile                 offset   bytes
// x                UB       0    6656  16x100 f32
// scores           UB    6656    6656  16x100 f32
// scratch          UB   13312    6656  16x100 f32
// high             UB   19968     512  16x1 f32
// sub              UB   20480    6656  16x100 f32
// weights          UB   27136    6656  16x100 f32
// scratch_2        UB   33792    6656  16x100 f32
// rowsum           UB   40448     512  16x1 f32
// div              UB   40960    6656  16x100 f32
#ifndef PTO_WSP_KERNEL_SCALED_SOFTMAX_H_
#define PTO_WSP_KERNEL_SCALED_SOFTMAX_H_

#include "kernel_operator.h"
#include <pto/pto-inst.hpp>

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

namespace pto_scaled_softmax {

using namespace pto;

__aicore__ inline void Run([[maybe_unused]] AscendC::TPipe *pipe,
                           const GmTile &x_gm, const GmTile &out_gm,
                           [[maybe_unused]] float scale) {
  using GmShape = Shape<1, 1, 1, DYNAMIC, DYNAMIC>;
  using GmStride = Stride<1, 1, 1, DYNAMIC, 1>;
  GlobalTensor<float, GmShape, GmStride, Layout::ND> x_at(
      (__gm__ float *)x_gm.addr, GmShape(x_gm.rows, x_gm.cols),
      GmStride(x_gm.rowStride));
  GlobalTensor<float, GmShape, GmStride, Layout::ND> out_at(
      (__gm__ float *)out_gm.addr, GmShape(out_gm.rows, out_gm.cols),
      GmStride(out_gm.rowStride));
  using F32_16x104_n_n =
      Tile<TileType::Vec, float, 16, 104, BLayout::RowMajor, DYNAMIC, DYNAMIC>;
  using F32_16x8_n_1 =
      Tile<TileType::Vec, float, 16, 8, BLayout::RowMajor, DYNAMIC, 1>;
  F32_16x104_n_n x(x_gm.rows, x_gm.cols);
  F32_16x104_n_n scores(x_gm.rows, x_gm.cols);
  F32_16x104_n_n scratch(x_gm.rows, x_gm.cols);
  F32_16x8_n_1 high(x_gm.rows);
  F32_16x104_n_n sub(x_gm.rows, x_gm.cols);
  F32_16x104_n_n weights(x_gm.rows, x_gm.cols);
  F32_16x104_n_n scratch_2(x_gm.rows, x_gm.cols);
  F32_16x8_n_1 rowsum(x_gm.rows);
  F32_16x104_n_n div(x_gm.rows, x_gm.cols);
  TASSIGN(x, 0x00000);
  TASSIGN(scores, 0x01a00);
  TASSIGN(scratch, 0x03400);
  TASSIGN(high, 0x04e00);
  TASSIGN(sub, 0x05000);
  TASSIGN(weights, 0x06a00);
  TASSIGN(scratch_2, 0x08400);
  TASSIGN(rowsum, 0x09e00);
  TASSIGN(div, 0x0a000);

  // test_ptoisa.py:124: scores = ptoisa.TMULS(ptoisa.tload(x), scale)
  TLOAD(x, x_at);
  set_flag(PIPE_MTE2, PIPE_V, EVENT_ID0);
  wait_flag(PIPE_MTE2, PIPE_V, EVENT_ID0);
  TMULS(scores, x, scale);
  // test_ptoisa.py:125: high = ptoisa.TROWMAX(scores)
  pipe_barrier(PIPE_V);
  TROWMAX(high, scores, scratch);
  // test_ptoisa.py:126: weights = ptoisa.TEXP(ptoisa.TROWEXPANDSUB(scor...
  pipe_barrier(PIPE_V);
  TROWEXPANDSUB(sub, scores, high);
  pipe_barrier(PIPE_V);
  TEXP(weights, sub);
  // test_ptoisa.py:127: ptoisa.tstore(out, ptoisa.TROWEXPANDDIV(weights...
  pipe_barrier(PIPE_V);
  TROWSUM(rowsum, weights, scratch_2);
  pipe_barrier(PIPE_V);
  TROWEXPANDDIV(div, weights, rowsum);
  set_flag(PIPE_V, PIPE_MTE3, EVENT_ID0);
  wait_flag(PIPE_V, PIPE_MTE3, EVENT_ID0);
  TSTORE(out_at, div);
  pipe_barrier(PIPE_ALL);  // the next task uses the same places
}

}  // namespace pto_scaled_softmax

#endif  // PTO_WSP_KERNEL_SCALED_SOFTMAX_H_

extern "C" __global__ __aicore__ void scaled_softmax(GM_ADDR x,
                                                     int64_t x_row_stride,
                                                     int64_t x_col_stride,
                                                     uint32_t x_rows,
                                                     uint32_t x_cols,
                                                     GM_ADDR out,
                                                     int64_t out_row_stride,
                                                     int64_t out_col_stride,
                                                     uint32_t out_rows,
                                                     uint32_t out_cols,
                                                     float scale) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
  AscendC::TPipe pipe;
  pto_scaled_softmax::Run(
      &pipe, GmTile{x, x_row_stride, x_col_stride, x_rows, x_cols},
      GmTile{out, out_row_stride, out_col_stride, out_rows, out_cols}, scale);
}
