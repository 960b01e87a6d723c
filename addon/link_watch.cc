#include "link_watch.h"

#include "instance.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>

namespace addon {

namespace {

/// Messages taken before timers and sockets get their turn. What is left wakes the loop again.
constexpr size_t kMessagesPerWake = 1024;

/// A socket that hears of links and IPv4 addresses in the network namespace of this thread.
Fd Subscribe(const Operation &operation) {
  Fd netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  if (!netlink.IsOpen())
    operation.Fail(errno);
  sockaddr_nl address = {};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR;
  if (bind(netlink.Get(), reinterpret_cast<const sockaddr *>(&address), sizeof(address)))
    operation.Fail(errno);
  return netlink;
}

} // namespace

struct LinkWatch::Poll {
  uv_poll_t handle;
  napi_async_cleanup_hook_handle hook;
  /// Null as soon as the watch is closed.
  LinkWatch *owner;
};

Napi::Function LinkWatch::Define(Napi::Env env) {
  return DefineClass(env, kName,
                     {InstanceMethod<&LinkWatch::Close>("close"),
                      InstanceMethod<&LinkWatch::Reference>("ref"),
                      InstanceMethod<&LinkWatch::Unreference>("unref")});
}

Napi::Function LinkWatch::Constructor(Napi::Env env) {
  return Instance::Of(env).link_watch.Value();
}

Napi::Value LinkWatch::Open(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "watchLinks");
  if (!info[0].IsFunction())
    throw Napi::TypeError::New(info.Env(), "onChange must be a function");
  auto *watch = Create<LinkWatch>(info.Env());
  watch->socket_ = Subscribe(operation);
  watch->on_change_ = Napi::Persistent(info[0].As<Napi::Function>());
  watch->Start(operation);
  return watch->Value();
}

LinkWatch::LinkWatch(const Napi::CallbackInfo &info) : ObjectWrap(info) {
  Value().TypeTag(&kTag);
}

LinkWatch::~LinkWatch() {
  Stop();
}

void LinkWatch::Start(const Operation &operation) {
  uv_loop_t *loop = nullptr;
  if (napi_get_uv_event_loop(Env(), &loop) != napi_ok)
    operation.Fail(ENOTSUP, "this context has no event loop");
  auto poll = std::make_unique<Poll>();
  poll->owner = this;
  if (int error = uv_poll_init(loop, &poll->handle, socket_.Get()))
    operation.Fail(-error);
  // From here on the loop knows the handle, and only OnClosed may free it.
  poll_ = poll.release();
  poll_->handle.data = poll_;
  napi_add_async_cleanup_hook(Env(), OnTeardown, poll_, &poll_->hook);
  // While open, changes must be told even if nobody holds the object.
  Ref();
  if (int error = uv_poll_start(&poll_->handle, UV_READABLE, OnReadable)) {
    Stop();
    operation.Fail(-error);
  }
}

void LinkWatch::Stop() {
  if (!poll_)
    return;
  poll_->owner = nullptr;
  uv_close(reinterpret_cast<uv_handle_t *>(&poll_->handle), OnClosed);
  poll_ = nullptr;
  socket_.Reset();
  on_change_.Reset();
  Unref();
}

int LinkWatch::Drain() {
  int any = 0;
  for (size_t message = 0; message < kMessagesPerWake; message++) {
    // The rest of a message goes with its first byte.
    char first;
    if (recv(socket_.Get(), &first, sizeof(first), 0) >= 0 || errno == ENOBUFS)
      any = 1; // ENOBUFS: the kernel had to drop messages, so there were some
    else if (errno == EAGAIN)
      break;
    else if (errno != EINTR)
      return -errno;
  }
  return any;
}

void LinkWatch::Notify() {
  napi_env env = Env();
  napi_value callback, receiver, result, error;
  if (napi_get_reference_value(env, on_change_, &callback) != napi_ok ||
      napi_get_global(env, &receiver) != napi_ok ||
      napi_make_callback(env, nullptr, receiver, callback, 0, nullptr, &result) == napi_ok)
    return;
  // Nobody above us could catch it: the process gets it as any other uncaught exception.
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok)
    napi_fatal_exception(env, error);
}

void LinkWatch::OnReadable(uv_poll_t *handle, int status, int) {
  LinkWatch *self = static_cast<Poll *>(handle->data)->owner;
  if (!self)
    return;
  Napi::Env env = self->Env();
  Napi::HandleScope scope(env);
  int result = self->Drain();
  // Lost messages are an error of the socket, after which libuv no longer polls it.
  if (result >= 0 && status < 0) {
    if (int error = uv_poll_start(handle, UV_READABLE, OnReadable))
      result = error;
  }
  if (result < 0) {
    self->Stop();
    napi_fatal_exception(env, Operation(env, "watchLinks").Describe(-result, "").Value());
  } else if (result > 0) {
    self->Notify();
  }
}

void LinkWatch::OnClosed(uv_handle_t *handle) {
  auto *poll = static_cast<Poll *>(handle->data);
  napi_remove_async_cleanup_hook(poll->hook);
  delete poll;
}

void LinkWatch::OnTeardown(napi_async_cleanup_hook_handle, void *poll) {
  if (LinkWatch *owner = static_cast<Poll *>(poll)->owner)
    owner->Stop();
}

void LinkWatch::Close(const Napi::CallbackInfo &) {
  Stop();
}

void LinkWatch::Reference(const Napi::CallbackInfo &) {
  if (poll_)
    uv_ref(reinterpret_cast<uv_handle_t *>(&poll_->handle));
}

void LinkWatch::Unreference(const Napi::CallbackInfo &) {
  if (poll_)
    uv_unref(reinterpret_cast<uv_handle_t *>(&poll_->handle));
}

} // namespace addon
