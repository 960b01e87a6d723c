#pragma once

#include "fd.h"

#include <bpf/libbpf.h>
#include <napi.h>
#include <uv.h>

#include <memory>

namespace addon {

/// Hands the records of a ring buffer to JavaScript from the event loop, without a thread.
class RingBuffer : public Napi::ObjectWrap<RingBuffer> {
public:
  static constexpr const char *kName = "RingBuffer";
  static constexpr napi_type_tag kTag = {0x8d7c1f5ab2e94e05, 0xa64f0c93d7715b25};

  static Napi::Function Define(Napi::Env env);
  static Napi::Function Constructor(Napi::Env env);
  static Napi::Value Open(const Napi::CallbackInfo &info);

  explicit RingBuffer(const Napi::CallbackInfo &info);
  ~RingBuffer() override;

private:
  struct FreeRing {
    void operator()(ring_buffer *ring) const { ring_buffer__free(ring); }
  };
  /// The loop's handle; it lives until libuv has let go of it, which is after close().
  struct Poll;
  /// Who called us, and so who is to meet an exception.
  enum class Caller { kLoop, kJavaScript };

  void Start(const Operation &operation);
  void Stop();
  void Release();
  /// Hands over at most `limit` records; 0 or a negative errno.
  int Drain(size_t limit, Caller caller);
  bool Deliver(const void *data, size_t size);
  void ReportUncaught();

  static void OnReadable(uv_poll_t *handle, int status, int events);
  static void OnClosed(uv_handle_t *handle);
  static void OnTeardown(napi_async_cleanup_hook_handle hook, void *poll);
  static int OnRecord(void *self, void *data, size_t size);

  Napi::Value Consume(const Napi::CallbackInfo &info);
  void Close(const Napi::CallbackInfo &info);
  void Reference(const Napi::CallbackInfo &info);
  void Unreference(const Napi::CallbackInfo &info);

  Fd map_;
  /// What one full ring can hold at most.
  size_t records_max_ = 0;
  std::unique_ptr<ring_buffer, FreeRing> ring_;
  Napi::FunctionReference on_record_;
  /// Null when closed.
  Poll *poll_ = nullptr;

  // Of the drain that is under way.
  bool draining_ = false;
  Caller caller_ = Caller::kLoop;
  size_t left_ = 0;
  size_t delivered_ = 0;
};

} // namespace addon
