#pragma once

#include "entries.h"
#include "fd.h"

#include <bpf/bpf.h>
#include <napi.h>

#include <string>
#include <vector>

namespace addon {

/// A map in the kernel. Owns its descriptor.
class BpfMap : public Napi::ObjectWrap<BpfMap> {
public:
  static constexpr const char *kName = "BpfMap";
  static constexpr napi_type_tag kTag = {0x8d7c1f5ab2e94e01, 0xa64f0c93d7715b21};

  static Napi::Function Define(Napi::Env env);
  static Napi::Function Constructor(Napi::Env env);
  static Napi::Value OpenPinned(const Napi::CallbackInfo &info);
  /// A JavaScript object that owns `fd`.
  static Napi::Value Wrap(const Operation &operation, Napi::Env env, Fd fd);

  explicit BpfMap(const Napi::CallbackInfo &info);

  /// The descriptor; throws when closed.
  int Use() const;
  const bpf_map_info &Info() const { return info_; }

private:
  Napi::Value GetInfo(const Napi::CallbackInfo &info);
  Napi::Value Get(const Napi::CallbackInfo &info);
  void Put(const Napi::CallbackInfo &info);
  Napi::Value Delete(const Napi::CallbackInfo &info);
  Napi::Value Take(const Napi::CallbackInfo &info);
  Napi::Value Entries(const Napi::CallbackInfo &info);
  Napi::Value Some(const Napi::CallbackInfo &info);
  void PutMap(const Napi::CallbackInfo &info);
  void PutBatch(const Napi::CallbackInfo &info);
  Napi::Value DeleteBatch(const Napi::CallbackInfo &info);
  void Pin(const Napi::CallbackInfo &info);
  void Close(const Napi::CallbackInfo &info);

  Napi::Value Describe(const addon::Entries &entries);
  /// The key argument; null for maps without keys, as the kernel wants it.
  const void *ExpectKey(Napi::Value value) const;
  /// How many keys there are in the argument.
  size_t CountKeys(Napi::Value value) const;

  Fd fd_;
  bpf_map_info info_ = {};
  MapShape shape_ = {};
  /// Room for one value as user space sees it.
  std::vector<uint8_t> value_;
};

} // namespace addon
