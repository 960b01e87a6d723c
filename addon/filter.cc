#include "filter.h"

#include "arguments.h"
#include "errors.h"
#include "instance.h"
#include "program.h"
#include "qdisc.h"

#include <bpf/libbpf.h>

#include <cerrno>
#include <limits>

namespace addon {

namespace {

/// Where a filter is: with handle and priority given, an attach replaces instead of adding.
struct Place {
  uint32_t ifindex;
  bool ingress;
  uint32_t handle;
  uint32_t priority;

  Place(Napi::Value interface, Napi::Value direction, Napi::Value filter)
      : ifindex(ExpectNumber(interface, "ifindex", 1, std::numeric_limits<int32_t>::max())),
        ingress(ExpectIngress(direction)) {
    if (!filter.IsObject())
      throw Napi::TypeError::New(filter.Env(), "a filter needs { handle, priority }");
    auto given = filter.As<Napi::Object>();
    handle = ExpectNumber(given.Get("handle"), "handle", 1);
    priority = ExpectNumber(given.Get("priority"), "priority", 1, 0xffff);
  }

  bpf_tc_hook Hook() const {
    LIBBPF_OPTS(bpf_tc_hook, hook);
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
    return hook;
  }

  bpf_tc_opts Filter() const {
    LIBBPF_OPTS(bpf_tc_opts, filter);
    filter.handle = handle;
    filter.priority = priority;
    return filter;
  }

  std::string Text() const {
    return "ifindex " + std::to_string(ifindex) + (ingress ? " ingress" : " egress") + ", handle " +
           std::to_string(handle) + ", priority " + std::to_string(priority);
  }
};

/// The kernel says EINVAL where there is no qdisc, or a filter of another kind has that priority.
bool IsAbsent(int error) {
  return error == -ENOENT || error == -EINVAL;
}

/// An `ingress` qdisc takes every filter for its own: one for egress would run at ingress.
bool LacksEgress(const Operation &operation, const Place &place) {
  if (place.ingress)
    return false;
  std::string kind;
  if (int error = ReadIngressQdisc(place.ifindex, kind))
    operation.Fail(-error, place.Text());
  return kind == "ingress";
}

/// True when the qdisc was not there before.
bool CreateQdisc(const Operation &operation, const Place &place) {
  bpf_tc_hook hook = place.Hook();
  int error = bpf_tc_hook_create(&hook);
  if (error && error != -EEXIST)
    operation.Fail(-error, place.Text());
  return error == 0;
}

} // namespace

Napi::Value AttachFilter(const Napi::CallbackInfo &info) {
  auto *program = Expect<BpfProgram>(info[0]);
  Place place(info[1], info[2], info[3]);
  int fd = program->Use();
  bool created = CreateQdisc(Operation(info.Env(), "attachFilter"), place);
  // A new operation: that the qdisc exists already is no part of what may fail now.
  Operation operation(info.Env(), "attachFilter");
  if (LacksEgress(operation, place)) {
    operation.Refuse(EBUSY, place.Text() +
                                ": an ingress qdisc, which has no egress, is where clsact has to be"
                                "; remove it with `tc qdisc delete dev NAME ingress`");
  }
  bpf_tc_hook hook = place.Hook();
  bpf_tc_opts filter = place.Filter();
  filter.prog_fd = fd;
  filter.flags = BPF_TC_F_REPLACE;
  if (int error = bpf_tc_attach(&hook, &filter))
    operation.Fail(-error, place.Text());
  auto result = Napi::Object::New(info.Env());
  result["qdiscCreated"] = created;
  return result;
}

Napi::Value QueryFilter(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "queryFilter");
  Place place(info[0], info[1], info[2]);
  if (LacksEgress(operation, place))
    return info.Env().Null();
  bpf_tc_hook hook = place.Hook();
  bpf_tc_opts filter = place.Filter();
  int error = bpf_tc_query(&hook, &filter);
  if (IsAbsent(error))
    return info.Env().Null();
  if (error)
    operation.Fail(-error, place.Text());
  auto result = Napi::Object::New(info.Env());
  result["programId"] = filter.prog_id;
  return result;
}

Napi::Value DetachFilter(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "detachFilter");
  Place place(info[0], info[1], info[2]);
  if (LacksEgress(operation, place))
    return Napi::Boolean::New(info.Env(), false);
  bpf_tc_hook hook = place.Hook();
  bpf_tc_opts filter = place.Filter();
  int error = bpf_tc_detach(&hook, &filter);
  if (error && !IsAbsent(error))
    operation.Fail(-error, place.Text());
  return Napi::Boolean::New(info.Env(), error == 0);
}

} // namespace addon
