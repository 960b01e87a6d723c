#include "arguments.h"

#include <cmath>

namespace addon {

namespace {

/// A value as an error message shows it.
std::string Show(Napi::Value value) {
  if (value.IsString())
    return '\'' + value.As<Napi::String>().Utf8Value() + '\'';
  if (value.IsNumber() || value.IsBoolean() || value.IsNull() || value.IsUndefined())
    return value.ToString().Utf8Value();
  return value.IsBigInt() ? "a bigint" : "an object";
}

[[noreturn]] void Refuse(Napi::Value value, const std::string &name, const std::string &wanted) {
  throw Napi::TypeError::New(value.Env(), name + " must be " + wanted + ", not " + Show(value));
}

} // namespace

Bytes ExpectBytes(Napi::Value value, const char *name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    Refuse(value, name, "a Uint8Array");
  auto array = value.As<Napi::Uint8Array>();
  return Bytes(array.Data(), array.ByteLength());
}

Bytes ExpectBytes(Napi::Value value, const char *name, size_t length) {
  Bytes bytes = ExpectBytes(value, name);
  if (bytes.size() != length) {
    throw Napi::TypeError::New(value.Env(), std::string(name) + " must have " +
                                                std::to_string(length) + " bytes, not " +
                                                std::to_string(bytes.size()));
  }
  return bytes;
}

std::string ExpectString(Napi::Value value, const char *name) {
  if (!value.IsString())
    Refuse(value, name, "a string");
  std::string text = value.As<Napi::String>().Utf8Value();
  // libbpf would silently take what comes before it.
  if (text.find('\0') != std::string::npos)
    throw Napi::TypeError::New(value.Env(), std::string(name) + " must not contain a NUL byte");
  return text;
}

uint32_t ExpectNumber(Napi::Value value, const char *name, uint32_t min, uint32_t max) {
  double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number >= min && number <= max) || number != std::floor(number))
    Refuse(value, name, "an integer from " + std::to_string(min) + " to " + std::to_string(max));
  return static_cast<uint32_t>(number);
}

bool ExpectIngress(Napi::Value value) {
  std::string direction = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (direction != "ingress" && direction != "egress")
    Refuse(value, "direction", "'ingress' or 'egress'");
  return direction == "ingress";
}

Napi::Buffer<uint8_t> ToBuffer(Napi::Env env, Bytes bytes) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes.data(), bytes.size());
}

} // namespace addon
