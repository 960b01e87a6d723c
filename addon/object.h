#pragma once

#include "errors.h"
#include "fd.h"

#include <bpf/libbpf.h>
#include <napi.h>

#include <map>
#include <memory>
#include <string>

namespace addon {

/// A compiled object file: opened, configured, then loaded once.
class BpfObject : public Napi::ObjectWrap<BpfObject> {
public:
  static constexpr const char *kName = "BpfObject";
  static constexpr napi_type_tag kTag = {0x8d7c1f5ab2e94e04, 0xa64f0c93d7715b24};

  static Napi::Function Define(Napi::Env env);
  static Napi::Function Constructor(Napi::Env env);
  static Napi::Value Open(const Napi::CallbackInfo &info);

  explicit BpfObject(const Napi::CallbackInfo &info);

private:
  struct CloseObject {
    void operator()(bpf_object *object) const { bpf_object__close(object); }
  };

  Napi::Value Maps(const Napi::CallbackInfo &info);
  void SetMaxEntries(const Napi::CallbackInfo &info);
  void ReuseMap(const Napi::CallbackInfo &info);
  void ReusePinned(const Napi::CallbackInfo &info);
  void DisableProgram(const Napi::CallbackInfo &info);
  void Load(const Napi::CallbackInfo &info);
  Napi::Value LoadMeasured(const Napi::CallbackInfo &info);
  Napi::Value Map(const Napi::CallbackInfo &info);
  Napi::Value Program(const Napi::CallbackInfo &info);
  void Close(const Napi::CallbackInfo &info);

  bpf_object *Use() const;
  /// The object, which must not be loaded yet.
  bpf_object *Configure() const;
  bpf_map *FindMap(Napi::Value name) const;
  bpf_program *FindProgram(Napi::Value name) const;

  std::unique_ptr<bpf_object, CloseObject> object_;
  std::string file_;
  /// By the names in the file: libbpf renames a map that takes another one over.
  std::map<std::string, bpf_map *> maps_;
  bool load_tried_ = false;
};

} // namespace addon
