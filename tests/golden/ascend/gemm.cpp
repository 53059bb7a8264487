// Kernel gemm, golden_kernels.py. Written by pto_wsp.
//
//   a: in tile 128x256 f16
//   b: in tile 256x128 f16
//   c: inout tile 128x128 f32
//
// tile         memory  offset  bytes  live  holds
// matmul.a_l1  L1           0  65536  loop  128x128 f16 Nz, x2
// matmul.b_l1  L1       65536  65536  loop  128x128 f16 Nz, x2
// matmul.a_l0  L0A          0  65536  loop  128x128 f16 Zz, x2
// matmul.b_l0  L0B          0  65536  loop  128x128 f16 Zn, x2
// matmul.c_l0  L0C          0  65536  loop  128x128 f32 Nz
#ifndef PTO_WSP_KERNEL_GEMM_H_
#define PTO_WSP_KERNEL_GEMM_H_

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

namespace pto_gemm {

using namespace AscendC;

__aicore__ inline uint32_t Least(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

__aicore__ inline uint32_t CeilTo(uint32_t n, uint32_t unit) {
  return (n + unit - 1) / unit * unit;
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

__aicore__ inline void Run(TPipe *pipe, const GmTile &a_gm, const GmTile &b_gm,
                           const GmTile &c_gm) {
  // golden_kernels.py:27: pto.store(c, pto.matmul(a, b, acc=c))
  SetAtomicAdd<float>();
  MatMul<half, float, float, QuantMode_t::NoQuant, 128, 128, 128, false>(pipe,
                                                                         a_gm,
                                                                         b_gm,
                                                                         c_gm);
  SetAtomicNone();
}

}  // namespace pto_gemm

#endif  // PTO_WSP_KERNEL_GEMM_H_

extern "C" __global__ __aicore__ void gemm(GM_ADDR a, int64_t a_row_stride,
                                           int64_t a_col_stride,
                                           uint32_t a_rows, uint32_t a_cols,
                                           GM_ADDR b, int64_t b_row_stride,
                                           int64_t b_col_stride,
                                           uint32_t b_rows, uint32_t b_cols,
                                           GM_ADDR c, int64_t c_row_stride,
                                           int64_t c_col_stride,
                                           uint32_t c_rows, uint32_t c_cols) {
  KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIC_ONLY);
  AscendC::TPipe pipe;
  pto_gemm::Run(&pipe, GmTile{a, a_row_stride, a_col_stride, a_rows, a_cols},
                GmTile{b, b_row_stride, b_col_stride, b_rows, b_cols},
                GmTile{c, c_row_stride, c_col_stride, c_rows, c_cols});
}
