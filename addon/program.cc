#include "program.h"

#include "arguments.h"
#include "instance.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <limits>
#include <vector>

namespace addon {

namespace {

/// Room for what a program adds to a packet, unless the caller knows better.
constexpr size_t kGrowth = 512;

std::string ToHex(const uint8_t *bytes, size_t length) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < length; i++) {
    text.push_back(digits[bytes[i] >> 4]);
    text.push_back(digits[bytes[i] & 15]);
  }
  return text;
}

uint32_t ExpectOption(const Napi::Value &value, const char *name, uint32_t otherwise) {
  if (value.IsUndefined())
    return otherwise;
  return ExpectNumber(value, name, 1, std::numeric_limits<int32_t>::max());
}

} // namespace

Napi::Function BpfProgram::Define(Napi::Env env) {
  return DefineClass(env, kName,
                     {InstanceAccessor<&BpfProgram::GetInfo>("info"),
                      InstanceMethod<&BpfProgram::TestRun>("testRun"),
                      InstanceMethod<&BpfProgram::Pin>("pin"),
                      InstanceMethod<&BpfProgram::Close>("close")});
}

Napi::Function BpfProgram::Constructor(Napi::Env env) {
  return Instance::Of(env).program.Value();
}

Napi::Value BpfProgram::OpenPinned(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "openPinnedProgram");
  std::string path = ExpectString(info[0], "path");
  return Wrap(info.Env(), addon::OpenPinned(operation, path, Kind::kProgram));
}

Napi::Value BpfProgram::Wrap(Napi::Env env, Fd fd) {
  auto *program = Create<BpfProgram>(env);
  program->fd_ = std::move(fd);
  return program->Value();
}

BpfProgram::BpfProgram(const Napi::CallbackInfo &info) : ObjectWrap(info) {
  Value().TypeTag(&kTag);
}

int BpfProgram::Use() const {
  if (!fd_.IsOpen())
    throw Napi::Error::New(Env(), "the BpfProgram is closed");
  return fd_.Get();
}

Napi::Value BpfProgram::GetInfo(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "info");
  bpf_prog_info found = {};
  uint32_t length = sizeof(found);
  if (int error = bpf_obj_get_info_by_fd(Use(), &found, &length))
    operation.Fail(-error);
  auto result = Napi::Object::New(info.Env());
  result["id"] = found.id;
  result["name"] = found.name;
  result["type"] = found.type;
  result["tag"] = ToHex(found.tag, sizeof(found.tag));
  result["translatedBytes"] = found.xlated_prog_len;
  result["jitedBytes"] = found.jited_prog_len;
  result["verifiedInstructions"] = found.verified_insns;
  return result;
}

Napi::Value BpfProgram::TestRun(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "testRun");
  if (!info[0].IsObject())
    throw Napi::TypeError::New(info.Env(), "testRun needs an object with `data`");
  // All properties first: a getter could close the program or move the bytes.
  auto given = info[0].As<Napi::Object>();
  Napi::Value data_value = given.Get("data"), context_value = given.Get("context");
  Napi::Value size_value = given.Get("outputSize");
  uint32_t repeat = ExpectOption(given.Get("repeat"), "repeat", 1);

  int fd = Use();
  Bytes data = ExpectBytes(data_value, "data");
  Bytes context = context_value.IsUndefined() ? Bytes() : ExpectBytes(context_value, "context");
  auto room = static_cast<uint32_t>(data.size() + kGrowth);
  std::vector<uint8_t> output(ExpectOption(size_value, "outputSize", room));
  std::vector<uint8_t> context_output(context.size());

  LIBBPF_OPTS(bpf_test_run_opts, run);
  run.data_in = data.data();
  run.data_size_in = static_cast<uint32_t>(data.size());
  run.data_out = output.data();
  run.data_size_out = static_cast<uint32_t>(output.size());
  run.repeat = static_cast<int>(repeat);
  if (!context.empty()) {
    run.ctx_in = context.data();
    run.ctx_size_in = static_cast<uint32_t>(context.size());
    run.ctx_out = context_output.data();
    run.ctx_size_out = static_cast<uint32_t>(context_output.size());
  }
  int error = bpf_prog_test_run_opts(fd, &run);
  if (error == -ENOSPC && run.data_size_out > output.size()) {
    operation.Refuse(ENOSPC, "left " + std::to_string(run.data_size_out) +
                                 " bytes of data, and outputSize is " +
                                 std::to_string(output.size()));
  }
  if (error)
    operation.Fail(-error, std::to_string(data.size()) + " bytes of data");

  auto result = Napi::Object::New(info.Env());
  result["returnValue"] = run.retval;
  result["data"] = ToBuffer(info.Env(), Bytes(output.data(), run.data_size_out));
  if (context.empty())
    result["context"] = info.Env().Null();
  else
    result["context"] = ToBuffer(info.Env(), Bytes(context_output.data(), run.ctx_size_out));
  result["durationNs"] = run.duration;
  return result;
}

void BpfProgram::Pin(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "pin");
  addon::Pin(operation, Use(), ExpectString(info[0], "path"));
}

void BpfProgram::Close(const Napi::CallbackInfo &) {
  fd_.Reset();
}

} // namespace addon
