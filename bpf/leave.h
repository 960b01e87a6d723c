/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Towards the next hop: the kernel's own routes and neighbours, and only out of mesh ports. */
#ifndef LSR_LEAVE_H
#define LSR_LEAVE_H

#include "draft.h"

#ifndef AF_INET
#define AF_INET 2
#endif

enum {
	LSR_LOOPBACK = 1, /* ifindex; LOOPBACK_IFINDEX, include/net/flow.h */
};

/* Why a packet is answered, RFC 792. */
enum {
	LSR_ICMP_UNREACHABLE = 3,
	LSR_ICMP_SOURCE_QUENCH = 4,
	LSR_ICMP_REDIRECT = 5,
	LSR_ICMP_TIME_EXCEEDED = 11,
	LSR_ICMP_PARAMETER_PROBLEM = 12,
	LSR_ICMP_NET_UNREACHABLE = 0, /* codes of LSR_ICMP_UNREACHABLE */
	LSR_ICMP_TOO_BIG = 4,
	LSR_ICMP_ROUTE_FAILED = 5,
};

struct lsr_exit {
	const struct lsr_interface *interface;
	const __u8 *mac;  /* of the neighbour, where it is not pending */
	__u32 index;      /* ifindex */
	__be32 neighbour; /* the gateway, or the next hop itself where it is on-link */
	__u32 mtu;        /* bytes; of the interface or, where smaller, of the route */
	__u32 pending;    /* the neighbour's MAC address is not known yet */
};

/* Drops for this reason, and has finish() tell the sender where that is allowed. */
static __always_inline enum lsr_reason refuse(struct lsr_packet *packet, enum lsr_reason reason,
					      __u8 type, __u8 code)
{
	packet->type = type;
	packet->code = code;
	return reason;
}

/* A packet that would be too long: what its sender may send, at most, in bytes of IPv4. */
static __always_inline enum lsr_reason refuse_size(struct lsr_packet *packet,
						   enum lsr_reason reason, __u32 mtu)
{
	packet->mtu = mtu < 0xffff ? mtu : 0xffff;
	return refuse(packet, reason, LSR_ICMP_UNREACHABLE, LSR_ICMP_TOO_BIG);
}

/* Where a route that answers this question would be remembered. */
static __always_inline struct lsr_recent_route *find_recent(
	const struct lsr_route_question *question)
{
	__u64 sum = (__u64)question->source << 32 | question->destination;
	__u32 slot;

	sum += question->input + (__u64)question->dscp * 0x10001;
	slot = sum * 0x9e3779b97f4a7c15ULL >> 56; /* Fibonacci hashing; LSR_RECENT_MAX is 2^8 */
	return bpf_map_lookup_elem(&recent, &slot);
}

static __always_inline bool is_same(const struct lsr_route_question *one,
				    const struct lsr_route_question *other)
{
	return one->source == other->source && one->destination == other->destination &&
	       one->input == other->input && one->dscp == other->dscp &&
	       one->protocol == other->protocol;
}

/* The route to an address, as the kernel has it; BPF_FIB_LKUP_RET_…. */
static __always_inline long ask_kernel(struct __sk_buff *skb, const struct lsr_packet *packet,
				       const struct lsr_route_question *question,
				       struct bpf_fib_lookup *fib)
{
	long found;

	__builtin_memset(fib, 0, sizeof(*fib)); /* the padding too: the kernel reads all of it */
	fib->family = AF_INET;
	fib->l4_protocol = question->protocol;
	fib->tot_len = 1; /* fits any route, and asks for its MTU: mtu_result */
	fib->ifindex = question->input;
	fib->tos = question->dscp << 2;
	fib->ipv4_src = question->source;
	fib->ipv4_dst = question->destination;
	found = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	if (found != BPF_FIB_LKUP_RET_FWD_DISABLED || packet->stage != LSR_LOCAL)
		return found;
	fib->ifindex = skb->ifindex; /* a host that does not forward still sends */
	return bpf_fib_lookup(skb, fib, sizeof(*fib), BPF_FIB_LOOKUP_OUTPUT);
}

/*
 * Where the kernel would send a packet to an address; false where nowhere. A route is asked for once in some
 * milliseconds, not for each packet: that is as late as a change of routes may be noticed. One whose neighbour is not
 * known yet is asked for each time.
 */
