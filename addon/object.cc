#include "object.h"

#include "arguments.h"
#include "instance.h"
#include "map.h"
#include "program.h"

#include <bpf/bpf.h>

#include <array>
#include <cerrno>

namespace addon {

namespace {

/// The longest verifier log that every kernel takes. The pages are only there once written to.
constexpr size_t kLogBytes = (1 << 24) - 1;

std::string Difference(const char *what, uint32_t found, uint32_t wanted) {
  if (found == wanted)
    return "";
  return std::string(", ") + what + " is " + std::to_string(found) + " and must be " +
         std::to_string(wanted);
}

std::string Differences(const bpf_map_info &found, const bpf_map *wanted) {
  return Difference("type", found.type, bpf_map__type(wanted)) +
         Difference("keySize", found.key_size, bpf_map__key_size(wanted)) +
         Difference("valueSize", found.value_size, bpf_map__value_size(wanted)) +
         Difference("maxEntries", found.max_entries, bpf_map__max_entries(wanted)) +
         Difference("flags", found.map_flags, bpf_map__map_flags(wanted));
}

void Reuse(const Operation &operation, bpf_map *map, int fd, const std::string &subject) {
  bpf_map_info info = {};
  uint32_t length = sizeof(info);
  if (int error = bpf_obj_get_info_by_fd(fd, &info, &length))
    operation.Fail(-error, subject);
  if (std::string differences = Differences(info, map); !differences.empty())
    operation.Refuse(EINVAL, subject + ": the map there does not fit" + differences);
  if (int error = bpf_map__reuse_fd(map, fd))
    operation.Fail(-error, subject);
}

/// One buffer for all: libbpf loads in turn, ends at the first failure, and writes only then.
void SetLog(bpf_object *object, char *log, size_t size) {
  bpf_program *program = nullptr;
  while ((program = bpf_object__next_program(object, program)))
    bpf_program__set_log_buf(program, log, size);
}

/// What the verifier prints in the end: a line of figures, and one of its time and stack.
constexpr size_t kStatisticsBytes = 1 << 12;
constexpr __u32 kLogStatistics = 4; // BPF_LOG_STATS, include/linux/bpf_verifier.h

/// A buffer for each program, by its name.
std::map<std::string, std::array<char, kStatisticsBytes>> WantStatistics(bpf_object *object) {
  std::map<std::string, std::array<char, kStatisticsBytes>> buffers;
  bpf_program *program = nullptr;
  while ((program = bpf_object__next_program(object, program))) {
    std::array<char, kStatisticsBytes> &buffer = buffers[bpf_program__name(program)];
    buffer[0] = '\0';
    bpf_program__set_log_buf(program, buffer.data(), buffer.size());
    bpf_program__set_log_level(program, kLogStatistics);
  }
  return buffers;
}

} // namespace

Napi::Function BpfObject::Define(Napi::Env env) {
  return DefineClass(env, kName,
                     {InstanceMethod<&BpfObject::Maps>("maps"),
                      InstanceMethod<&BpfObject::SetMaxEntries>("setMaxEntries"),
                      InstanceMethod<&BpfObject::ReuseMap>("reuseMap"),
                      InstanceMethod<&BpfObject::ReusePinned>("reusePinned"),
                      InstanceMethod<&BpfObject::DisableProgram>("disableProgram"),
                      InstanceMethod<&BpfObject::Load>("load"),
                      InstanceMethod<&BpfObject::LoadMeasured>("loadMeasured"),
                      InstanceMethod<&BpfObject::Map>("map"),
                      InstanceMethod<&BpfObject::Program>("program"),
                      InstanceMethod<&BpfObject::Close>("close")});
}

Napi::Function BpfObject::Constructor(Napi::Env env) {
  return Instance::Of(env).object.Value();
}

Napi::Value BpfObject::Open(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "openObject");
  std::string file = ExpectString(info[0], "file");
  auto *object = Create<BpfObject>(info.Env());
  object->object_.reset(bpf_object__open_file(file.c_str(), nullptr));
  if (!object->object_)
    operation.Fail(errno, file);
  object->file_ = file;
  bpf_map *map = nullptr;
  while ((map = bpf_object__next_map(object->object_.get(), map)))
    object->maps_[bpf_map__name(map)] = map;
  return object->Value();
}

BpfObject::BpfObject(const Napi::CallbackInfo &info) : ObjectWrap(info) {
  Value().TypeTag(&kTag);
}

