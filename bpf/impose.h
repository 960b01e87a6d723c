/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The edge: classify a plain packet, and write its chain's source route into it. */
#ifndef LSR_IMPOSE_H
#define LSR_IMPOSE_H

#include "classify.h"
#include "leave.h"

/*
 * GSO segments keep their size where they fit with the options, so that a clamped TCP flow is not
 * cut a second time; else the kernel lowers gso_size, which it can do for TCP only
 * (net/core/filter.c, bpf_skb_net_grow).
 */
static __always_inline __u64 choose_room_flags(struct __sk_buff *skb,
					       const struct lsr_packet *packet,
					       const struct lsr_path *path, __u32 mtu)
{
	__u32 headers = packet->header + path->length;
	__u8 offset;

	if (!skb->gso_size)
		return 0;
	if (packet->protocol != IPPROTO_TCP)
		return BPF_F_ADJ_ROOM_FIXED_GSO;
	if (load_bytes(skb, packet->header + 12, &offset, sizeof(offset)))
		return 0;
	headers += (offset >> 4) * 4;
	return skb->gso_size + headers <= mtu ? BPF_F_ADJ_ROOM_FIXED_GSO : 0;
}

static __always_inline bool segment_fits(struct __sk_buff *skb, const struct lsr_packet *packet,
					 const struct lsr_path *path, __u32 mtu)
{
	__u32 udp = sizeof(__be16) * 4;

	if (!skb->gso_size || packet->protocol == IPPROTO_TCP)
		return true;
	return skb->gso_size + udp + packet->header + path->length <= mtu;
}

static __always_inline enum lsr_reason write_route(struct __sk_buff *skb,
						   const struct lsr_packet *packet,
						   const struct lsr_path *path, __u8 ttl)
{
	struct iphdr header;
	__u32 length = path->length;

	if (length < 8 || length > LSR_OPTIONS_MAX)
		return LSR_DROP_NO_CHAIN;
	if (load_bytes(skb, 0, &header, sizeof(header)))
		return LSR_DROP_RESIZE;
	header.ihl = (LSR_BASE_HEADER + length) / 4;
	if (header.tot_len) /* 0: BIG TCP */
		header.tot_len = LSR_NET16((__u16)(packet->length + length));
	header.ttl = ttl;
	header.daddr = path->first;
	if (store_bytes(skb, 0, &header, sizeof(header)) ||
	    store_bytes(skb, LSR_BASE_HEADER, path->options, length) ||
	    store_bytes(skb, LSR_BASE_HEADER + path->destination, &packet->destination,
			sizeof(packet->destination)))
		return LSR_DROP_RESIZE;
	return write_checksum(skb, LSR_BASE_HEADER + length);
}

LSR_STEP int impose(struct __sk_buff *skb, const struct lsr_packet *packet, __u32 number,
		    __u32 local)
{
	const struct lsr_path *path = bpf_map_lookup_elem(&paths, &number);
	struct lsr_exit way;
	enum lsr_reason reason;
	__u32 grown;
	__u64 flags;

	if (!packet || !path)
		return LSR_DROP_NO_CHAIN;
	grown = packet->length + path->length;
	if (packet->header != LSR_BASE_HEADER)
		return LSR_DROP_HAS_OPTIONS;
	if (!local && packet->ttl <= 1)
		return LSR_DROP_TTL;
	reason = find_exit(skb, packet, path->first, skb->gso_size ? 0 : grown, path->strict, local,
			   &way);
	if (reason)
		return reason;
	if (!segment_fits(skb, packet, path, way.interface->mtu))
		return LSR_DROP_TOO_BIG;
	flags = choose_room_flags(skb, packet, path, way.interface->mtu);
	if (bpf_skb_adjust_room(skb, path->length, BPF_ADJ_ROOM_NET,
				flags | BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return LSR_DROP_RESIZE;
	reason = write_route(skb, packet, path, local ? packet->ttl : packet->ttl - 1);
	if (reason)
		return reason;
	leave(skb, &way);
	return LSR_IMPOSED;
}

/* Classifies a packet and sends it down its chain. LSR_PASSED where no rule speaks of it. */
static __always_inline enum lsr_reason classify(struct __sk_buff *skb,
						const struct lsr_packet *packet,
						enum lsr_origin origin)
{
	struct lsr_fields fields = {.origin = origin};
	enum lsr_reason reason;
	__u32 path = 0;

	if (is_martian(packet->destination))
		return LSR_PASSED;
	read_fields(skb, packet, &fields);
	reason = choose_path(&fields, has_ports(packet), &path);
	if (reason)
		return reason;
	return impose(skb, packet, path, origin == LSR_ORIGIN_LOCAL);
}

#endif
