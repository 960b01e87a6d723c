#pragma once

#include <napi.h>

namespace addon {

/// CLOCK_TAI minus CLOCK_REALTIME, whole seconds.
Napi::Value TaiOffset(const Napi::CallbackInfo &info);

/// What this process holds never gets into a core dump, nor to another process of its user.
Napi::Value ForbidCoreDumps(const Napi::CallbackInfo &info);

} // namespace addon