static __always_inline bool find_route(struct __sk_buff *skb, const struct lsr_packet *packet,
				       __be32 from, __be32 to, struct lsr_exit *way)
{
	struct lsr_route_question question = {
		.source = from,
		.destination = to,
		.input = packet->input,
		.dscp = packet->dscp,
		.protocol = packet->protocol,
	};
	struct lsr_recent_route *route = find_recent(&question);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct bpf_fib_lookup fib;
	long found;

	if (!route)
		return false;
	way->pending = false;
	if (now >= route->until || !is_same(&route->question, &question)) {
		found = ask_kernel(skb, packet, &question, &fib);
		if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
			return false;
		way->pending = found == BPF_FIB_LKUP_RET_NO_NEIGH;
		route->question = question;
		route->until = way->pending ? 0 : now + LSR_RECENT_NS;
		route->output = fib.ifindex;
		route->neighbour = fib.ipv4_dst;
		route->mtu = way->pending ? ~0U : fib.mtu_result; /* not told then */
		__builtin_memcpy(route->mac, fib.dmac, sizeof(route->mac));
	}
	way->mac = route->mac;
	way->index = route->output;
	way->neighbour = route->neighbour;
	way->mtu = route->mtu;
	return true;
}

/* Finds the way to the next hop. */
static __always_inline enum lsr_reason find_exit(struct __sk_buff *skb, struct lsr_packet *packet,
						 __be32 next, bool strict, struct lsr_exit *way)
{
	if (!find_route(skb, packet, packet->source, next, way))
		return refuse(packet, LSR_DROP_NO_ROUTE, LSR_ICMP_UNREACHABLE,
			      LSR_ICMP_NET_UNREACHABLE);
	if (strict && way->neighbour != next) /* RFC 791 §3.1: directly connected networks only */
		return refuse(packet, LSR_DROP_NOT_ADJACENT, LSR_ICMP_UNREACHABLE,
			      LSR_ICMP_ROUTE_FAILED);
	way->interface = find_interface(way->index);
	if (!way->interface || way->interface->role != LSR_ROLE_MESH)
		return LSR_DROP_NOT_MESH;
	if (way->interface->mtu < way->mtu)
		way->mtu = way->interface->mtu;
	return 0;
}

/* Whether the stack would send this packet, as it is, out of a managed port. */
LSR_STEP int passes_port(struct __sk_buff *skb, const struct lsr_packet *packet)
{
	struct lsr_exit way;

	return packet && find_route(skb, packet, packet->source, packet->destination, &way) &&
	       find_interface(way.index) != NULL;
}

/*
 * A packet that waits for a neighbour is looked up again by its route when the neighbour answers
 * (net/core/neighbour.c, neigh_update): by that of the plain packet, if the stack has sent it. So
 * the kernel is to give it a route of its own then: the one that find_route() found, which looks at
 * no mark; policy routing by one may lead elsewhere.
 */
static __always_inline void send_on(struct __sk_buff *skb, const struct lsr_packet *packet,
				    const struct lsr_exit *way)
{
	struct bpf_redir_neigh neighbour;

	skb->tc_index = LSR_OWN_MARK; /* the redirected packet passes the egress hook again */
	if (way->pending && packet->stage != LSR_ARRIVED) {
		skb->mark = 0;
		bpf_redirect_neigh(way->index, NULL, 0, 0);
		return;
	}
	__builtin_memset(&neighbour, 0, sizeof(neighbour));
	neighbour.nh_family = AF_INET;
	neighbour.ipv4_nh = way->neighbour;
	bpf_redirect_neigh(way->index, &neighbour, sizeof(neighbour), 0);
}

/*
 * Sends a plain packet on to where its route leads behind an edge port, as the stack would have, but past its
 * netfilter. What needs more than that stays for the stack: an answer, fragments, a neighbour that is not known.
 */
LSR_STEP int deliver(struct __sk_buff *skb, struct lsr_packet *packet)
{
	struct bpf_redir_neigh neighbour = {.nh_family = AF_INET};
	const struct lsr_interface *port;
	struct lsr_draft *begun;
	struct lsr_exit way;

	if (!packet || packet->ttl <= 1 ||
	    !find_route(skb, packet, packet->source, packet->destination, &way) || way.pending ||
	    measure(skb, packet) > way.mtu)
		return 0;
	port = find_interface(way.index);
	if (!port || port->role != LSR_ROLE_EDGE)
		return 0;
	begun = begin_draft(skb, packet->header);
	if (!begun)
		return LSR_DROP_SHORT;
	put_byte(begun, LSR_TTL_AT, packet->ttl - 1);
	if (send_draft(skb, begun, packet->header))
		return LSR_DROP_RESIZE;
	skb->tc_index = LSR_ENDED_MARK;
	neighbour.ipv4_nh = way.neighbour;
	bpf_redirect_neigh(way.index, &neighbour, sizeof(neighbour), 0);
	packet->stage = LSR_DELIVERED;
	return 0;
}

static __always_inline void leave(struct __sk_buff *skb, struct lsr_packet *packet,
				  const struct lsr_exit *way)
{
	if (way->pending) /* the kernel queues it, and drops it if nobody answers */
		note(packet, LSR_NOTE_NEIGHBOUR_PENDING);
	send_on(skb, packet, way);
}

#endif
