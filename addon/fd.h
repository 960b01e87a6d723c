#pragma once

#include "errors.h"

#include <string>
#include <utility>

namespace addon {

/// Owns a file descriptor.
class Fd {
public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd &operator=(Fd &&other) noexcept {
    Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~Fd() { Reset(); }

  int Get() const { return fd_; }
  bool IsOpen() const { return fd_ >= 0; }
  void Reset(int fd = -1);

private:
  int fd_ = -1;
};

/// What a BPF descriptor refers to, as /proc/self/fd calls it.
enum class Kind { kMap, kProgram, kLink };

/// A second descriptor of the same thing, which lives on when the first is closed.
Fd Duplicate(const Operation &operation, int fd);

/// Opens a pin, which must be of that kind.
Fd OpenPinned(const Operation &operation, const std::string &path, Kind kind);

/// Makes it outlive this process, under a path on bpffs.
void Pin(const Operation &operation, int fd, const std::string &path);

} // namespace addon
