/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What became of packets on this host, by chain and path: what goes in and comes out can be compared hop by hop. */
#ifndef LSR_TRAFFIC_H
#define LSR_TRAFFIC_H

#include "port.h"

/* IPv4 packets on the wire that this skb stands for, as it is by now. */
static __always_inline __u64 count_segments(struct __sk_buff *skb, const struct lsr_packet *packet)
{
	__u32 size = skb->gso_size;
	__u32 headers;

	if (!size)
		return packet->slices ? packet->slices : 1;
	headers = measure_headers(skb, packet);
	if (packet->length <= headers)
		return 1;
	return (packet->length - headers + size - 1) / size;
}

/* Of the packet as its sender made it: without our options. */
static __always_inline __u64 count_bytes(const struct lsr_packet *packet)
{
	return packet->length - packet->header + LSR_BASE_HEADER;
}

LSR_STEP int count_traffic(struct __sk_buff *skb, struct lsr_packet *packet, __u32 reason)
{
	struct lsr_traffic_key key = {.reason = reason};
	struct lsr_traffic none = {};
	struct lsr_traffic *counted;

	if (!packet || !(packet->path | packet->chain))
		return 0;
	key.path = packet->path;
	key.chain = packet->chain;
	counted = bpf_map_lookup_elem(&traffic, &key);
	if (!counted) {
		bpf_map_update_elem(&traffic, &key, &none, BPF_NOEXIST);
		counted = bpf_map_lookup_elem(&traffic, &key);
	}
	if (!counted) {
		note(packet, LSR_NOTE_TRAFFIC_LOST);
		return 0;
	}
	counted->packets += count_segments(skb, packet);
	counted->bytes += count_bytes(packet);
	return 0;
}

#endif
