#include "map.h"

#include "arguments.h"
#include "instance.h"

#include <bpf/libbpf.h>

#include <cerrno>

namespace addon {

namespace {

bool IsPerCpu(uint32_t type) {
  return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
         type == BPF_MAP_TYPE_LRU_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

/// The kernel copies one value for each possible CPU, each on an 8-byte boundary.
size_t ValueBytes(const Operation &operation, const bpf_map_info &info) {
  if (!IsPerCpu(info.type))
    return info.value_size;
  int cpus = libbpf_num_possible_cpus();
  // A guess that is too small would let the kernel write behind our buffer.
  if (cpus < 0)
    operation.Fail(-cpus, "possible CPUs");
  return (info.value_size + 7) / 8 * 8 * static_cast<size_t>(cpus);
}

uint64_t ExpectMode(Napi::Value value) {
  if (value.IsUndefined())
    return BPF_ANY;
  std::string mode = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (mode == "any")
    return BPF_ANY;
  if (mode == "noexist")
    return BPF_NOEXIST;
  if (mode == "exist")
    return BPF_EXIST;
  throw Napi::TypeError::New(value.Env(), "mode must be 'any', 'noexist' or 'exist'");
}

std::string Progress(const bpf_map_info &info, size_t done, size_t count) {
  return std::string(info.name) + ", after " + std::to_string(done) + " of " +
         std::to_string(count) + " entries";
}

} // namespace

Napi::Function BpfMap::Define(Napi::Env env) {
  return DefineClass(
      env, kName,
      {InstanceAccessor<&BpfMap::GetInfo>("info"), InstanceMethod<&BpfMap::Get>("get"),
       InstanceMethod<&BpfMap::Put>("put"), InstanceMethod<&BpfMap::Delete>("delete"),
       InstanceMethod<&BpfMap::Take>("take"), InstanceMethod<&BpfMap::Entries>("entries"),
       InstanceMethod<&BpfMap::Some>("some"), InstanceMethod<&BpfMap::PutMap>("putMap"),
       InstanceMethod<&BpfMap::PutBatch>("putBatch"),
       InstanceMethod<&BpfMap::DeleteBatch>("deleteBatch"), InstanceMethod<&BpfMap::Pin>("pin"),
       InstanceMethod<&BpfMap::Close>("close")});
}

Napi::Function BpfMap::Constructor(Napi::Env env) {
  return Instance::Of(env).map.Value();
}

Napi::Value BpfMap::OpenPinned(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "openPinnedMap");
  std::string path = ExpectString(info[0], "path");
  return Wrap(operation, info.Env(), addon::OpenPinned(operation, path, Kind::kMap));
}

Napi::Value BpfMap::Wrap(const Operation &operation, Napi::Env env, Fd fd) {
  auto *map = Create<BpfMap>(env);
  uint32_t length = sizeof(map->info_);
  if (int error = bpf_obj_get_info_by_fd(fd.Get(), &map->info_, &length))
    operation.Fail(-error);
  map->value_.resize(ValueBytes(operation, map->info_));
  map->shape_ = {fd.Get(), map->info_.type, map->info_.key_size, map->value_.size(),
                 map->info_.max_entries};
  map->fd_ = std::move(fd);
  return map->Value();
}

BpfMap::BpfMap(const Napi::CallbackInfo &info) : ObjectWrap(info) {
  Value().TypeTag(&kTag);
}

int BpfMap::Use() const {
  if (!fd_.IsOpen())
    throw Napi::Error::New(Env(), std::string("the BpfMap ") + info_.name + " is closed");
  return fd_.Get();
}

Napi::Value BpfMap::GetInfo(const Napi::CallbackInfo &info) {
  Use();
  auto result = Napi::Object::New(info.Env());
  result["id"] = info_.id;
  result["name"] = info_.name;
  result["type"] = info_.type;
  result["keySize"] = info_.key_size;
  result["valueSize"] = info_.value_size;
  result["maxEntries"] = info_.max_entries;
  result["flags"] = info_.map_flags;
  return result;
}

Napi::Value BpfMap::Get(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "get");
  int fd = Use();
  int error = bpf_map_lookup_elem(fd, ExpectKey(info[0]), value_.data());
  if (error == -ENOENT)
    return info.Env().Null();
  if (error)
    operation.Fail(-error, info_.name);
  return ToBuffer(info.Env(), value_);
}

