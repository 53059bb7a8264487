// Kernel attention, golden_kernels.py. Written by pto_wsp.
//
//   q: in tile 64x128 f16
//   k: in tile 64x128 f16
//   v: in tile 64x128 f16
//   out: out tile 64x128 f32
//
// tile                       memory  offset  bytes  live  holds
// scores.a_l1                L1           0  32768  loop  64x128 f16 Nz, x2
// scores.b_l1                L1       32768  32768  loop  128x64 f16 Nz, x2
// scores.a_l0                L0A          0  32768  loop  64x128 f16 Zz, x2
// scores.b_l0                L0B          0  32768  loop  128x64 f16 Zn, x2
// scores.c_l0                L0C          0  16384  loop  64x64 f32 Nz
// VectorPart0.scores         UB           0  16384  0-7   32x64 f32, queue, x2
// VectorPart0.cast           UB       16384   8192  0-7   32x64 f16, queue, x2
// VectorPart0.rowsum         UB       24576    256  0-7   32x1 f32, queue, x2
// VectorPart0.scores_2       UB       24832   8192  0-3   32x64 f32
// VectorPart0.rowmax         UB       33024    128  1-2   32x1 f32
// VectorPart0.rowmax_blocks  UB       33152   1024  2-3   32x8 f32
// VectorPart0.sub            UB       34176   8192  3-4   32x64 f32
// VectorPart0.weights        UB       34176   8192  4-6   32x64 f32
// matmul.a_l1                L1           0  16384  loop  64x64 f16 Nz, x2
// matmul.b_l1                L1       16384  32768  loop  64x128 f16 Nz, x2
// matmul.a_l0                L0A          0  16384  loop  64x64 f16 Zz, x2
// matmul.b_l0                L0B          0  32768  loop  64x128 f16 Zn, x2
// matmul.c_l0                L0C          0  32768  loop  64x128 f32 Nz
// VectorPart1.matmul         UB           0  32768  0-2   32x128 f32, queue, x2
// VectorPart1.rowsum         UB       32768    256  0-2   32x1 f32, queue, x2
// VectorPart1.out            UB       33024  32768  0-2   32x128 f32, queue, x2
// VectorPart1.rowsum_blocks  UB       65792   1024  0-1   32x8 f32
// scores                     GM           0  16384  task  64x64 f32, workspace
// cast                       GM       16384   8192  task  64x64 f16, workspace
// matmul                     GM       24576  32768  task  64x128 f32, workspace
// rowsum                     GM       57344    256  task  64x1 f32, workspace
#ifndef PTO_WSP_KERNEL_ATTENTION_H_
#define PTO_WSP_KERNEL_ATTENTION_H_

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

