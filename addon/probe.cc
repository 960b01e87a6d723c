#include "probe.h"

#include "arguments.h"
#include "errors.h"
#include "fd.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace addon {

namespace {

/// What the enums of Linux 6.1's headers may hold at most.
constexpr uint32_t kTypeMax = 31;
constexpr uint32_t kHelperMax = 255;

Napi::Value Answer(Napi::Env env, const Operation &operation, int found, uint32_t number) {
  if (found < 0)
    operation.Fail(-found, std::to_string(number));
  return Napi::Boolean::New(env, found > 0);
}

/// libbpf before 1.5 takes the words of Linux 6.11 and later for a yes.
bool IsRefused(const Operation &operation, bpf_prog_type type, uint32_t helper) {
  const std::array<bpf_insn, 2> program = {{
      {.code = BPF_JMP | BPF_CALL, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = int32_t(helper)},
      {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
  }};
  std::array<char, 4096> log = {};
  LIBBPF_OPTS(bpf_prog_load_opts, options);
  options.log_buf = log.data();
  options.log_size = log.size();
  options.log_level = 1;
  Fd fd(bpf_prog_load(type, nullptr, "GPL", program.data(), program.size(), &options));
  if (!fd.IsOpen() && errno == EPERM)
    operation.Fail(EPERM, std::to_string(helper));
  return std::string_view(log.data()).find("cannot use helper") != std::string_view::npos;
}

} // namespace

Napi::Value ProbeProgramType(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "probeProgramType");
  uint32_t type = ExpectNumber(info[0], "type", 0, kTypeMax);
  int found = libbpf_probe_bpf_prog_type(static_cast<bpf_prog_type>(type), nullptr);
  return Answer(info.Env(), operation, found, type);
}

Napi::Value ProbeMapType(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "probeMapType");
  uint32_t type = ExpectNumber(info[0], "type", 0, kTypeMax);
  int found = libbpf_probe_bpf_map_type(static_cast<bpf_map_type>(type), nullptr);
  return Answer(info.Env(), operation, found, type);
}

Napi::Value ProbeHelper(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "probeHelper");
  uint32_t type = ExpectNumber(info[0], "programType", 0, kTypeMax);
  uint32_t helper = ExpectNumber(info[1], "helper", 1, kHelperMax);
  auto program = static_cast<bpf_prog_type>(type);
  int found = libbpf_probe_bpf_helper(program, static_cast<bpf_func_id>(helper), nullptr);
  if (found > 0 && IsRefused(operation, program, helper))
    found = 0;
  return Answer(info.Env(), operation, found, helper);
}

Napi::Value PossibleCpus(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "possibleCpus");
  int count = libbpf_num_possible_cpus();
  if (count < 0)
    operation.Fail(-count);
  return Napi::Number::New(info.Env(), count);
}

} // namespace addon
