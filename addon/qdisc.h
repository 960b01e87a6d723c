#pragma once

#include <cstdint>
#include <string>

namespace addon {

/// The kind of qdisc in the place that clsact shares with `ingress`: one of the two, or empty.
/// 0 or a negative errno.
int ReadIngressQdisc(uint32_t ifindex, std::string &kind);

} // namespace addon
