#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace addon {

/// What a call on many entries of a map must know of it.
struct MapShape {
  int fd;
  uint32_t type;
  uint32_t key_bytes;
  /// Of one value as user space sees it: of all CPUs, for a per-CPU map.
  size_t value_bytes;
  uint32_t max_entries;
};

struct Entries {
  std::vector<uint8_t> keys;
  std::vector<uint8_t> values;
  size_t count = 0;
};

struct Written {
  /// 0 or a negative errno.
  int error;
  /// Entries that were written or removed before it.
  size_t count;
};

/// Reads a whole map, `batch` entries a call where the kernel can (0: a size that fits).
/// Entries that come or go meanwhile may be missing; no key is given twice. 0 or a negative errno.
int ReadEntries(const MapShape &map, uint32_t batch, Entries &entries);

/// Up to `count` entries of a hash map, whichever come first; more where one bucket holds more.
int ReadSomeEntries(const MapShape &map, uint32_t count, Entries &entries);

Written PutEntries(const MapShape &map, const uint8_t *keys, const uint8_t *values, size_t count);

/// Keys that are not there are skipped and not counted.
Written DeleteEntries(const MapShape &map, const uint8_t *keys, size_t count);

} // namespace addon
