#include "btf.h"

#include "arguments.h"
#include "errors.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <array>
#include <cerrno>
#include <memory>

namespace addon {

namespace {

constexpr std::array kKinds = {
    "void", "int",     "ptr",      "array",    "struct",   "union",  "enum",
    "fwd",  "typedef", "volatile", "const",    "restrict", "func",   "func_proto",
    "var",  "datasec", "float",    "decl_tag", "type_tag", "enum64",
};

struct FreeBtf {
  void operator()(btf *types) const { btf__free(types); }
};

Napi::Array Members(Napi::Env env, const btf *types, const btf_type *type) {
  uint32_t count = btf_vlen(type);
  auto members = Napi::Array::New(env, count);
  for (uint32_t i = 0; i < count; i++) {
    const btf_member &member = btf_members(type)[i];
    auto result = Napi::Object::New(env);
    result["name"] = btf__name_by_offset(types, member.name_off);
    result["type"] = member.type;
    result["bitOffset"] = btf_member_bit_offset(type, i);
    result["bitSize"] = btf_member_bitfield_size(type, i);
    members[i] = result;
  }
  return members;
}

Napi::Object Value32(Napi::Env env, const btf *types, const btf_type *type, uint32_t index) {
  const struct btf_enum &value = btf_enum(type)[index];
  auto result = Napi::Object::New(env);
  result["name"] = btf__name_by_offset(types, value.name_off);
  // Without the flag it is unsigned; clang before 15 never sets it.
  if (btf_kflag(type))
    result["value"] = Napi::Number::New(env, value.val);
  else
    result["value"] = Napi::Number::New(env, static_cast<uint32_t>(value.val));
  return result;
}

Napi::Object Value64(Napi::Env env, const btf *types, const btf_type *type, uint32_t index) {
  const struct btf_enum64 &value = btf_enum64(type)[index];
  uint64_t number = btf_enum64_value(&value);
  auto result = Napi::Object::New(env);
  result["name"] = btf__name_by_offset(types, value.name_off);
  if (btf_kflag(type))
    result["value"] = Napi::BigInt::New(env, static_cast<int64_t>(number));
  else
    result["value"] = Napi::BigInt::New(env, number);
  return result;
}

Napi::Array Values(Napi::Env env, const btf *types, const btf_type *type) {
  uint32_t count = btf_vlen(type);
  auto values = Napi::Array::New(env, count);
  for (uint32_t i = 0; i < count; i++)
    values[i] = btf_is_enum64(type) ? Value64(env, types, type, i) : Value32(env, types, type, i);
  return values;
}

bool RefersToType(const btf_type *type) {
  return btf_is_ptr(type) || btf_is_mod(type) || btf_is_typedef(type) || btf_is_type_tag(type) ||
         btf_is_func(type) || btf_is_func_proto(type) || btf_is_var(type) || btf_is_decl_tag(type);
}

Napi::Object ToObject(Napi::Env env, const btf *types, uint32_t id) {
  const btf_type *type = btf__type_by_id(types, id);
  auto result = Napi::Object::New(env);
  uint16_t kind = btf_kind(type);
  result["kind"] = kind < kKinds.size() ? kKinds[kind] : "unknown";
  const char *name = btf__name_by_offset(types, type->name_off);
  result["name"] = name ? name : "";
  int64_t size = id == 0 ? 0 : btf__resolve_size(types, id);
  result["size"] = Napi::Number::New(env, size < 0 ? 0 : static_cast<double>(size));
  if (btf_is_composite(type))
    result["members"] = Members(env, types, type);
  if (btf_is_any_enum(type)) {
    result["values"] = Values(env, types, type);
    result["signed"] = static_cast<bool>(btf_kflag(type));
  }
  if (btf_is_int(type))
    result["signed"] = (btf_int_encoding(type) & BTF_INT_SIGNED) != 0;
  if (btf_is_array(type)) {
    result["elementType"] = btf_array(type)->type;
    result["length"] = btf_array(type)->nelems;
  }
  if (RefersToType(type))
    result["type"] = type->type;
  return result;
}

} // namespace

Napi::Value BtfTypes(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "btfTypes");
  std::string file = ExpectString(info[0], "file");
  std::unique_ptr<btf, FreeBtf> types(btf__parse(file.c_str(), nullptr));
  if (!types)
    operation.Fail(errno, file);
  uint32_t count = btf__type_cnt(types.get());
  auto result = Napi::Array::New(info.Env(), count);
  for (uint32_t id = 0; id < count; id++) {
    Napi::HandleScope scope(info.Env());
    result[id] = ToObject(info.Env(), types.get(), id);
  }
  return result;
}

} // namespace addon
