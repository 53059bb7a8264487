// A small strict model of the PTO-ISA calls that pto_wsp emits, for its tests on a host without the real headers.
//
// Instructions take effect at once. What is checked is that they were ordered: every pipe counts its instructions, flags
// and barriers copy clocks, and an instruction that touches bytes which another one, not known to be done, has written
// (or reads, when it writes) ends the run. So does a tile outside UB or not on 32 bytes, reading elements that were never
// written, extents that do not agree, a flag set twice, waited for unset, or left behind. Compile with C++17.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

namespace pto_model {

constexpr int kPipes = 8;
constexpr uint32_t kUb = 184 * 1024 - 256;

struct Clock {
  uint64_t done[kPipes] = {};
};
struct Touch {
  uint32_t begin, end;
  bool writes;
  int pipe;
  uint64_t number;
};

[[noreturn]] inline void Fail(const char *call, const char *file, int line, const char *text) {
  std::fprintf(stderr, "pto_shim: error: %s:%d: %s: %s\n", file, line, call, text);
  std::fflush(stderr);
  std::_Exit(86);
}

struct Machine {
  uint8_t ub[192 * 1024];
  bool written[192 * 1024] = {};
  uint64_t count[kPipes] = {};
  Clock known[kPipes];
  std::vector<Touch> touches;
  bool set[kPipes][kPipes][8] = {};
  Clock flag[kPipes][kPipes][8];
  Machine() { std::memset(ub, 0xA7, sizeof(ub)); }
  ~Machine() {
    for (auto &a : set)
      for (auto &b : a)
        for (bool left : b)
          if (left) Fail("set_flag", "kernel", 0, "a flag is set and nobody waits for it");
  }
};
inline Machine &Core() {
  static thread_local Machine machine;
  return machine;
}

// One instruction of a pipe.
struct Instruction {
  const char *call, *file;
  int line, pipe;
  uint64_t number;
  Instruction(const char *call, int pipe, const char *file, int line)
      : call(call), file(file), line(line), pipe(pipe), number(++Core().count[pipe]) {}
  [[noreturn]] void fail(const char *text) const { Fail(call, file, line, text); }
  void need(bool holds, const char *text) const {
    if (!holds) fail(text);
  }
  void touch(uint32_t begin, uint32_t bytes, bool writes) const {
    Machine &core = Core();
    need(begin + bytes <= kUb, "the tile does not lie in UB");
    for (const Touch &t : core.touches) {
      const bool same = t.pipe == pipe && t.number == number;
      if (same || (!writes && !t.writes) || t.begin >= begin + bytes || begin >= t.end) continue;
      if (t.pipe == pipe && pipe == 0) continue;  // the scalar unit does one thing after another
      if (core.known[pipe].done[t.pipe] < t.number) fail("it is not ordered after an instruction that uses these bytes");
    }
    core.touches.push_back({begin, begin + bytes, writes, pipe, number});
  }
};

}  // namespace pto_model

inline void set_flag(int from, int to, int event, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  auto &core = pto_model::Core();
  if (core.set[from][to][event]) pto_model::Fail("set_flag", file, line, "this event is set already");
  core.set[from][to][event] = true;
  core.flag[from][to][event] = core.known[from];
  core.flag[from][to][event].done[from] = core.count[from];
}
inline void wait_flag(int from, int to, int event, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  auto &core = pto_model::Core();
  if (!core.set[from][to][event]) pto_model::Fail("wait_flag", file, line, "it waits for ever: nobody has set this event");
  core.set[from][to][event] = false;
  for (int p = 0; p < pto_model::kPipes; ++p)
    core.known[to].done[p] = std::max(core.known[to].done[p], core.flag[from][to][event].done[p]);
}
inline void pipe_barrier(int pipe) {
  auto &core = pto_model::Core();
  if (pipe == PIPE_ALL) {
    for (auto &clock : core.known) std::copy(core.count, core.count + pto_model::kPipes, clock.done);
    core.touches.clear();
    return;
  }
  core.known[pipe].done[pipe] = core.count[pipe];
}

