/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The edge: classify a plain packet, and write its chain's source route into it. */
#ifndef LSR_IMPOSE_H
#define LSR_IMPOSE_H

#include "classify.h"
#include "slice.h"

/*
 * GSO segments keep their size where they fit with the options, so that a clamped TCP flow is not
 * cut a second time; else the kernel lowers gso_size, which it can do for TCP only
 * (net/core/filter.c, bpf_skb_net_grow). `longest` is what a segment measures without the options.
 */
static __always_inline enum lsr_reason choose_room(struct __sk_buff *skb, struct lsr_packet *packet,
						   const struct lsr_path *path, __u32 limit,
						   __u64 *flags, __u32 *size)
{
	__u32 longest = measure(skb, packet);
	bool known = packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP;

	*flags = BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	*size = 0;
	if (skb->gso_size && longest <= limit) {
		if (known && longest + path->length <= limit)
			*flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
		if (packet->protocol != IPPROTO_UDP || longest + path->length <= limit)
			return 0;
	}
	return choose_size(skb, packet, longest + path->length, limit, path->length, size);
}

static __always_inline enum lsr_reason write_route(struct __sk_buff *skb, struct lsr_packet *packet,
						   const struct lsr_path *path)
{
	struct iphdr header;
	__u32 length = path->length;

	if (length < 8 || length > LSR_OPTIONS_MAX)
		return LSR_DROP_NO_CHAIN;
	if (load_bytes(skb, 0, &header, sizeof(header)))
		return LSR_DROP_RESIZE;
	packet->header = LSR_BASE_HEADER + length;
	packet->length += length;
	header.ihl = packet->header / 4;
	if (header.tot_len) /* 0: BIG TCP */
		header.tot_len = LSR_NET16((__u16)packet->length);
	header.ttl -= packet->stage == LSR_ARRIVED; /* else the stack has seen to it */
	header.daddr = path->first;
	if (store_bytes(skb, 0, &header, sizeof(header)) ||
	    store_bytes(skb, LSR_BASE_HEADER, path->options, length) ||
	    store_bytes(skb, LSR_BASE_HEADER + path->destination, &packet->destination,
			sizeof(packet->destination)))
		return LSR_DROP_RESIZE;
	if (path->record && is_later_fragment(packet) &&
	    blank_record(skb, LSR_BASE_HEADER + path->destination + sizeof(packet->destination),
			 path->record))
		return LSR_DROP_RESIZE;
	return write_checksum(skb, packet->header);
}

LSR_STEP int impose(struct __sk_buff *skb, struct lsr_packet *packet, __u32 number)
{
	const struct lsr_path *path = bpf_map_lookup_elem(&paths, &number);
	struct lsr_exit way;
	enum lsr_reason reason;
	__u32 limit, size;
	__u64 flags;

	if (!packet || !path)
		return LSR_DROP_NO_CHAIN;
	if (packet->header != LSR_BASE_HEADER)
		return LSR_DROP_HAS_OPTIONS;
	if (packet->stage == LSR_ARRIVED && packet->ttl <= 1)
		return refuse(packet, LSR_DROP_TTL, LSR_ICMP_TIME_EXCEEDED, 0);
	reason = find_exit(skb, packet, path->first, path->strict, &way);
	if (reason)
		return reason;
	limit = way.mtu < path->mtu ? way.mtu : path->mtu;
	reason = choose_room(skb, packet, path, limit, &flags, &size);
	if (reason)
		return reason;
	if (bpf_skb_adjust_room(skb, path->length, BPF_ADJ_ROOM_NET, flags))
		return LSR_DROP_RESIZE;
	reason = write_route(skb, packet, path);
	if (reason)
		return reason;
	reason = depart(skb, packet, size, &way);
	return reason ? reason : LSR_IMPOSED;
}

/*
 * Classifies a packet and sends it down its chain. LSR_PASSED where no rule speaks of it, and for
 * an arriving packet that the stack will bring to a managed port: netfilter and conntrack of this
 * host see it first, and both directions of its connection.
 */
LSR_STEP int classify(struct __sk_buff *skb, struct lsr_packet *packet, __u32 origin)
{
	struct lsr_fields fields = {.origin = origin};
	struct lsr_chain chain = {};
	enum lsr_reason reason;

	if (!packet)
		return LSR_DROP_SHORT;
	if (is_martian(packet->destination) || find_owner(packet->destination) == LSR_OWNER_SELF)
		return LSR_PASSED;
	if (is_fragment(packet))
		fields.origin |= LSR_ORIGIN_FRAGMENT;
	read_fields(skb, packet, &fields);
	reason = choose_chain(&fields, has_ports(packet), &chain);
	if (reason)
		return reason;
	if (is_fragment(packet) && chain.fragments == LSR_FRAGMENTS_DROP)
		return LSR_DROP_FRAGMENT;
	if (packet->stage == LSR_ARRIVED && passes_port(skb, packet))
		return LSR_PASSED;
	return impose(skb, packet, chain.path);
}

#endif
