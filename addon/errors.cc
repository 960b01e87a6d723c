#include "errors.h"

#include <bpf/libbpf.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace addon {

namespace {

/// The kernel's own ENOTSUPP, which it leaks to user space from BPF maps; libc has no name for it.
constexpr int kNotSupported = 524;
constexpr size_t kWarningsMax = 16 * 1024;
constexpr int kMessageLines = 3;
/// enum libbpf_errno
constexpr std::array kLibbpfNames = {
    "LIBBPF_LIBELF",   "LIBBPF_FORMAT",  "LIBBPF_KVERSION", "LIBBPF_ENDIAN",   "LIBBPF_INTERNAL",
    "LIBBPF_RELOC",    "LIBBPF_LOAD",    "LIBBPF_VERIFY",   "LIBBPF_PROG2BIG", "LIBBPF_KVER",
    "LIBBPF_PROGTYPE", "LIBBPF_WRNGPID", "LIBBPF_INVSEQ",   "LIBBPF_NLPARSE",
};

thread_local std::string warnings;

int KeepWarning(enum libbpf_print_level level, const char *format, va_list arguments) {
  if (level != LIBBPF_WARN)
    return 0;
  char line[1024];
  int length = vsnprintf(line, sizeof(line), format, arguments);
  warnings.append(line);
  // A line that was cut has lost its end of line too.
  if (length >= static_cast<int>(sizeof(line)))
    warnings.push_back('\n');
  if (warnings.size() > kWarningsMax)
    warnings.erase(0, warnings.size() - kWarningsMax);
  return 0;
}

const char *NameOf(int error) {
  if (error == kNotSupported)
    return "ENOTSUPP";
  size_t own = static_cast<size_t>(error - __LIBBPF_ERRNO__START);
  if (error >= __LIBBPF_ERRNO__START && own < kLibbpfNames.size())
    return kLibbpfNames[own];
  const char *name = strerrorname_np(error);
  return name ? name : "EUNKNOWN";
}

std::string Explain(int error) {
  if (error == kNotSupported)
    return "Operation not supported";
  char text[128];
  libbpf_strerror(error, text, sizeof(text));
  return text;
}

/// The last warnings, in one line: the first of many is rarely the one that ended it.
std::string LastLines(std::string_view text) {
  size_t from = text.size();
  for (int line = 0; line < kMessageLines && from > 0; line++) {
    size_t end = from < 2 ? std::string_view::npos : text.rfind('\n', from - 2);
    from = end == std::string_view::npos ? 0 : end + 1;
  }
  std::string joined;
  for (std::string_view rest = text.substr(from); !rest.empty();) {
    size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    if (line.starts_with("libbpf: "))
      line.remove_prefix(8);
    if (!line.empty())
      joined.append(joined.empty() ? "" : "; ").append(line);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return joined;
}

} // namespace

Operation::Operation(Napi::Env env, const char *name) : env_(env), name_(name) {
  warnings.clear();
}

void Operation::Fail(int error, const std::string &subject) const {
  throw Describe(error, subject);
}

void Operation::Refuse(int error, const std::string &message) const {
  throw Build(error, std::string(name_) + ' ' + message);
}

Napi::Error Operation::Describe(int error, const std::string &subject) const {
  std::string message = name_;
  if (!subject.empty())
    message += ' ' + subject;
  message += std::string(": ") + NameOf(error) + ", " + Explain(error);
  if (std::string lines = LastLines(warnings); !lines.empty())
    message += " (" + lines + ')';
  return Build(error, message);
}

Napi::Error Operation::Build(int error, const std::string &message) const {
  Napi::Error built = Napi::Error::New(env_, message);
  built.Set("errno", Napi::Number::New(env_, error));
  built.Set("code", Napi::String::New(env_, NameOf(error)));
  built.Set("operation", Napi::String::New(env_, name_));
  if (!warnings.empty())
    built.Set("details", Napi::String::New(env_, warnings));
  return built;
}

void CaptureWarnings() {
  libbpf_set_print(KeepWarning);
}

} // namespace addon
