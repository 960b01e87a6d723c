#pragma once

#include "fd.h"

#include <napi.h>

#include <string>

namespace addon {

/// A program in the kernel. Owns its descriptor.
class BpfProgram : public Napi::ObjectWrap<BpfProgram> {
public:
  static constexpr const char *kName = "BpfProgram";
  static constexpr napi_type_tag kTag = {0x8d7c1f5ab2e94e02, 0xa64f0c93d7715b22};

  static Napi::Function Define(Napi::Env env);
  static Napi::Function Constructor(Napi::Env env);
  static Napi::Value OpenPinned(const Napi::CallbackInfo &info);
  /// A JavaScript object that owns `fd`.
  static Napi::Value Wrap(Napi::Env env, Fd fd);

  explicit BpfProgram(const Napi::CallbackInfo &info);

  /// The descriptor; throws when closed.
  int Use() const;

private:
  Napi::Value GetInfo(const Napi::CallbackInfo &info);
  Napi::Value TestRun(const Napi::CallbackInfo &info);
  void Pin(const Napi::CallbackInfo &info);
  void Close(const Napi::CallbackInfo &info);

  Fd fd_;
};

} // namespace addon
