"""Matmul on the cube core: tile sizes, what lies in L1 and L0, and the function that does it.

ND tiles in GM arrive in L1 as Nz fractals, go to L0A and L0B, are multiplied into L0C and leave through Fixpipe, which
also converts. B is read as K x N (2-byte types, transposed on the way into L0B) or, given transposed, as N x K. Float
has no transposing load, so its K x N operands are turned round on the vector cores first (`mix.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pto_wsp.ascend.body import ceil_to
from pto_wsp.ascend.dtypes import C_TYPES
from pto_wsp.ascend.placement import Row
from pto_wsp.types import DType

L0_BYTES = 64 * 1024  # L0A, L0B each
EDGE = 16  # rows of a fractal; its columns fill 32 bytes
INPUTS = (DType.F16, DType.BF16, DType.F32, DType.I8)

QUANT = {
    (DType.F32, DType.F32): "NoQuant",
    (DType.I32, DType.I32): "NoQuant",
    (DType.F32, DType.F16): "F322F16",
    (DType.F32, DType.BF16): "F322BF16",
}


@dataclass(frozen=True)
class Blocks:
    """What one round on the cube core works on: m x n of the result, k at a time."""

    m: int
    n: int
    k: int

    @staticmethod
    def of(m: int, n: int, k: int, dtype: DType) -> Blocks:
        """Halves of L0A and L0B, so that loads overlap products; L0C holds one float block, with room for two."""
        bm, bn = (min(ceil_to(x, EDGE), 128) for x in (m, n))
        deep = L0_BYTES // 2 // (128 * dtype.itemsize)
        return Blocks(bm, bn, min(ceil_to(k, 32 // dtype.itemsize if dtype is not DType.F32 else EDGE), deep))

    def rows(self, name: str, dtype: DType) -> list[Row]:
        """Lines of the placement table; both of a double buffer together."""
        size = dtype.itemsize
        a, b, c = 2 * self.m * self.k * size, 2 * self.k * self.n * size, self.m * self.n * 4
        return [
            Row(f"{name}.a_l1", "L1", 0, a, "loop", f"{self.m}x{self.k} {dtype} Nz, x2"),
            Row(f"{name}.b_l1", "L1", a, b, "loop", f"{self.k}x{self.n} {dtype} Nz, x2"),
            Row(f"{name}.a_l0", "L0A", 0, a, "loop", f"{self.m}x{self.k} {dtype} Zz, x2"),
            Row(f"{name}.b_l0", "L0B", 0, b, "loop", f"{self.k}x{self.n} {dtype} Zn, x2"),
            Row(
                f"{name}.c_l0",
                "L0C",
                0,
                c,
                "loop",
                f"{self.m}x{self.n} {'i32' if dtype is DType.I8 else 'f32'} Nz",
            ),
        ]


def call(a: str, b: str, c: str, blocks: Blocks, dtype: DType, out: DType, transposed: bool) -> str:
    """The C++ call of one product."""
    acc = DType.I32 if dtype is DType.I8 else DType.F32
    types = f"{C_TYPES[dtype]}, {C_TYPES[acc]}, {C_TYPES[out]}, QuantMode_t::{QUANT[acc, out]}"
    sizes = f"{blocks.m}, {blocks.n}, {blocks.k}, {'true' if transposed else 'false'}"
    return f"MatMul<{types}, {sizes}>(pipe, {a}, {b}, {c});"


HELPERS = {
    "LoadNz": """\
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
""",
    "MatMul": """\
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
""",
    "TurnRound": """\
// y[c][r] = x[r][c]; rows and cols are multiples of 16, pitches in elements.
template <typename T>
__aicore__ inline void TurnRound(const LocalTensor<T> &y,
                                 const LocalTensor<T> &x, uint32_t rows,
                                 uint32_t cols, uint32_t x_pitch,
                                 uint32_t y_pitch) {
  constexpr uint32_t kWide = 32 / sizeof(T);  // 16 x kWide elements at a time
  for (uint32_t r = 0; r < rows; r += 16) {
    for (uint32_t c = 0; c < cols; c += kWide) {
      uint64_t from[16], to[16];
      for (uint32_t i = 0; i < 16; ++i) {
        from[i] = (uint64_t)x[(r + i) * x_pitch + c].GetPhyAddr();
        to[i] = (uint64_t)y[(c + i * kWide / 16) * y_pitch + r +
                            (sizeof(T) == 4 ? i % 2 * 8 : 0)]
                    .GetPhyAddr();
      }
      TransDataTo5HD<T>(to, from, TransDataTo5HDParams(false, false, 1, 0, 0));
    }
  }
}
""",
    "TransposeTile": """\
// b = a turned round, through UB in pieces of at most kRows x kCols.
template <typename T, uint32_t kRows, uint32_t kCols>
__aicore__ inline void TransposeTile(TPipe *pipe, const GmTile &a,
                                     const GmTile &b, uint32_t part,
                                     uint32_t parts) {
  TQue<TPosition::VECIN, 1> in;
  TQue<TPosition::VECOUT, 1> out;
  pipe->InitBuffer(in, 2, kRows * kCols * sizeof(T));
  pipe->InitBuffer(out, 2, kRows * kCols * sizeof(T));
  for (uint32_t row = part * kRows; row < a.rows; row += parts * kRows) {
    for (uint32_t col = 0; col < a.cols; col += kCols) {
      const uint32_t rows = Least(a.rows - row, kRows);
      const uint32_t cols = Least(a.cols - col, kCols);
      const GmTile from{a.addr + col * sizeof(T), a.rowStride, 1, a.rows, cols};
      const GmTile to{b.addr + row * sizeof(T), b.rowStride, 1, b.rows, rows};
      LocalTensor<T> x = in.AllocTensor<T>();
      LoadRows(x, from, row, rows, kCols);
      in.EnQue(x);
      x = in.DeQue<T>();
      LocalTensor<T> y = out.AllocTensor<T>();
      TurnRound(y, x, CeilTo(rows, 16), CeilTo(cols, 16), kCols, kRows);
      out.EnQue(y);
      in.FreeTensor(x);
      y = out.DeQue<T>();
      StoreRows(to, y, col, cols, kRows);
      out.FreeTensor(y);
    }
  }
}
""",
}
