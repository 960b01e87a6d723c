#pragma once

#include <napi.h>

#include <cstdint>
#include <limits>
#include <span>
#include <string>

namespace addon {

using Bytes = std::span<const uint8_t>;

/// The bytes of a Uint8Array, valid until JavaScript runs again.
Bytes ExpectBytes(Napi::Value value, const char *name);

/// The same, of that length.
Bytes ExpectBytes(Napi::Value value, const char *name, size_t length);

std::string ExpectString(Napi::Value value, const char *name);

/// An integer from `min` to `max`.
uint32_t ExpectNumber(Napi::Value value, const char *name, uint32_t min = 0,
                      uint32_t max = std::numeric_limits<uint32_t>::max());

/// 'ingress' gives true, 'egress' false.
bool ExpectIngress(Napi::Value value);

Napi::Buffer<uint8_t> ToBuffer(Napi::Env env, Bytes bytes);

} // namespace addon
