/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A packet that comes back from the function of its hop goes on as if it had just arrived there. */
#ifndef LSR_RESUME_H
#define LSR_RESUME_H

#include "hop.h"

/* `device` is the port that it comes back at, 0 for this host's stack. */
LSR_STEP int resume(struct __sk_buff *skb, struct lsr_packet *packet, __u32 device)
{
	const struct lsr_function *function;
	struct lsr_options options = {};
	const struct lsr_state *current;
	struct lsr_route route = {};
	const struct lsr_hop *hop;
	enum lsr_reason reason;
	__u32 zero = 0;

	if (!packet)
		return LSR_DROP_SHORT;
	reason = unmask_route(skb, packet);
	if (!reason)
		reason = scan_options(skb, packet->header, &options);
	if (!reason)
		reason = verify_layout(skb, packet, &options);
	if (reason)
		return reason;
	if (!read_hop_key(skb, 0, &options, &route))
		return LSR_DROP_SHORT;
	current = bpf_map_lookup_elem(&state, &zero);
	route.key.hop = packet->destination;
	hop = bpf_map_lookup_elem(&hops, &route.key);
	if (!hop || !current || current->address != packet->destination)
		return LSR_DROP_UNKNOWN_PATH;
	function = find_function(hop->function);
	if (!function || function->return_device != device)
		return LSR_DROP_WRONG_FUNCTION;
	/* The stack is this host's own; what is behind a device could have made the packet itself. */
	if (device && hop->binding) {
		reason = verify_tag(skb, packet, LSR_BASE_HEADER, hop, route.final);
		if (reason)
			return reason;
	}
	packet->path = hop->path;
	if (packet->protocol == IPPROTO_UDP)
		recognise(skb, packet, find_position(&options));
	if (hop->next)
		return forward(skb, packet, &options, hop->next, true);
	return end_chain(skb, packet, &options, route.final, hop->path);
}

/* What comes in at the port of a function: packets of chains, masked as it got them, and its own. */
LSR_STEP int leave_function(struct __sk_buff *skb, struct lsr_packet *packet)
{
	if (!packet)
		return LSR_DROP_SHORT;
	if (packet->header == LSR_BASE_HEADER)
		return classify(skb, packet, LSR_ORIGIN_FUNCTION);
	if (!verify_checksum(skb, packet->header))
		return LSR_DROP_CHECKSUM;
	if (is_martian(packet->source))
		return LSR_DROP_SOURCE_MARTIAN;
	return resume(skb, packet, packet->input);
}

#endif