void BpfMap::Put(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "put");
  int fd = Use();
  uint64_t mode = ExpectMode(info[2]);
  const void *key = ExpectKey(info[0]);
  Bytes value = ExpectBytes(info[1], "value", value_.size());
  if (int error = bpf_map_update_elem(fd, key, value.data(), mode))
    operation.Fail(-error, info_.name);
}

Napi::Value BpfMap::Delete(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "delete");
  int fd = Use();
  int error = bpf_map_delete_elem(fd, ExpectKey(info[0]));
  if (error && error != -ENOENT)
    operation.Fail(-error, info_.name);
  return Napi::Boolean::New(info.Env(), error == 0);
}

Napi::Value BpfMap::Take(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "take");
  int fd = Use();
  int error = bpf_map_lookup_and_delete_elem(fd, ExpectKey(info[0]), value_.data());
  if (error == -ENOENT)
    return info.Env().Null();
  if (error)
    operation.Fail(-error, info_.name);
  return ToBuffer(info.Env(), value_);
}

Napi::Value BpfMap::Entries(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "entries");
  Use();
  if (info_.key_size == 0)
    operation.Refuse(EINVAL, std::string(info_.name) + ": this type of map has no keys");
  uint32_t batch = info[0].IsUndefined() ? 0 : ExpectNumber(info[0], "batch", 1, 1 << 20);
  addon::Entries entries;
  if (int error = ReadEntries(shape_, batch, entries))
    operation.Fail(-error, info_.name);
  return Describe(entries);
}

Napi::Value BpfMap::Some(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "some");
  Use();
  if (info_.type != BPF_MAP_TYPE_HASH)
    operation.Refuse(EINVAL, std::string(info_.name) + ": only a hash map can be read in parts");
  uint32_t count = ExpectNumber(info[0], "count", 1, 1 << 20);
  addon::Entries entries;
  if (int error = ReadSomeEntries(shape_, count, entries))
    operation.Fail(-error, info_.name);
  return Describe(entries);
}

void BpfMap::PutMap(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "putMap");
  int fd = Use();
  const void *key = ExpectKey(info[0]);
  int inner = Expect<BpfMap>(info[1])->Use();
  if (int error = bpf_map_update_elem(fd, key, &inner, BPF_ANY))
    operation.Fail(-error, info_.name);
}

void BpfMap::PutBatch(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "putBatch");
  Use();
  size_t count = CountKeys(info[0]);
  Bytes keys = ExpectBytes(info[0], "keys");
  Bytes values = ExpectBytes(info[1], "values", count * value_.size());
  Written written = PutEntries(shape_, keys.data(), values.data(), count);
  if (written.error)
    operation.Fail(-written.error, Progress(info_, written.count, count));
}

Napi::Value BpfMap::DeleteBatch(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "deleteBatch");
  Use();
  size_t count = CountKeys(info[0]);
  Bytes keys = ExpectBytes(info[0], "keys");
  Written written = DeleteEntries(shape_, keys.data(), count);
  if (written.error)
    operation.Fail(-written.error, Progress(info_, written.count, count));
  return Napi::Number::New(info.Env(), static_cast<double>(written.count));
}

void BpfMap::Pin(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "pin");
  addon::Pin(operation, Use(), ExpectString(info[0], "path"));
}

void BpfMap::Close(const Napi::CallbackInfo &) {
  fd_.Reset();
}

Napi::Value BpfMap::Describe(const addon::Entries &entries) {
  auto result = Napi::Object::New(Env());
  result["keys"] = ToBuffer(Env(), entries.keys);
  result["values"] = ToBuffer(Env(), entries.values);
  result["count"] = Napi::Number::New(Env(), static_cast<double>(entries.count));
  return result;
}

const void *BpfMap::ExpectKey(Napi::Value value) const {
  Bytes key = ExpectBytes(value, "key", info_.key_size);
  return key.empty() ? nullptr : key.data();
}

size_t BpfMap::CountKeys(Napi::Value value) const {
  size_t length = ExpectBytes(value, "keys").size();
  if (info_.key_size == 0 || length % info_.key_size != 0) {
    throw Napi::TypeError::New(Env(), "keys must have a multiple of " +
                                          std::to_string(info_.key_size) + " bytes, not " +
                                          std::to_string(length));
  }
  return length / info_.key_size;
}

} // namespace addon
