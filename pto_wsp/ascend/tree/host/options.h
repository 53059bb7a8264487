// The command line of the program.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "host/program.h"

struct Options {
  bool help = false;
  std::string input = "input";    // folder with <tensor>.bin
  std::string output = "output";  // folder for what tasks wrote
  std::string report;             // file with one line per task
  int32_t device = 0;
  uint32_t workers = 0;  // cores to use at most; 0: all that the device has
  std::vector<uint64_t> symbols;             // as program::kSymbols
  std::vector<int64_t> sizes;                // as program::kSizes
  std::vector<std::vector<int64_t>> shapes;  // as program::kTensors
};

inline void PrintHelp() {
  std::printf(
      "%s: a program for Ascend NPUs, written by pto_wsp\n\n"
      "  --input DIR       folder with the inputs (input)\n"
      "  --output DIR      folder for the results; it has to exist (output)\n"
      "  --report FILE     one line per task: kernel, worker, cycles\n"
      "  --device N        number of the device (0)\n"
      "  --workers N       use so many cores at most\n"
      "  --symbol NAME=V   a number, or 0x and 16 hexadecimal digits (0)\n"
      "  --size NAME=N     trips of a loop\n"
      "  --shape NAME=AxB  shape of a tensor\n\n"
      "inputs and results, row by row without a header:\n",
      program::kTitle);
  for (const program::Tensor& t : program::kTensors) {
    std::printf("  %s.bin  %s [", t.name, t.dtype);
    for (uint32_t d = 0; d < t.rank; ++d) {
      std::printf("%s%lld", d == 0 ? "" : ", ",
                  static_cast<long long>(t.shape[d]));
    }
    std::printf("]  %s\n",
                t.read ? t.written ? "read and written" : "read" : "written");
  }
  for (const program::Axis& a : program::kAxes) {
    for (const char* part : a.parts) {
      if (part != nullptr) {
        std::printf("  %s.%s.bin  i32, of axis %s\n", a.name, part, a.name);
      }
    }
  }
  for (const program::Symbol& s : program::kSymbols) {
    std::printf("symbol %s: %s\n", s.name,
                s.isFloat ? "a float" : "an integer");
  }
  for (const program::Size& s : program::kSizes) {
    std::printf("size %s: %lld unless set\n", s.name,
                static_cast<long long>(s.trips));
  }
}

inline int64_t ParseInteger(const std::string& text, const std::string& what) {
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || errno != 0) {
    throw std::invalid_argument(what + " is an integer, not '" + text + "'");
  }
  return value;
}

// A symbol is a 64-bit word; a float is in it as its bits.
inline uint64_t ParseSymbol(const std::string& text, bool isFloat,
                            const std::string& what) {
  const char* begin = text.c_str();
  const bool isWord = text.rfind("0x", 0) == 0;
  char* end = nullptr;
  uint64_t value = 0;
  errno = 0;
  if (isFloat && !isWord) {
    const float number = std::strtof(begin, &end);
    errno = 0;  // too large is infinity
    std::memcpy(&value, &number, sizeof(number));
  } else {
    value = std::strtoull(begin, &end, isWord ? 16 : 10);
  }
  if (text.empty() || *end != '\0' || errno != 0) {
    throw std::invalid_argument(what + " is a number, not '" + text + "'");
  }
  return value;
}

inline std::vector<int64_t> ParseShape(const std::string& text, uint32_t rank,
                                       const std::string& what) {
  std::vector<int64_t> shape;
  for (size_t at = 0; at <= text.size() && rank > 0;) {
    const size_t end = std::min(text.find('x', at), text.size());
    shape.push_back(ParseInteger(text.substr(at, end - at), what));
    at = end + 1;
  }
  if (shape.size() != rank) {
    throw std::invalid_argument(what + " has " + std::to_string(rank) +
                                " dimensions, not '" + text + "'");
  }
  for (const int64_t extent : shape) {
    if (extent < 0) {
      throw std::invalid_argument(what + " is negative: '" + text + "'");
    }
  }
  return shape;
}

// Calls set(index, value) for what `given`, NAME=value, names in a table: all
// entries of that name, or the one with that constant in plan.h.
template <typename Table, typename Set>
void ForNamed(const std::string& option, const std::string& given,
              const Table& table, Set set) {
  const size_t equals = given.rfind('=');
  bool found = false;
  for (size_t i = 0; equals != std::string::npos && i < table.size(); ++i) {
    const std::string name = given.substr(0, equals);
    if (name == table[i].name || name == table[i].constant) {
      set(i, given.substr(equals + 1), option + " " + name);
      found = true;
    }
  }
  if (!found) {
    throw std::invalid_argument(option + " " + given +
                                (equals == std::string::npos
                                     ? " is not NAME=value"
                                     : " names nothing that this program has"));
  }
}

inline uint32_t ParseCount(const std::string& text, const std::string& what) {
  const int64_t value = ParseInteger(text, what);
  if (value < 0 || value > INT32_MAX) {
    throw std::invalid_argument(what + " is out of range: " + text);
  }
  return static_cast<uint32_t>(value);
}

inline Options ParseOptions(int argc, char** argv) {
  Options o;
  o.symbols.resize(program::kSymbols.size());
  for (const program::Size& s : program::kSizes) {
    o.sizes.push_back(s.trips);
  }
  for (const program::Tensor& t : program::kTensors) {
    o.shapes.emplace_back(t.shape, t.shape + t.rank);
  }
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--help") {
      o.help = true;
      continue;
    }
    if (i + 1 == argc) {
      throw std::invalid_argument(option + " needs a value, or is unknown");
    }
    const std::string value = argv[++i];
    if (option == "--input") {
      o.input = value;
    } else if (option == "--output") {
      o.output = value;
    } else if (option == "--report") {
      o.report = value;
    } else if (option == "--device") {
      o.device = static_cast<int32_t>(ParseCount(value, option));
    } else if (option == "--workers") {
      o.workers = ParseCount(value, option);
    } else if (option == "--symbol") {
      ForNamed(option, value, program::kSymbols,
               [&](size_t k, const std::string& v, const std::string& what) {
                 o.symbols[k] =
                     ParseSymbol(v, program::kSymbols[k].isFloat, what);
               });
    } else if (option == "--size") {
      ForNamed(option, value, program::kSizes,
               [&](size_t k, const std::string& v, const std::string& what) {
                 o.sizes[k] = ParseInteger(v, what);
               });
    } else if (option == "--shape") {
      ForNamed(option, value, program::kTensors,
               [&](size_t k, const std::string& v, const std::string& what) {
                 o.shapes[k] = ParseShape(v, program::kTensors[k].rank, what);
               });
    } else {
      throw std::invalid_argument("unknown option " + option +
                                  "; --help lists them");
    }
  }
  return o;
}
