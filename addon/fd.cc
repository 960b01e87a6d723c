#include "fd.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>

namespace addon {

namespace {

const char *NameOf(Kind kind) {
  switch (kind) {
  case Kind::kMap:
    return "map";
  case Kind::kProgram:
    return "prog";
  default:
    return "link";
  }
}

/// "map" for anon_inode:bpf-map; links have been bpf_link and bpf-link.
std::string ReadKind(int fd) {
  char target[64];
  std::string entry = "/proc/self/fd/" + std::to_string(fd);
  ssize_t length = readlink(entry.c_str(), target, sizeof(target));
  constexpr std::string_view prefix = "anon_inode:bpf";
  std::string_view text(target, length < 0 ? 0 : static_cast<size_t>(length));
  if (!text.starts_with(prefix) || text.size() <= prefix.size())
    return "";
  return std::string(text.substr(prefix.size() + 1));
}

} // namespace

void Fd::Reset(int fd) {
  if (fd_ >= 0)
    close(fd_);
  fd_ = fd;
}

Fd Duplicate(const Operation &operation, int fd) {
  Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy.IsOpen())
    operation.Fail(errno);
  return copy;
}

Fd OpenPinned(const Operation &operation, const std::string &path, Kind kind) {
  int fd = bpf_obj_get(path.c_str());
  if (fd < 0)
    operation.Fail(-fd, path);
  Fd owned(fd);
  std::string found = ReadKind(fd);
  // Without /proc the kind is unknown, which is no reason to refuse.
  if (!found.empty() && found != NameOf(kind))
    operation.Refuse(EINVAL, path + ": a " + found + " is pinned there, not a " + NameOf(kind));
  return owned;
}

void Pin(const Operation &operation, int fd, const std::string &path) {
  if (int error = bpf_obj_pin(fd, path.c_str()))
    operation.Fail(-error, path);
}

} // namespace addon
