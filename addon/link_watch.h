#pragma once

#include "fd.h"

#include <napi.h>
#include <uv.h>

namespace addon {

/// Calls JavaScript from the event loop when links or IPv4 addresses have changed; not what or how.
class LinkWatch : public Napi::ObjectWrap<LinkWatch> {
public:
  static constexpr const char *kName = "LinkWatch";
  static constexpr napi_type_tag kTag = {0x8d7c1f5ab2e94e06, 0xa64f0c93d7715b26};

  static Napi::Function Define(Napi::Env env);
  static Napi::Function Constructor(Napi::Env env);
  static Napi::Value Open(const Napi::CallbackInfo &info);

  explicit LinkWatch(const Napi::CallbackInfo &info);
  ~LinkWatch() override;

private:
  /// The loop's handle; it lives until libuv has let go of it, which is after close().
  struct Poll;

  void Start(const Operation &operation);
  void Stop();
  /// Empties the socket: 1 when anything was there, 0 when not, or a negative errno.
  int Drain();
  void Notify();

  static void OnReadable(uv_poll_t *handle, int status, int events);
  static void OnClosed(uv_handle_t *handle);
  static void OnTeardown(napi_async_cleanup_hook_handle hook, void *poll);

  void Close(const Napi::CallbackInfo &info);
  void Reference(const Napi::CallbackInfo &info);
  void Unreference(const Napi::CallbackInfo &info);

  Fd socket_;
  Napi::FunctionReference on_change_;
  /// Null when closed.
  Poll *poll_ = nullptr;
};

} // namespace addon
