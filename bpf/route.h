/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The source route of a packet as a key of the table of predicted headers. */
#ifndef LSR_ROUTE_H
#define LSR_ROUTE_H

#include "port.h"

/* A source route as it stands in the packet. */
struct lsr_route {
	struct lsr_hop_key key;
	__be32 final; /* the last entry: the destination */
};

/* Collects the key of `hops` from the IPv4 header at `ip`, with a source route of checked length. */
static __always_inline bool read_hop_key(struct __sk_buff *skb, __u32 ip,
					 const struct lsr_options *options, struct lsr_route *route)
{
	__u32 count = (options->route_length - 3U) / 4;
	__u32 bytes = opaque(count * sizeof(__be32));
	__be32 entries[LSR_ROUTE_MAX] = {};

	if (!lies_within(bytes, sizeof(*entries), sizeof(entries)))
		return false;
	if (load_bytes(skb, ip + LSR_BASE_HEADER + options->route_at + 3, entries, bytes))
		return false;
	route->key.type = options->route_type;
	route->key.length = options->route_length;
	route->key.pointer = options->route_pointer;
	route->key.record = options->record_length;
	route->key.tag = options->tag;
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < LSR_ROUTE_MAX; i++) {
		if (i + 1 == count)
			route->final = entries[i];
		else if (i < LSR_HOPS_KNOWN)
			route->key.route[i] = entries[i];
	}
	return true;
}

#endif
