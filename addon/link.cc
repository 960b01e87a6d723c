#include "link.h"

#include "arguments.h"
#include "instance.h"
#include "program.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <limits>
#include <vector>

namespace addon {

namespace {

// Names of Linux 6.6 and 6.7 that Debian 12's headers lack.
constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);
constexpr uint32_t kLinkTypeTcx = 11;
constexpr uint32_t kLinkTypeNetkit = 13;

bpf_attach_type TcxType(bool ingress) {
  return ingress ? kTcxIngress : kTcxEgress;
}

uint32_t ExpectInterface(Napi::Value value) {
  return ExpectNumber(value, "ifindex", 1, std::numeric_limits<int32_t>::max());
}

std::string Place(uint32_t ifindex, bool ingress) {
  return "ifindex " + std::to_string(ifindex) + (ingress ? " ingress" : " egress");
}

/// The details of these three begin with the interface's index; in others that word is another.
uint32_t InterfaceOf(const bpf_link_info &info) {
  bool has =
      info.type == BPF_LINK_TYPE_XDP || info.type == kLinkTypeTcx || info.type == kLinkTypeNetkit;
  return has ? info.xdp.ifindex : 0;
}

} // namespace

Napi::Function BpfLink::Define(Napi::Env env) {
  return DefineClass(
      env, kName,
      {InstanceAccessor<&BpfLink::GetInfo>("info"), InstanceMethod<&BpfLink::Update>("update"),
       InstanceMethod<&BpfLink::Pin>("pin"), InstanceMethod<&BpfLink::Detach>("detach"),
       InstanceMethod<&BpfLink::Close>("close")});
}

Napi::Function BpfLink::Constructor(Napi::Env env) {
  return Instance::Of(env).link.Value();
}

Napi::Value BpfLink::OpenPinned(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "openPinnedLink");
  std::string path = ExpectString(info[0], "path");
  return Wrap(info.Env(), addon::OpenPinned(operation, path, Kind::kLink));
}

Napi::Value BpfLink::AttachTcx(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "attachTcx");
  int program = Expect<BpfProgram>(info[0])->Use();
  uint32_t ifindex = ExpectInterface(info[1]);
  bool ingress = ExpectIngress(info[2]);
  int fd = bpf_link_create(program, static_cast<int>(ifindex), TcxType(ingress), nullptr);
  if (fd < 0)
    operation.Fail(-fd, Place(ifindex, ingress));
  return Wrap(info.Env(), Fd(fd));
}

Napi::Value BpfLink::QueryTcx(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "queryTcx");
  uint32_t ifindex = ExpectInterface(info[0]);
  bool ingress = ExpectIngress(info[1]);
  std::vector<uint32_t> ids(64);
  uint32_t count = 0;
  for (;;) {
    LIBBPF_OPTS(bpf_prog_query_opts, query);
    query.prog_ids = ids.data();
    query.prog_cnt = static_cast<uint32_t>(ids.size());
    int error = bpf_prog_query_opts(static_cast<int>(ifindex), TcxType(ingress), &query);
    count = query.prog_cnt;
    if (error == -ENOSPC) {
      ids.resize(ids.size() * 2);
      continue;
    }
    // An attach type that the kernel does not know.
    if (error == -EINVAL)
      return info.Env().Null();
    // Linux 6.6 says so where nothing is attached.
    if (error == -ENOENT)
      count = 0;
    else if (error)
      operation.Fail(-error, Place(ifindex, ingress));
    break;
  }
  auto programs = Napi::Array::New(info.Env(), count);
  for (uint32_t i = 0; i < count; i++)
    programs[i] = ids[i];
  auto result = Napi::Object::New(info.Env());
  result["programIds"] = programs;
  return result;
}

Napi::Value BpfLink::Wrap(Napi::Env env, Fd fd) {
  auto *link = Create<BpfLink>(env);
  link->fd_ = std::move(fd);
  return link->Value();
}

BpfLink::BpfLink(const Napi::CallbackInfo &info) : ObjectWrap(info) {
  Value().TypeTag(&kTag);
}

Napi::Value BpfLink::GetInfo(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "info");
  bpf_link_info found = {};
  uint32_t length = sizeof(found);
  if (int error = bpf_obj_get_info_by_fd(Use(), &found, &length))
    operation.Fail(-error);
  auto result = Napi::Object::New(info.Env());
  result["id"] = found.id;
  result["type"] = found.type;
  result["programId"] = found.prog_id;
  result["ifindex"] = InterfaceOf(found);
  return result;
}

void BpfLink::Update(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "update");
  int program = Expect<BpfProgram>(info[0])->Use();
  if (int error = bpf_link_update(Use(), program, nullptr))
    operation.Fail(-error);
}

void BpfLink::Pin(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "pin");
  addon::Pin(operation, Use(), ExpectString(info[0], "path"));
}

void BpfLink::Detach(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "detach");
  if (int error = bpf_link_detach(Use()))
    operation.Fail(-error);
}

void BpfLink::Close(const Napi::CallbackInfo &) {
  fd_.Reset();
}

int BpfLink::Use() const {
  if (!fd_.IsOpen())
    throw Napi::Error::New(Env(), "the BpfLink is closed");
  return fd_.Get();
}

} // namespace addon
