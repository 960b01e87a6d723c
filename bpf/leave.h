/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Towards the next hop: the kernel's own routes and neighbours, and only out of mesh ports. */
#ifndef LSR_LEAVE_H
#define LSR_LEAVE_H

#include "port.h"

#ifndef AF_INET
#define AF_INET 2
#endif

struct lsr_exit {
	const struct lsr_interface *interface;
	__u32 index;      /* ifindex */
	__be32 neighbour; /* the gateway, or the next hop itself where it is on-link */
};

/*
 * Finds the way to `next`. `length` is what the packet will measure in bytes of IPv4, 0 for a GSO
 * packet: its segments are checked where they are sized. `output` is set for a local socket's
 * packet, which leaves even where the host does not forward.
 */
static __always_inline enum lsr_reason find_exit(struct __sk_buff *skb,
						 const struct lsr_packet *packet, __be32 next,
						 __u32 length, bool strict, bool output,
						 struct lsr_exit *way)
{
	struct bpf_fib_lookup fib;
	long found;

	if (length > 0xffff)
		return LSR_DROP_TOO_BIG;
	__builtin_memset(&fib, 0, sizeof(fib)); /* the padding too: the kernel reads all of it */
	fib.family = AF_INET;
	fib.l4_protocol = packet->protocol;
	fib.tot_len = length;
	fib.ifindex = skb->ifindex;
	fib.tos = packet->dscp << 2;
	fib.ipv4_src = packet->source;
	fib.ipv4_dst = next;
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), output ? BPF_FIB_LOOKUP_OUTPUT : 0);
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return LSR_DROP_TOO_BIG;
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return LSR_DROP_NO_ROUTE;
	if (strict && fib.ipv4_dst != next) /* RFC 791 §3.1: directly connected networks only */
		return LSR_DROP_NOT_ADJACENT;

	way->index = fib.ifindex;
	way->neighbour = fib.ipv4_dst;
	way->interface = bpf_map_lookup_elem(&interfaces, &way->index);
	if (!way->interface || way->interface->role != LSR_ROLE_MESH)
		return LSR_DROP_NOT_MESH;
	if (length > way->interface->mtu)
		return LSR_DROP_TOO_BIG;
	return 0;
}

static __always_inline void leave(struct __sk_buff *skb, const struct lsr_exit *way)
{
	struct bpf_redir_neigh neighbour;

	__builtin_memset(&neighbour, 0, sizeof(neighbour));
	neighbour.nh_family = AF_INET;
	neighbour.ipv4_nh = way->neighbour;
	skb->tc_index = LSR_OWN_MARK; /* the redirected packet passes the egress hook again */
	bpf_redirect_neigh(way->index, &neighbour, sizeof(neighbour), 0);
}

#endif