namespace pto {

constexpr int DYNAMIC = -1;
enum class TileType { Vec, Mat };
enum class BLayout { RowMajor, ColMajor };
enum class Layout { ND, DN };
enum class RoundMode { CAST_NONE, CAST_RINT, CAST_TRUNC, CAST_FLOOR, CAST_CEIL, CAST_ROUND };

template <int A, int B, int C, int R, int N>
struct Shape {
  static_assert(A == 1 && B == 1 && C == 1, "tiles of two dimensions");
  int64_t rows = R, cols = N;
  Shape(int64_t r, int64_t c) : rows(r), cols(c) { static_assert(R == DYNAMIC && N == DYNAMIC, "two dynamic extents"); }
};
template <int A, int B, int C, int R, int N>
struct Stride {
  static_assert(N == 1, "elements of a row lie next to each other");
  int64_t rows;
  explicit Stride(int64_t r) : rows(r) {}
};
template <typename T, typename S, typename D, Layout L>
struct GlobalTensor {
  using Element = T;
  T *address;
  S shape;
  D stride;
  GlobalTensor(T *a, S s, D d) : address(a), shape(s), stride(d) {}
};

template <TileType K, typename T, int R, int C, BLayout L, int VR, int VC>
struct Tile {
  static_assert(K == TileType::Vec && L == BLayout::RowMajor && C * sizeof(T) % 32 == 0, "rows of whole 32-byte blocks");
  static_assert(VR <= R && VC <= C, "valid extents lie inside");
  using Element = T;
  int64_t rows = VR, cols = VC;
  int64_t offset = -1;
  template <typename... N>
  explicit Tile(N... given) {
    static_assert(sizeof...(N) == (VR == DYNAMIC) + (VC == DYNAMIC), "one extent for each DYNAMIC");
    const int64_t values[] = {static_cast<int64_t>(given)..., 0};
    int at = 0;
    if (VR == DYNAMIC) rows = values[at++];
    if (VC == DYNAMIC) cols = values[at++];
    if (rows < 1 || rows > R || cols < 1 || cols > C) pto_model::Fail("Tile", "kernel", 0, "valid extents outside the tile");
  }
  T *at(int64_t r, int64_t c) const { return reinterpret_cast<T *>(pto_model::Core().ub + offset) + r * C + c; }
  // The scalar unit looks, or writes: both, for all that is known.
  T *data(const char *file = __builtin_FILE(), int line = __builtin_LINE()) const {
    pto_model::Instruction in("data", 0, file, line);
    in.need(offset >= 0, "the tile has no place: TASSIGN comes first");
    in.touch(static_cast<uint32_t>(offset), R * C * sizeof(T), true);
    std::fill_n(pto_model::Core().written + offset, R * C * sizeof(T), true);
    return at(0, 0);
  }
};

template <typename X>
void TASSIGN(X &tile, int64_t offset, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (offset < 0 || offset % 32) pto_model::Fail("TASSIGN", file, line, "a tile begins at a multiple of 32 bytes");
  tile.offset = offset;
}

namespace detail {
using pto_model::Instruction;

template <typename X>
void Touch(const Instruction &in, const X &tile, bool writes) {
  using T = typename X::Element;
  in.need(tile.offset >= 0, "the tile has no place: TASSIGN comes first");
  for (int64_t r = 0; r < tile.rows; ++r) {
    const auto begin = static_cast<uint32_t>(reinterpret_cast<uint8_t *>(tile.at(r, 0)) - pto_model::Core().ub);
    const auto bytes = static_cast<uint32_t>(tile.cols * sizeof(T));
    in.touch(begin, bytes, writes);
    bool *known = pto_model::Core().written + begin;
    if (writes) std::fill_n(known, bytes, true);
    else in.need(std::all_of(known, known + bytes, [](bool w) { return w; }), "it reads what nobody has written");
  }
}
template <typename D, typename S>
void Same(const Instruction &in, const D &dst, const S &src) {
  in.need(dst.rows == src.rows && dst.cols == src.cols, "valid extents differ");
}
template <typename T>
float Up(T v) {
  return static_cast<float>(v);
}
template <typename T>
T Down(float v) {
  return static_cast<T>(v);
}
template <typename T, typename F>
T Apply(F f, T a, T b) {
  if constexpr (std::is_integral_v<T>) return static_cast<T>(f(static_cast<int64_t>(a), static_cast<int64_t>(b)));
  else return Down<T>(f(Up(a), Up(b)));
}
enum class Spread { kNone, kRow, kColumn };

template <typename D, typename A, typename B, typename F>
void Binary(const char *call, const D &dst, const A &a, const B &b, F f, Spread how, const char *file, int line) {
  static_assert(std::is_same_v<typename D::Element, typename A::Element>);
  static_assert(std::is_same_v<typename D::Element, typename B::Element>);
  Instruction in(call, PIPE_V, file, line);
  Touch(in, a, false), Touch(in, b, false), Touch(in, dst, true);
  Same(in, dst, a);
  if (how == Spread::kNone) Same(in, dst, b);
  in.need(how != Spread::kRow || (b.cols == 1 && b.rows == a.rows), "one value per row is needed");
  in.need(how != Spread::kColumn || (b.rows == 1 && b.cols == a.cols), "one value per column is needed");
  for (int64_t r = 0; r < dst.rows; ++r)
    for (int64_t c = 0; c < dst.cols; ++c)
      *dst.at(r, c) = Apply(f, *a.at(r, c), *b.at(how == Spread::kColumn ? 0 : r, how == Spread::kRow ? 0 : c));
}
template <typename D, typename A, typename F>
void Scalar(const char *call, const D &dst, const A &a, typename A::Element s, F f, const char *file, int line) {
  Instruction in(call, PIPE_V, file, line);
  Touch(in, a, false), Touch(in, dst, true), Same(in, dst, a);
  for (int64_t r = 0; r < dst.rows; ++r)
    for (int64_t c = 0; c < dst.cols; ++c) *dst.at(r, c) = Apply(f, *a.at(r, c), s);
}
template <typename D, typename A, typename F>
void Unary(const char *call, const D &dst, const A &a, F f, const char *file, int line) {
  static_assert(std::is_same_v<typename D::Element, typename A::Element>);
  Instruction in(call, PIPE_V, file, line);
  Touch(in, a, false), Touch(in, dst, true), Same(in, dst, a);
  for (int64_t r = 0; r < dst.rows; ++r)
    for (int64_t c = 0; c < dst.cols; ++c) *dst.at(r, c) = Down<typename D::Element>(f(Up(*a.at(r, c))));
}
template <typename D, typename A, typename X, typename F>
void Reduce(const char *call, const D &dst, const A &a, const X &scratch, F f, const char *file, int line) {
  static_assert(std::is_same_v<typename D::Element, typename A::Element>);
  Instruction in(call, PIPE_V, file, line);
  Touch(in, a, false), Touch(in, scratch, true), Touch(in, dst, true);
  in.need(dst.rows == a.rows && dst.cols == 1, "the result is one column");
  for (int64_t r = 0; r < a.rows; ++r) {
    float found = Up(*a.at(r, 0));
    for (int64_t c = 1; c < a.cols; ++c) found = f(found, Up(*a.at(r, c)));
    *dst.at(r, 0) = Down<typename D::Element>(found);
  }
}
struct Add { template <typename T> T operator()(T a, T b) const { return a + b; } };
struct Sub { template <typename T> T operator()(T a, T b) const { return a - b; } };
struct Mul { template <typename T> T operator()(T a, T b) const { return a * b; } };
struct Div { template <typename T> T operator()(T a, T b) const { return a / b; } };
struct Max { template <typename T> T operator()(T a, T b) const { return a < b ? b : a; } };
struct Min { template <typename T> T operator()(T a, T b) const { return b < a ? b : a; } };
}  // namespace detail

#define PTO_MODEL_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define PTO_MODEL_BINARY(NAME, F)                                                                        \
  template <typename D, typename A, typename B>                                                          \
  void T##NAME(D &dst, A &a, B &b, PTO_MODEL_SITE) {                                                     \
    detail::Binary("T" #NAME, dst, a, b, detail::F(), detail::Spread::kNone, file, line);                \
  }                                                                                                      \
  template <typename D, typename A, typename B>                                                          \
  void TROWEXPAND##NAME(D &dst, A &a, B &b, PTO_MODEL_SITE) {                                            \
    detail::Binary("TROWEXPAND" #NAME, dst, a, b, detail::F(), detail::Spread::kRow, file, line);        \
  }                                                                                                      \
  template <typename D, typename A, typename B>                                                          \
  void TCOLEXPAND##NAME(D &dst, A &a, B &b, PTO_MODEL_SITE) {                                            \
    detail::Binary("TCOLEXPAND" #NAME, dst, a, b, detail::F(), detail::Spread::kColumn, file, line);     \
  }                                                                                                      \
  template <typename D, typename A>                                                                      \
  void T##NAME##S(D &dst, A &a, typename A::Element s, PTO_MODEL_SITE) {                                 \
    detail::Scalar("T" #NAME "S", dst, a, s, detail::F(), file, line);                                   \
  }
PTO_MODEL_BINARY(ADD, Add)
PTO_MODEL_BINARY(SUB, Sub)
PTO_MODEL_BINARY(MUL, Mul)
PTO_MODEL_BINARY(DIV, Div)
PTO_MODEL_BINARY(MAX, Max)
PTO_MODEL_BINARY(MIN, Min)

#define PTO_MODEL_UNARY(NAME, EXPRESSION)                                                                \
  template <typename D, typename A>                                                                      \
  void T##NAME(D &dst, A &a, PTO_MODEL_SITE) {                                                           \
    detail::Unary("T" #NAME, dst, a, [](float x) -> float { return EXPRESSION; }, file, line);           \
  }
PTO_MODEL_UNARY(EXP, std::exp(x))
PTO_MODEL_UNARY(RSQRT, 1 / std::sqrt(x))
PTO_MODEL_UNARY(SQRT, std::sqrt(x))
PTO_MODEL_UNARY(LOG, std::log(x))
PTO_MODEL_UNARY(NEG, -x)
PTO_MODEL_UNARY(ABS, std::fabs(x))
PTO_MODEL_UNARY(RELU, x > 0 ? x : 0)
PTO_MODEL_UNARY(MOV, x)

#define PTO_MODEL_ROW(NAME, F)                                                                           \
  template <typename D, typename A, typename X>                                                          \
  void TROW##NAME(D &dst, A &a, X &scratch, PTO_MODEL_SITE) {                                            \
    detail::Reduce("TROW" #NAME, dst, a, scratch, detail::F(), file, line);                              \
  }
PTO_MODEL_ROW(SUM, Add)
PTO_MODEL_ROW(MAX, Max)
PTO_MODEL_ROW(MIN, Min)

template <typename D, typename A>
void TCVT(D &dst, A &a, RoundMode mode, PTO_MODEL_SITE) {
  using T = typename D::Element;
  detail::Instruction in("TCVT", PIPE_V, file, line);
  detail::Touch(in, a, false), detail::Touch(in, dst, true), detail::Same(in, dst, a);
  for (int64_t r = 0; r < dst.rows; ++r)
    for (int64_t c = 0; c < dst.cols; ++c) {
      const auto v = *a.at(r, c);
      if constexpr (std::is_integral_v<T>) {
        const float x = detail::Up(v);
        *dst.at(r, c) = static_cast<T>(mode == RoundMode::CAST_TRUNC ? std::trunc(x) : std::nearbyint(x));
      } else {
        *dst.at(r, c) = detail::Down<T>(detail::Up(v));
      }
    }
}

template <typename X, typename G>
void TLOAD(X &dst, G &from, PTO_MODEL_SITE) {
  static_assert(std::is_same_v<typename X::Element, typename G::Element>);
  detail::Instruction in("TLOAD", PIPE_MTE2, file, line);
  in.need(dst.rows == from.shape.rows && dst.cols == from.shape.cols, "valid extents differ from the tensor's");
  detail::Touch(in, dst, true);
  for (int64_t r = 0; r < dst.rows; ++r)
    std::memcpy(dst.at(r, 0), from.address + r * from.stride.rows, dst.cols * sizeof(*from.address));
}
template <typename G, typename X>
void TSTORE(G &to, X &src, PTO_MODEL_SITE) {
  static_assert(std::is_same_v<typename X::Element, typename G::Element>);
  detail::Instruction in("TSTORE", PIPE_MTE3, file, line);
  in.need(src.rows == to.shape.rows && src.cols == to.shape.cols, "valid extents differ from the tensor's");
  detail::Touch(in, src, false);
  for (int64_t r = 0; r < src.rows; ++r)
    std::memcpy(to.address + r * to.stride.rows, src.at(r, 0), src.cols * sizeof(*to.address));
}
template <typename D, typename A, typename B>
void TSORT32(D &dst, A &scores, B &indices, PTO_MODEL_SITE) {
  detail::Instruction in("TSORT32", PIPE_V, file, line);
  in.need(scores.rows == 1 && scores.cols == 32 && indices.cols == 32 && dst.cols == 64, "1x32 scores and indices");
  detail::Touch(in, scores, false), detail::Touch(in, indices, false), detail::Touch(in, dst, true);
  int order[32];
  std::iota(order, order + 32, 0);
  std::stable_sort(order, order + 32, [&](int i, int j) { return *scores.at(0, i) > *scores.at(0, j); });
  for (int i = 0; i < 32; ++i) {
    *dst.at(0, 2 * i) = *scores.at(0, order[i]);
    *dst.at(0, 2 * i + 1) = static_cast<float>(*indices.at(0, order[i]));
  }
}

}  // namespace pto
