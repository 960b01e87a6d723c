#pragma once

#include <napi.h>

namespace addon {

/// The type table of an object file, by type id; id 0 is void.
Napi::Value BtfTypes(const Napi::CallbackInfo &info);

} // namespace addon
