#include "ring_buffer.h"

#include "instance.h"
#include "map.h"

#include <cerrno>

namespace addon {

namespace {

/// Records handed over before timers and sockets get their turn. What is left wakes the loop again.
constexpr size_t kRecordsPerWake = 1024;
/// A record takes its header at least.
constexpr size_t kRecordBytesMin = 8;
/// Tells libbpf to leave the rest for later.
constexpr int kPause = -ECANCELED;

} // namespace

struct RingBuffer::Poll {
  uv_poll_t handle;
  napi_async_cleanup_hook_handle hook;
  /// Null as soon as the ring buffer is closed.
  RingBuffer *owner;
};

Napi::Function RingBuffer::Define(Napi::Env env) {
  return DefineClass(env, kName,
                     {InstanceMethod<&RingBuffer::Consume>("consume"),
                      InstanceMethod<&RingBuffer::Close>("close"),
                      InstanceMethod<&RingBuffer::Reference>("ref"),
                      InstanceMethod<&RingBuffer::Unreference>("unref")});
}

Napi::Function RingBuffer::Constructor(Napi::Env env) {
  return Instance::Of(env).ring_buffer.Value();
}

Napi::Value RingBuffer::Open(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "openRingBuffer");
  auto *map = Expect<BpfMap>(info[0]);
  int fd = map->Use();
  if (map->Info().type != BPF_MAP_TYPE_RINGBUF) {
    throw Napi::TypeError::New(info.Env(), std::string("map ") + map->Info().name + " has type " +
                                               std::to_string(map->Info().type) +
                                               ", a ring buffer has " +
                                               std::to_string(BPF_MAP_TYPE_RINGBUF));
  }
  if (!info[1].IsFunction())
    throw Napi::TypeError::New(info.Env(), "onRecord must be a function");
  auto *ring = Create<RingBuffer>(info.Env());
  ring->map_ = Duplicate(operation, fd);
  ring->records_max_ = map->Info().max_entries / kRecordBytesMin;
  ring->on_record_ = Napi::Persistent(info[1].As<Napi::Function>());
  ring->Start(operation);
  return ring->Value();
}

RingBuffer::RingBuffer(const Napi::CallbackInfo &info) : ObjectWrap(info) {
  Value().TypeTag(&kTag);
}

RingBuffer::~RingBuffer() {
  Stop();
}

void RingBuffer::Start(const Operation &operation) {
  ring_.reset(ring_buffer__new(map_.Get(), OnRecord, this, nullptr));
  if (!ring_)
    operation.Fail(errno);
  uv_loop_t *loop = nullptr;
  if (napi_get_uv_event_loop(Env(), &loop) != napi_ok)
    operation.Fail(ENOTSUP, "this context has no event loop");
  auto poll = std::make_unique<Poll>();
  poll->owner = this;
  if (int error = uv_poll_init(loop, &poll->handle, ring_buffer__epoll_fd(ring_.get())))
    operation.Fail(-error);
  // From here on the loop knows the handle, and only OnClosed may free it.
  poll_ = poll.release();
  poll_->handle.data = poll_;
  napi_add_async_cleanup_hook(Env(), OnTeardown, poll_, &poll_->hook);
  // While open, records must come even if nobody holds the object.
  Ref();
  if (int error = uv_poll_start(&poll_->handle, UV_READABLE, OnReadable)) {
    Stop();
    operation.Fail(-error);
  }
}

void RingBuffer::Stop() {
  if (!poll_)
    return;
  poll_->owner = nullptr;
  uv_close(reinterpret_cast<uv_handle_t *>(&poll_->handle), OnClosed);
  poll_ = nullptr;
  // libbpf is still reading from the ring when a record's own callback closes it.
  if (!draining_)
    Release();
}

void RingBuffer::Release() {
  ring_.reset();
  map_.Reset();
  on_record_.Reset();
  Unref();
}

