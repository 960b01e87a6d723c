#pragma once

#include <napi.h>

namespace addon {

/// Puts a program on an interface's clsact qdisc, in place of the one with that handle and
/// priority.
Napi::Value AttachFilter(const Napi::CallbackInfo &info);

Napi::Value QueryFilter(const Napi::CallbackInfo &info);

Napi::Value DetachFilter(const Napi::CallbackInfo &info);

} // namespace addon
