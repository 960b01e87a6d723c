#pragma once

#include <napi.h>

#include <string>

namespace addon {

/// One call into the kernel: what libbpf warns about in its course goes into the error it throws.
class Operation {
public:
  Operation(Napi::Env env, const char *name);

  /// Throws an Error with `errno`, `code`, `operation` and, where libbpf said more, `details`.
  [[noreturn]] void Fail(int error, const std::string &subject = "") const;

  /// Throws such an Error for something refused on this side of the kernel.
  [[noreturn]] void Refuse(int error, const std::string &message) const;

  /// The Error that `Fail` would throw, to add to it.
  Napi::Error Describe(int error, const std::string &subject) const;

private:
  Napi::Error Build(int error, const std::string &message) const;

  Napi::Env env_;
  const char *name_;
};

/// From now on libbpf prints nothing; each thread keeps the warnings of its own operation.
void CaptureWarnings();

} // namespace addon
