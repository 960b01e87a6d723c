#pragma once

#include "fd.h"

#include <napi.h>

namespace addon {

/// A program's place on an interface. Owns its descriptor: unless pinned, it goes with it.
class BpfLink : public Napi::ObjectWrap<BpfLink> {
public:
  static constexpr const char *kName = "BpfLink";
  static constexpr napi_type_tag kTag = {0x8d7c1f5ab2e94e03, 0xa64f0c93d7715b23};

  static Napi::Function Define(Napi::Env env);
  static Napi::Function Constructor(Napi::Env env);
  static Napi::Value OpenPinned(const Napi::CallbackInfo &info);
  static Napi::Value AttachTcx(const Napi::CallbackInfo &info);
  static Napi::Value QueryTcx(const Napi::CallbackInfo &info);

  explicit BpfLink(const Napi::CallbackInfo &info);

private:
  /// A JavaScript object that owns `fd`.
  static Napi::Value Wrap(Napi::Env env, Fd fd);

  Napi::Value GetInfo(const Napi::CallbackInfo &info);
  void Update(const Napi::CallbackInfo &info);
  void Pin(const Napi::CallbackInfo &info);
  void Detach(const Napi::CallbackInfo &info);
  void Close(const Napi::CallbackInfo &info);
  int Use() const;

  Fd fd_;
};

} // namespace addon
