#pragma once

#include <napi.h>

namespace addon {

/// What the kernel can do, found out by trying.
Napi::Value ProbeProgramType(const Napi::CallbackInfo &info);
Napi::Value ProbeMapType(const Napi::CallbackInfo &info);
Napi::Value ProbeHelper(const Napi::CallbackInfo &info);

Napi::Value PossibleCpus(const Napi::CallbackInfo &info);

} // namespace addon
