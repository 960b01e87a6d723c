#include "qdisc.h"

#include "fd.h"

#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace addon {

namespace {

/// rtnetlink(7): a dump's messages never exceed this.
constexpr size_t kMessageBytes = 32 * 1024;

struct Request {
  nlmsghdr header;
  tcmsg body;
};

int Send(int socket) {
  Request request = {};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = RTM_GETQDISC;
  // A dump: older kernels answer a question for one qdisc to listeners only.
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  return send(socket, &request, sizeof(request), 0) < 0 ? -errno : 0;
}

std::string ReadKind(const nlmsghdr *message) {
  const auto *body = static_cast<const tcmsg *>(NLMSG_DATA(message));
  auto left = static_cast<int>(NLMSG_PAYLOAD(message, sizeof(tcmsg)));
  for (const rtattr *attribute = TCA_RTA(body); RTA_OK(attribute, left);
       attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type != TCA_KIND)
      continue;
    const char *text = static_cast<const char *>(RTA_DATA(attribute));
    return std::string(text, strnlen(text, RTA_PAYLOAD(attribute)));
  }
  return "";
}

bool IsIngress(const nlmsghdr *message, uint32_t ifindex) {
  const auto *body = static_cast<const tcmsg *>(NLMSG_DATA(message));
  return message->nlmsg_type == RTM_NEWQDISC && body->tcm_ifindex == static_cast<int>(ifindex) &&
         body->tcm_parent == TC_H_INGRESS;
}

} // namespace

int ReadIngressQdisc(uint32_t ifindex, std::string &kind) {
  Fd netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!netlink.IsOpen())
    return -errno;
  if (int error = Send(netlink.Get()))
    return error;
  kind.clear();
  alignas(nlmsghdr) std::array<char, kMessageBytes> buffer;
  for (;;) {
    ssize_t length = recv(netlink.Get(), buffer.data(), buffer.size(), 0);
    if (length < 0 && errno == EINTR)
      continue;
    if (length < 0)
      return -errno;
    auto left = static_cast<unsigned int>(length);
    for (auto *message = reinterpret_cast<const nlmsghdr *>(buffer.data()); NLMSG_OK(message, left);
         message = NLMSG_NEXT(message, left)) {
      if (message->nlmsg_type == NLMSG_DONE)
        return 0;
      if (message->nlmsg_type == NLMSG_ERROR)
        return static_cast<const nlmsgerr *>(NLMSG_DATA(message))->error;
      if (IsIngress(message, ifindex))
        kind = ReadKind(message);
    }
  }
}

} // namespace addon
