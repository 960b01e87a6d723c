#include "entries.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <unordered_set>

namespace addon {

namespace {

constexpr int kNotSupported = 524; // the kernel's ENOTSUPP
constexpr size_t kBatchBytes = 1 << 20;
constexpr size_t kBatchEntries = 4096;
/// A hash map's cursor is a u32, that of others a key.
constexpr size_t kCursorBytes = sizeof(uint32_t);
/// The kernel's way to say that an entry vanished between finding its key and reading it.
constexpr int kRetries = 1000;

bool LacksBatch(int error) {
  return error == -kNotSupported || error == -EOPNOTSUPP;
}

/// Walks that find their way by the last key start again when that key is removed meanwhile.
bool MayRestart(uint32_t type) {
  return type != BPF_MAP_TYPE_ARRAY && type != BPF_MAP_TYPE_PERCPU_ARRAY;
}

bool IsHash(uint32_t type) {
  return type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_LRU_HASH ||
         type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

/// Collects entries; where a walk may restart, each key once.
class Collector {
public:
  Collector(const MapShape &map, bool once, Entries &entries)
      : map_(map), once_(once), entries_(entries) {}

  void Add(const uint8_t *key, const uint8_t *value) {
    if (once_ && !seen_.emplace(reinterpret_cast<const char *>(key), map_.key_bytes).second) {
      repeated_++;
      return;
    }
    entries_.keys.insert(entries_.keys.end(), key, key + map_.key_bytes);
    entries_.values.insert(entries_.values.end(), value, value + map_.value_bytes);
    entries_.count++;
  }

  /// True when a map changes faster than it can be walked.
  bool IsLost() const { return repeated_ > 8 * static_cast<size_t>(map_.max_entries) + 1024; }

private:
  const MapShape &map_;
  bool once_;
  Entries &entries_;
  std::unordered_set<std::string> seen_;
  size_t repeated_ = 0;
};

uint32_t FirstBatch(const MapShape &map) {
  size_t fitting = kBatchBytes / std::max<size_t>(map.key_bytes + map.value_bytes, 1);
  return static_cast<uint32_t>(
      std::clamp<size_t>(fitting, 16, std::min<size_t>(kBatchEntries, map.max_entries + 16)));
}

int ReadInBatches(const MapShape &map, uint32_t capacity, Entries &entries) {
  Collector collector(map, MayRestart(map.type) && !IsHash(map.type), entries);
  std::vector<uint8_t> keys, values;
  std::vector<uint8_t> cursor(std::max<size_t>(map.key_bytes, kCursorBytes));
  bool started = false;
  for (int retries = 0;;) {
    keys.resize(static_cast<size_t>(capacity) * map.key_bytes);
    values.resize(static_cast<size_t>(capacity) * map.value_bytes);
    std::vector<uint8_t> next(cursor.size());
    uint32_t count = capacity;
    int error = bpf_map_lookup_batch(map.fd, started ? cursor.data() : nullptr, next.data(),
                                     keys.data(), values.data(), &count, nullptr);
    // One bucket of a hash map holds more than there was room for. Nothing was read.
    if (error == -ENOSPC) {
      if (capacity > 2 * static_cast<uint64_t>(map.max_entries) + 64)
        return error;
      capacity *= 2;
      continue;
    }
    if (error && error != -ENOENT && error != -EINTR)
      return error;
    for (uint32_t i = 0; i < count; i++)
      collector.Add(&keys[i * map.key_bytes], values.data() + i * map.value_bytes);
    if (error == -ENOENT)
      return 0;
    if (collector.IsLost() || (error == -EINTR && ++retries > kRetries))
      return -EAGAIN;
    if (count > 0) {
      cursor = next;
      started = true;
    }
  }
}

int ReadSingly(const MapShape &map, Entries &entries) {
  Collector collector(map, MayRestart(map.type), entries);
  std::vector<uint8_t> key(map.key_bytes), next(map.key_bytes), value(map.value_bytes);
  const uint8_t *previous = nullptr;
  for (;;) {
    int error = bpf_map_get_next_key(map.fd, previous, next.data());
    if (error)
      return error == -ENOENT ? 0 : error;
    key = next;
    previous = key.data();
    error = bpf_map_lookup_elem(map.fd, key.data(), value.data());
    if (error == -ENOENT)
      continue;
    if (error)
      return error;
    collector.Add(key.data(), value.data());
    if (collector.IsLost())
      return -EAGAIN;
  }
}

Written PutSingly(const MapShape &map, const uint8_t *keys, const uint8_t *values, size_t count) {
  for (size_t i = 0; i < count; i++) {
    int error = bpf_map_update_elem(map.fd, keys + i * map.key_bytes, values + i * map.value_bytes,
                                    BPF_ANY);
    if (error)
      return {error, i};
  }
  return {0, count};
}

Written DeleteSingly(const MapShape &map, const uint8_t *keys, size_t count) {
  size_t removed = 0;
  for (size_t i = 0; i < count; i++) {
    int error = bpf_map_delete_elem(map.fd, keys + i * map.key_bytes);
    if (error && error != -ENOENT)
      return {error, removed};
    removed += error == 0;
  }
  return {0, removed};
}

/// What a failed batch call did; the kernel leaves the count as it was when it did not begin.
uint32_t DoneOf(uint32_t count, uint32_t asked) {
  return count >= asked ? 0 : count;
}

} // namespace

int ReadEntries(const MapShape &map, uint32_t batch, Entries &entries) {
  int error = ReadInBatches(map, batch ? batch : FirstBatch(map), entries);
  return LacksBatch(error) ? ReadSingly(map, entries) : error;
}

int ReadSomeEntries(const MapShape &map, uint32_t count, Entries &entries) {
  for (uint64_t capacity = count; capacity <= 2 * static_cast<uint64_t>(map.max_entries) + count;
       capacity *= 2) {
    entries.keys.resize(capacity * map.key_bytes);
    entries.values.resize(capacity * map.value_bytes);
    uint32_t cursor = 0;
    auto found = static_cast<uint32_t>(capacity);
    int error = bpf_map_lookup_batch(map.fd, nullptr, &cursor, entries.keys.data(),
                                     entries.values.data(), &found, nullptr);
    if (error == -ENOSPC) // as in ReadInBatches
      continue;
    if (error && error != -ENOENT)
      return error;
    entries.count = found;
    entries.keys.resize(static_cast<size_t>(found) * map.key_bytes);
    entries.values.resize(static_cast<size_t>(found) * map.value_bytes);
    return 0;
  }
  return -ENOSPC;
}

Written PutEntries(const MapShape &map, const uint8_t *keys, const uint8_t *values, size_t count) {
  for (size_t done = 0; done < count;) {
    auto asked = static_cast<uint32_t>(std::min<size_t>(count - done, 1 << 20));
    uint32_t written = asked;
    int error = bpf_map_update_batch(map.fd, keys + done * map.key_bytes,
                                     values + done * map.value_bytes, &written, nullptr);
    if (LacksBatch(error))
      return PutSingly(map, keys, values, count);
    if (error)
      return {error, done + DoneOf(written, asked)};
    done += asked;
  }
  return {0, count};
}

Written DeleteEntries(const MapShape &map, const uint8_t *keys, size_t count) {
  size_t removed = 0;
  for (size_t done = 0; done < count;) {
    auto asked = static_cast<uint32_t>(std::min<size_t>(count - done, 1 << 20));
    uint32_t gone = asked;
    int error = bpf_map_delete_batch(map.fd, keys + done * map.key_bytes, &gone, nullptr);
    if (LacksBatch(error))
      return DeleteSingly(map, keys, count);
    if (error)
      gone = DoneOf(gone, asked);
    removed += gone;
    if (error && error != -ENOENT)
      return {error, removed};
    // The call ends at a key that is not there: go on behind it.
    done += gone + (error ? 1 : 0);
  }
  return {0, removed};
}

} // namespace addon