Napi::Value BpfObject::Maps(const Napi::CallbackInfo &info) {
  Use();
  auto result = Napi::Array::New(info.Env(), maps_.size());
  uint32_t index = 0;
  for (const auto &[name, map] : maps_) {
    auto described = Napi::Object::New(info.Env());
    described["name"] = name;
    described["type"] = static_cast<uint32_t>(bpf_map__type(map));
    described["keySize"] = bpf_map__key_size(map);
    described["valueSize"] = bpf_map__value_size(map);
    described["maxEntries"] = bpf_map__max_entries(map);
    result[index++] = described;
  }
  return result;
}

void BpfObject::SetMaxEntries(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "setMaxEntries");
  Configure();
  bpf_map *map = FindMap(info[0]);
  uint32_t count = ExpectNumber(info[1], "maxEntries", 1);
  if (int error = bpf_map__set_max_entries(map, count))
    operation.Fail(-error, bpf_map__name(map));
}

void BpfObject::ReuseMap(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "reuseMap");
  Configure();
  bpf_map *map = FindMap(info[0]);
  Reuse(operation, map, Expect<BpfMap>(info[1])->Use(), ExpectString(info[0], "name"));
}

void BpfObject::ReusePinned(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "reusePinned");
  Configure();
  bpf_map *map = FindMap(info[0]);
  std::string path = ExpectString(info[1], "path");
  Fd fd = OpenPinned(operation, path, Kind::kMap);
  Reuse(operation, map, fd.Get(), ExpectString(info[0], "name") + " from " + path);
}

void BpfObject::DisableProgram(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "disableProgram");
  Configure();
  bpf_program *program = FindProgram(info[0]);
  if (int error = bpf_program__set_autoload(program, false))
    operation.Fail(-error, bpf_program__name(program));
}

void BpfObject::Load(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "load");
  bpf_object *object = Configure();
  load_tried_ = true;
  std::unique_ptr<char[]> log(new char[kLogBytes]);
  log[0] = '\0';
  SetLog(object, log.get(), kLogBytes);
  int error = bpf_object__load(object);
  SetLog(object, nullptr, 0);
  if (!error)
    return;
  Napi::Error thrown = operation.Describe(-error, file_);
  thrown.Set("log", Napi::String::New(info.Env(), log.get()));
  throw thrown;
}

Napi::Value BpfObject::LoadMeasured(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "loadMeasured");
  bpf_object *object = Configure();
  load_tried_ = true;
  auto buffers = WantStatistics(object);
  int error = bpf_object__load(object);
  SetLog(object, nullptr, 0);
  if (error)
    throw operation.Describe(-error, file_);
  Napi::Object result = Napi::Object::New(info.Env());
  for (const auto &[name, buffer] : buffers)
    result[name] = buffer.data();
  return result;
}

Napi::Value BpfObject::Map(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "map");
  Use();
  int fd = bpf_map__fd(FindMap(info[0]));
  if (fd < 0) {
    operation.Refuse(EBADF,
                     ExpectString(info[0], "name") + ": it is not in the kernel; load() first");
  }
  return BpfMap::Wrap(operation, info.Env(), Duplicate(operation, fd));
}

Napi::Value BpfObject::Program(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "program");
  Use();
  int fd = bpf_program__fd(FindProgram(info[0]));
  if (fd < 0) {
    operation.Refuse(EBADF, ExpectString(info[0], "name") +
                                ": it is not in the kernel; load() first, and do not disable it");
  }
  return BpfProgram::Wrap(info.Env(), Duplicate(operation, fd));
}

void BpfObject::Close(const Napi::CallbackInfo &) {
  maps_.clear();
  object_.reset();
}

bpf_object *BpfObject::Use() const {
  if (!object_)
    throw Napi::Error::New(Env(), "the BpfObject " + file_ + " is closed");
  return object_.get();
}

bpf_object *BpfObject::Configure() const {
  bpf_object *object = Use();
  if (load_tried_)
    throw Napi::Error::New(Env(), "load() of " + file_ + " was called already: open it again");
  return object;
}

bpf_map *BpfObject::FindMap(Napi::Value value) const {
  std::string name = ExpectString(value, "name");
  auto found = maps_.find(name);
  if (found == maps_.end())
    throw Napi::Error::New(Env(), file_ + " has no map '" + name + "'");
  return found->second;
}

bpf_program *BpfObject::FindProgram(Napi::Value value) const {
  std::string name = ExpectString(value, "name");
  bpf_program *found = bpf_object__find_program_by_name(object_.get(), name.c_str());
  if (!found)
    throw Napi::Error::New(Env(), file_ + " has no program '" + name + "'");
  return found;
}

} // namespace addon
