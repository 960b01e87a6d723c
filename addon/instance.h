#pragma once

#include <napi.h>

namespace addon {

/// What belongs to one JavaScript context: a worker has its own.
struct Instance {
  Napi::FunctionReference object;
  Napi::FunctionReference map;
  Napi::FunctionReference program;
  Napi::FunctionReference link;
  Napi::FunctionReference ring_buffer;
  Napi::FunctionReference link_watch;

  static Instance &Of(Napi::Env env) { return *env.GetInstanceData<Instance>(); }
};

/// A new JavaScript object of a wrapped class. It is closed until its owner gives it something.
template <typename Wrapped> Wrapped *Create(Napi::Env env) {
  return Wrapped::Unwrap(Wrapped::Constructor(env).New({}));
}

/// The native side of an argument, which must be one of ours of that class.
template <typename Wrapped> Wrapped *Expect(Napi::Value value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&Wrapped::kTag)) {
    throw Napi::TypeError::New(value.Env(), std::string("expected a ") + Wrapped::kName);
  }
  return Wrapped::Unwrap(value.As<Napi::Object>());
}

} // namespace addon