namespace pto_attention {

using namespace AscendC;

__aicore__ inline uint32_t Least(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

__aicore__ inline uint32_t CeilTo(uint32_t n, uint32_t unit) {
  return (n + unit - 1) / unit * unit;
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

// Rows and columns of a tile from (row, col) on to L1, as Nz fractals.
template <typename T>
__aicore__ inline void LoadNz(const LocalTensor<T> &l1, const GmTile &gm,
                              uint32_t row, uint32_t col, uint32_t rows,
                              uint32_t cols) {
  const uint16_t fractals = static_cast<uint16_t>(CeilTo(rows, 16));
  GlobalTensor<T> from;
  from.SetGlobalBuffer(
      (__gm__ T *)gm.addr + row * gm.rowStride + col,
      static_cast<uint64_t>((rows - 1) * gm.rowStride + cols));
  if (rows == 1 || gm.rowStride <= 65535) {
    DataCopy(l1, from,
             Nd2NzParams{1, static_cast<uint16_t>(rows),
                         static_cast<uint16_t>(cols), 0,
                         static_cast<uint16_t>(rows == 1 ? cols : gm.rowStride),
                         fractals, 1, 0});
    return;
  }
  for (uint32_t r = 0; r < rows; ++r) {  // the pitch does not fit the field
    DataCopy(l1[r * (32 / sizeof(T))], from[r * gm.rowStride],
             Nd2NzParams{1, 1, static_cast<uint16_t>(cols), 0,
                         static_cast<uint16_t>(cols), fractals, 1, 0});
  }
}

// c = a * b in blocks of kM x kN, kK deep; b is K x N, or N x K if kTransposed.
template <typename T, typename Acc, typename Out, QuantMode_t kQuant,
          uint32_t kM, uint32_t kN, uint32_t kK, bool kTransposed>
__aicore__ inline void MatMul(TPipe *pipe, const GmTile &a, const GmTile &b,
                              const GmTile &c) {
  constexpr uint32_t kC0 = 32 / sizeof(T);  // columns of a fractal
  TQue<TPosition::A1, 1> a_l1;
  TQue<TPosition::B1, 1> b_l1;
  TQue<TPosition::A2, 1> a_l0;
  TQue<TPosition::B2, 1> b_l0;
  TQue<TPosition::CO1, 1> c_l0;
  pipe->InitBuffer(a_l1, 2, kM * kK * sizeof(T));
  pipe->InitBuffer(b_l1, 2, kK * kN * sizeof(T));
  pipe->InitBuffer(a_l0, 2, kM * kK * sizeof(T));
  pipe->InitBuffer(b_l0, 2, kK * kN * sizeof(T));
  pipe->InitBuffer(c_l0, 1, kM * kN * sizeof(Acc));
  for (uint32_t row = 0; row < c.rows; row += kM) {
    const uint32_t m = Least(c.rows - row, kM), m16 = CeilTo(m, 16);
    for (uint32_t col = 0; col < c.cols; col += kN) {
      const uint32_t n = Least(c.cols - col, kN), n16 = CeilTo(n, 16);
      LocalTensor<Acc> acc = c_l0.AllocTensor<Acc>();
      for (uint32_t at = 0; at < a.cols; at += kK) {
        const uint32_t k = Least(a.cols - at, kK), kc = CeilTo(k, kC0);
        LocalTensor<T> a1 = a_l1.AllocTensor<T>();
        LocalTensor<T> b1 = b_l1.AllocTensor<T>();
        LoadNz(a1, a, row, at, m, k);
        if constexpr (kTransposed) {
          LoadNz(b1, b, col, at, n, k);
        } else {
          LoadNz(b1, b, at, col, k, n);
        }
        a_l1.EnQue(a1);
        b_l1.EnQue(b1);
        a1 = a_l1.DeQue<T>();
        b1 = b_l1.DeQue<T>();
        LocalTensor<T> a2 = a_l0.AllocTensor<T>();
        LocalTensor<T> b2 = b_l0.AllocTensor<T>();
        for (uint32_t i = 0; i < m16 / 16; ++i) {  // Nz to Zz
          LoadData(a2[i * kc * 16], a1[i * 16 * kC0],
                   LoadData2DParams(0, static_cast<uint8_t>(kc / kC0),
                                    static_cast<uint16_t>(m16 / 16), 0, 0,
                                    false, 0));
        }
        if constexpr (kTransposed) {  // N x K in Nz is K x N in Zn
          const uint32_t fractals = n16 / 16 * (kc / kC0);
          LoadData(b2, b1,
                   LoadData2DParams(0, static_cast<uint8_t>(fractals), 1, 0, 0,
                                    false, 0));
        } else {
          const uint32_t k16 = CeilTo(k, 16);
          for (uint32_t i = 0; i < k16 / 16; ++i) {  // Nz to Zn
            LoadData(b2[i * n16 * 16], b1[i * 16 * kC0],
                     LoadData2DParams(0, static_cast<uint8_t>(n16 / 16),
                                      static_cast<uint16_t>(k16 / 16), 0, 0,
                                      true, 0));
          }
        }
        a_l0.EnQue(a2);
        b_l0.EnQue(b2);
        a_l1.FreeTensor(a1);
        b_l1.FreeTensor(b1);
        a2 = a_l0.DeQue<T>();
        b2 = b_l0.DeQue<T>();
        if (at != 0 && m16 / 16 * (n16 / 16) < 10) {
          PipeBarrier<PIPE_M>();  // short products on one tile may overlap
        }
        // m == 1 would make the unit read A as a plain vector
        Mmad(acc, a2, b2,
             MmadParams(static_cast<uint16_t>(m == 1 ? 16 : m),
                        static_cast<uint16_t>(n), static_cast<uint16_t>(k), 0,
                        false, at == 0));
        a_l0.FreeTensor(a2);
        b_l0.FreeTensor(b2);
      }
      c_l0.EnQue(acc);
      acc = c_l0.DeQue<Acc>();
      GlobalTensor<Out> to;
      to.SetGlobalBuffer(
          (__gm__ Out *)c.addr + row * c.rowStride + col,
          static_cast<uint64_t>((m - 1) * c.rowStride + n));
      Fixpipe(to, acc,
              FixpipeParamsV220(static_cast<uint16_t>(n),
                                static_cast<uint16_t>(m),
                                static_cast<uint16_t>(m16),
                                static_cast<uint32_t>(c.rowStride), false,
                                kQuant, 0, 1, 0, 0, 0));
      c_l0.FreeTensor(acc);
    }
  }
}

__aicore__ inline void VectorPart0(TPipe *pipe, const GmTile &scores_gm,
                                   const GmTile &cast_gm,
                                   const GmTile &rowsum_gm, uint32_t part) {
  TQue<TPosition::VECIN, 1> scores_in;
  pipe->InitBuffer(scores_in, 2, 8192);
  TQue<TPosition::VECOUT, 1> cast_out;
  pipe->InitBuffer(cast_out, 2, 4096);
  TQue<TPosition::VECOUT, 1> rowsum_out;
  pipe->InitBuffer(rowsum_out, 2, 128);
  TBuf<TPosition::VECCALC> arena;
  pipe->InitBuffer(arena, 17536);
  LocalTensor<float> scores_2 = arena.GetWithOffset<float>(2048, 0);
  LocalTensor<float> rowmax = arena.GetWithOffset<float>(32, 8192);
  LocalTensor<float> rowmax_blocks = arena.GetWithOffset<float>(256, 8320);
  LocalTensor<float> sub = arena.GetWithOffset<float>(2048, 9344);
  LocalTensor<float> weights = arena.GetWithOffset<float>(2048, 9344);
  for (uint32_t first = part * 32; first < scores_gm.rows; first += 64) {
    const uint32_t n = Least(scores_gm.rows - first, 32);
    const uint32_t count = n * 64;
    LocalTensor<float> scores = scores_in.AllocTensor<float>();
    LoadRows(scores, scores_gm, first, n, 64);
    scores_in.EnQue(scores);
    scores = scores_in.DeQue<float>();
    // golden_kernels.py:33: scores = pto.matmul(q, pto.transpose(k)) * (1...
    Muls(scores_2, scores, 0.088388346f, count);
    scores_in.FreeTensor(scores);
    // golden_kernels.py:34: weights = pto.exp(scores - pto.rowmax(scores))
    PipeBarrier<PIPE_V>();
    WholeReduceMax(rowmax, scores_2, scores_gm.cols, n, 1, 1, 8,
                   ReduceOrder::ORDER_ONLY_VALUE);
    PipeBarrier<PIPE_V>();
    Brcb(rowmax_blocks, rowmax, (n + 7) / 8, {1, 8});
    PipeBarrier<PIPE_V>();
    Sub(sub, scores_2, rowmax_blocks, 64, static_cast<uint8_t>(n),
        {1, 1, 0, 8, 8, 1});
    PipeBarrier<PIPE_V>();
    Exp(weights, sub, count);
    // golden_kernels.py:35: pto.store(out, pto.matmul(pto.cast(weights, F...
    PipeBarrier<PIPE_V>();
    LocalTensor<half> cast = cast_out.AllocTensor<half>();
    Cast(cast, weights, RoundMode::CAST_RINT, count);
    LocalTensor<float> rowsum = rowsum_out.AllocTensor<float>();
    WholeReduceSum(rowsum, weights, scores_gm.cols, n, 1, 1, 8);
    cast_out.EnQue(cast);
    cast = cast_out.DeQue<half>();
    StoreRows(cast_gm, cast, first, n, 64);
    cast_out.FreeTensor(cast);
    rowsum_out.EnQue(rowsum);
    rowsum = rowsum_out.DeQue<float>();
    StoreColumn(rowsum_gm, rowsum, first, n);
    rowsum_out.FreeTensor(rowsum);
  }
}

__aicore__ inline void VectorPart1(TPipe *pipe, const GmTile &matmul_gm,
                                   const GmTile &rowsum_gm,
                                   const GmTile &out_gm, uint32_t part) {
  TQue<TPosition::VECIN, 1> matmul_in;
  pipe->InitBuffer(matmul_in, 2, 16384);
  TQue<TPosition::VECIN, 1> rowsum_in;
  pipe->InitBuffer(rowsum_in, 2, 128);
  TQue<TPosition::VECOUT, 1> out_out;
  pipe->InitBuffer(out_out, 2, 16384);
  TBuf<TPosition::VECCALC> arena;
  pipe->InitBuffer(arena, 1024);
  LocalTensor<float> rowsum_blocks = arena.GetWithOffset<float>(256, 0);
  for (uint32_t first = part * 32; first < matmul_gm.rows; first += 64) {
    const uint32_t n = Least(matmul_gm.rows - first, 32);
    LocalTensor<float> matmul = matmul_in.AllocTensor<float>();
    LoadRows(matmul, matmul_gm, first, n, 128);
    matmul_in.EnQue(matmul);
    matmul = matmul_in.DeQue<float>();
    LocalTensor<float> rowsum = rowsum_in.AllocTensor<float>();
    LoadColumn(rowsum, rowsum_gm, first, n);
    rowsum_in.EnQue(rowsum);
    rowsum = rowsum_in.DeQue<float>();
    // golden_kernels.py:35: pto.store(out, pto.matmul(pto.cast(weights, F...
    Brcb(rowsum_blocks, rowsum, (n + 7) / 8, {1, 8});
    rowsum_in.FreeTensor(rowsum);
    PipeBarrier<PIPE_V>();
    LocalTensor<float> out = out_out.AllocTensor<float>();
    for (uint32_t c = 0; c < 128; c += 64) {
      Div(out[c], matmul[c], rowsum_blocks, 64, static_cast<uint8_t>(n),
          {1, 1, 0, 16, 16, 1});
    }
    matmul_in.FreeTensor(matmul);
    out_out.EnQue(out);
    out = out_out.DeQue<float>();
    StoreRows(out_gm, out, first, n, 128);
    out_out.FreeTensor(out);
  }
}

__aicore__ inline void Run(TPipe *pipe, const GmTile &q_gm, const GmTile &k_gm,
                           const GmTile &v_gm, const GmTile &out_gm,
                           GM_ADDR workspace) {
  const GmTile scores_gm{workspace + 0, 64, 1, q_gm.rows, k_gm.rows};
  const GmTile cast_gm{workspace + 16384, 64, 1, q_gm.rows, k_gm.rows};
  const GmTile matmul_gm{workspace + 24576, 128, 1, q_gm.rows, v_gm.cols};
  const GmTile rowsum_gm{workspace + 57344, 1, 1, q_gm.rows, 1};
  if ASCEND_IS_AIC {
    // golden_kernels.py:33: scores = pto.matmul(q, pto.transpose(k)) * (1...
    MatMul<half, float, float, QuantMode_t::NoQuant, 64, 64, 128, true>(
        pipe, q_gm, k_gm, scores_gm);
    CrossCoreSetFlag<0x2, PIPE_FIX>(0);
    CrossCoreWaitFlag<0x2>(1);
    pipe->Reset();
    // golden_kernels.py:35: pto.store(out, pto.matmul(pto.cast(weights, F...
    MatMul<half, float, float, QuantMode_t::NoQuant, 64, 128, 64, false>(
        pipe, cast_gm, v_gm, matmul_gm);
    CrossCoreSetFlag<0x2, PIPE_FIX>(2);
    CrossCoreWaitFlag<0x2>(3);  // the workspace is free again
  }
  if ASCEND_IS_AIV {
    const uint32_t part = static_cast<uint32_t>(GetSubBlockIdx());
    CrossCoreWaitFlag<0x2>(0);
    VectorPart0(pipe, scores_gm, cast_gm, rowsum_gm, part);
    CrossCoreSetFlag<0x2, PIPE_MTE3>(1);
    CrossCoreWaitFlag<0x2>(2);
    pipe->Reset();
    VectorPart1(pipe, matmul_gm, rowsum_gm, out_gm, part);
    CrossCoreSetFlag<0x2, PIPE_MTE3>(3);
  }
}

}  // namespace pto_attention

#endif  // PTO_WSP_KERNEL_ATTENTION_H_

extern "C" __global__ __aicore__ void attention(GM_ADDR q, int64_t q_row_stride,
                                                int64_t q_col_stride,
                                                uint32_t q_rows,
                                                uint32_t q_cols, GM_ADDR k,
                                                int64_t k_row_stride,
                                                int64_t k_col_stride,
                                                uint32_t k_rows,
                                                uint32_t k_cols, GM_ADDR v,
                                                int64_t v_row_stride,
                                                int64_t v_col_stride,
                                                uint32_t v_rows,
                                                uint32_t v_cols, GM_ADDR out,
                                                int64_t out_row_stride,
                                                int64_t out_col_stride,
                                                uint32_t out_rows,
                                                uint32_t out_cols,
                                                GM_ADDR workspace) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
  AscendC::TPipe pipe;
  pto_attention::Run(
      &pipe, GmTile{q, q_row_stride, q_col_stride, q_rows, q_cols},
      GmTile{k, k_row_stride, k_col_stride, k_rows, k_cols},
      GmTile{v, v_row_stride, v_col_stride, v_rows, v_cols},
      GmTile{out, out_row_stride, out_col_stride, out_rows, out_cols},
      workspace);
}