int RingBuffer::Drain(size_t limit, Caller caller) {
  draining_ = true;
  caller_ = caller;
  left_ = limit;
  delivered_ = 0;
  int result = ring_buffer__consume(ring_.get());
  draining_ = false;
  if (!poll_)
    Release();
  return result < 0 && result != kPause ? result : 0;
}

bool RingBuffer::Deliver(const void *data, size_t size) {
  napi_env env = Env();
  napi_value record, callback, receiver, result;
  if (napi_create_buffer_copy(env, size, data, nullptr, &record) != napi_ok ||
      napi_get_reference_value(env, on_record_, &callback) != napi_ok ||
      napi_get_global(env, &receiver) != napi_ok)
    return false;
  if (caller_ == Caller::kJavaScript)
    return napi_call_function(env, receiver, callback, 1, &record, &result) == napi_ok;
  if (napi_make_callback(env, nullptr, receiver, callback, 1, &record, &result) == napi_ok)
    return true;
  ReportUncaught();
  return false;
}

/// Nobody above us could catch it: the process gets it as any other uncaught exception.
void RingBuffer::ReportUncaught() {
  bool pending = false;
  napi_value error;
  if (napi_is_exception_pending(Env(), &pending) == napi_ok && pending &&
      napi_get_and_clear_last_exception(Env(), &error) == napi_ok)
    napi_fatal_exception(Env(), error);
}

void RingBuffer::OnReadable(uv_poll_t *handle, int status, int) {
  RingBuffer *self = static_cast<Poll *>(handle->data)->owner;
  if (!self)
    return;
  Napi::Env env = self->Env();
  Napi::HandleScope scope(env);
  int error = status < 0 ? status : self->Drain(kRecordsPerWake, Caller::kLoop);
  if (error == 0)
    return;
  self->Stop();
  napi_fatal_exception(env, Operation(env, "openRingBuffer").Describe(-error, "").Value());
}

void RingBuffer::OnClosed(uv_handle_t *handle) {
  auto *poll = static_cast<Poll *>(handle->data);
  napi_remove_async_cleanup_hook(poll->hook);
  delete poll;
}

void RingBuffer::OnTeardown(napi_async_cleanup_hook_handle, void *poll) {
  if (RingBuffer *owner = static_cast<Poll *>(poll)->owner)
    owner->Stop();
}

int RingBuffer::OnRecord(void *context, void *data, size_t size) {
  auto *self = static_cast<RingBuffer *>(context);
  napi_handle_scope scope;
  if (napi_open_handle_scope(self->Env(), &scope) != napi_ok)
    return kPause;
  self->delivered_++;
  bool returned = self->Deliver(data, size);
  napi_close_handle_scope(self->Env(), scope);
  return returned && self->poll_ && --self->left_ > 0 ? 0 : kPause;
}

Napi::Value RingBuffer::Consume(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "consume");
  // Before the other: a callback may have closed it, and is still the wrong place.
  if (draining_)
    throw Napi::Error::New(info.Env(), "consume() must not be called by onRecord");
  if (!poll_)
    throw Napi::Error::New(info.Env(), "the RingBuffer is closed");
  // Bounded by what can be there now: a flood could otherwise hold us for ever.
  int error = Drain(records_max_, Caller::kJavaScript);
  if (info.Env().IsExceptionPending())
    throw Napi::Error::New(info.Env());
  if (error)
    operation.Fail(-error);
  return Napi::Number::New(info.Env(), static_cast<double>(delivered_));
}

void RingBuffer::Close(const Napi::CallbackInfo &) {
  Stop();
}

void RingBuffer::Reference(const Napi::CallbackInfo &) {
  if (poll_)
    uv_ref(reinterpret_cast<uv_handle_t *>(&poll_->handle));
}

void RingBuffer::Unreference(const Napi::CallbackInfo &) {
  if (poll_)
    uv_unref(reinterpret_cast<uv_handle_t *>(&poll_->handle));
}

} // namespace addon
