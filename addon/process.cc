#include "process.h"

#include "errors.h"

#include <sys/prctl.h>

#include <cerrno>
#include <ctime>

namespace addon {

namespace {

constexpr int64_t kSecond = 1000000000;

int64_t Read(const Operation &operation, clockid_t clock) {
  timespec now = {};
  if (clock_gettime(clock, &now) != 0)
    operation.Fail(errno, "clock_gettime");
  return int64_t(now.tv_sec) * kSecond + now.tv_nsec;
}

} // namespace

Napi::Value TaiOffset(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "taiOffset");
  // The clocks are read one after the other; what lies between is far from a second.
  int64_t difference = Read(operation, CLOCK_TAI) - Read(operation, CLOCK_REALTIME);
  int64_t rounded = difference + (difference < 0 ? -kSecond / 2 : kSecond / 2);
  return Napi::Number::New(info.Env(), double(rounded / kSecond));
}

Napi::Value ForbidCoreDumps(const Napi::CallbackInfo &info) {
  Operation operation(info.Env(), "forbidCoreDumps");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
    operation.Fail(errno, "PR_SET_DUMPABLE");
  return info.Env().Undefined();
}

} // namespace addon
