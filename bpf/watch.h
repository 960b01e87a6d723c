/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Flows that somebody follows at this moment: what became of each of their packets, as it is by then on the wire. */
#ifndef LSR_WATCH_H
#define LSR_WATCH_H

#include "classify.h"
#include "strip.h"
#include "traffic.h"
#include <stddef.h>

/* 0 wants all. Without branches, of which the verifier would walk each combination. */
static __always_inline __u32 suits(__u32 wanted, __u32 found)
{
	return equals(wanted, 0) | equals(wanted, found);
}

static __always_inline bool fits(const struct lsr_watch *watch, const struct lsr_fields *fields)
{
	return equals(watch->used, 1) & equals(watch->source, fields->source) &
	       equals(watch->destination, fields->destination) &
	       suits(watch->protocol, fields->protocol) &
	       suits(watch->source_port, fields->source_port) &
	       suits(watch->destination_port, fields->destination_port);
}

/* The flow as its source and destination know it, wherever it is on its way. */
static __always_inline bool read_ends(struct __sk_buff *skb, const struct lsr_packet *packet,
				      struct lsr_fields *fields)
{
	__be32 ends[2];

	if (load_bytes(skb, offsetof(struct iphdr, saddr), ends, sizeof(ends)))
		return false;
	fields->source = ends[0];
	fields->destination = ends[1];
	fields->protocol = packet->protocol;
	if (packet->header > LSR_BASE_HEADER)
		read_final(skb, &fields->destination); /* without a source route it stays */
	read_ports(skb, packet, fields);
	return true;
}

static __always_inline void see(__u32 watch, __u32 reason, __u64 packets)
{
	__u32 index = watch * LSR_REASONS + reason;
	struct lsr_sighting *sighting = bpf_map_lookup_elem(&sightings, &index);

	if (!sighting)
		return;
	sighting->packets += packets;
	sighting->last_seen = bpf_ktime_get_boot_ns();
}

LSR_STEP int look(struct __sk_buff *skb, const struct lsr_packet *packet, __u32 reason)
{
	struct lsr_fields fields = {};
	const struct lsr_watch *watch;
	__u64 packets;

	if (!packet || !packet->header || reason >= LSR_REASONS || !read_ends(skb, packet, &fields))
		return 0;
	packets = count_segments(skb, packet);
#pragma clang loop unroll(full) /* Linux 6.1 takes a counter on the stack for an endless loop */
	for (__u32 i = 0; i < LSR_WATCHES_MAX; i++) {
		__u32 index = i;

		watch = bpf_map_lookup_elem(&watches, &index);
		if (watch && fits(watch, &fields))
			see(i, reason, packets);
	}
	return 0;
}

/* Where nobody follows a flow, this is all that a packet pays. */
static __always_inline bool is_watching(void)
{
	const __u32 *watched;
	__u32 zero = 0;

	watched = bpf_map_lookup_elem(&watching, &zero);
	return watched && *watched;
}

#endif
