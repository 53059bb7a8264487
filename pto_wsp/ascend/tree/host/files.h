// Arrays in files: the bytes of their elements in row-major order, no header.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

inline bool FileExists(const std::string& path) {
  return std::ifstream(path, std::ios::binary).good();
}

inline std::vector<char> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    throw std::runtime_error("cannot read " + path + ": " +
                             std::strerror(errno));
  }
  std::vector<char> bytes(static_cast<size_t>(file.tellg()));
  file.seekg(0);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    throw std::runtime_error("cannot read all of " + path);
  }
  return bytes;
}

// raises when the file is not exactly that long
inline std::vector<char> ReadFile(const std::string& path, uint64_t bytes) {
  std::vector<char> found = ReadFile(path);
  if (found.size() != bytes) {
    throw std::runtime_error(path + " has " + std::to_string(found.size()) +
                             " bytes, not " + std::to_string(bytes));
  }
  return found;
}

inline std::vector<int32_t> ReadIntegers(const std::string& path) {
  const std::vector<char> bytes = ReadFile(path);
  std::vector<int32_t> found(bytes.size() / sizeof(int32_t));
  if (found.size() * sizeof(int32_t) != bytes.size()) {
    throw std::runtime_error(path + " is no file of 32-bit integers");
  }
  if (!found.empty()) {
    std::memcpy(found.data(), bytes.data(), bytes.size());
  }
  return found;
}

inline void WriteFile(const std::string& path, const void* data, size_t bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(static_cast<const char*>(data),
             static_cast<std::streamsize>(bytes));
  file.flush();
  if (!file) {
    throw std::runtime_error("cannot write " + path + ": " +
                             std::strerror(errno));
  }
}
