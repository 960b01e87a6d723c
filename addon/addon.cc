#include "btf.h"
#include "errors.h"
#include "filter.h"
#include "instance.h"
#include "link.h"
#include "link_watch.h"
#include "map.h"
#include "object.h"
#include "probe.h"
#include "process.h"
#include "program.h"
#include "ring_buffer.h"

#include <napi.h>

namespace addon {

namespace {

template <Napi::Value (*function)(const Napi::CallbackInfo &)>
void Export(Napi::Object exports, const char *name) {
  exports.Set(name, Napi::Function::New<function>(exports.Env(), name));
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  CaptureWarnings();
  auto *instance = new Instance;
  env.SetInstanceData(instance);
  instance->object = Napi::Persistent(BpfObject::Define(env));
  instance->map = Napi::Persistent(BpfMap::Define(env));
  instance->program = Napi::Persistent(BpfProgram::Define(env));
  instance->link = Napi::Persistent(BpfLink::Define(env));
  instance->ring_buffer = Napi::Persistent(RingBuffer::Define(env));
  instance->link_watch = Napi::Persistent(LinkWatch::Define(env));

  Export<BpfObject::Open>(exports, "openObject");
  Export<BpfMap::OpenPinned>(exports, "openPinnedMap");
  Export<BpfProgram::OpenPinned>(exports, "openPinnedProgram");
  Export<BpfLink::OpenPinned>(exports, "openPinnedLink");
  Export<BpfLink::AttachTcx>(exports, "attachTcx");
  Export<BpfLink::QueryTcx>(exports, "queryTcx");
  Export<AttachFilter>(exports, "attachFilter");
  Export<QueryFilter>(exports, "queryFilter");
  Export<DetachFilter>(exports, "detachFilter");
  Export<RingBuffer::Open>(exports, "openRingBuffer");
  Export<LinkWatch::Open>(exports, "watchLinks");
  Export<BtfTypes>(exports, "btfTypes");
  Export<ProbeProgramType>(exports, "probeProgramType");
  Export<ProbeMapType>(exports, "probeMapType");
  Export<ProbeHelper>(exports, "probeHelper");
  Export<PossibleCpus>(exports, "possibleCpus");
  Export<TaiOffset>(exports, "taiOffset");
  Export<ForbidCoreDumps>(exports, "forbidCoreDumps");
  return exports;
}

NODE_API_MODULE(NODE_GYP_MODULE_NAME, Init)

} // namespace

} // namespace addon
