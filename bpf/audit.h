/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What arrived, by flow, in tables that the agent empties in turn. Forwarding never waits for it. */
#ifndef LSR_AUDIT_H
#define LSR_AUDIT_H

#include "classify.h"
#include "traffic.h"
#include <linux/if_ether.h>
#include <stddef.h>

/* Wakes the agent; it also looks by itself every few seconds. */
static __always_inline void announce_flow(struct __sk_buff *skb, struct lsr_packet *packet,
					  __u8 reason, __u64 now)
{
	struct lsr_event *event;

	if (!take_token(LSR_BUCKET_FLOWS, LSR_FLOWS_PER_SECOND, 1))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		note(packet, LSR_NOTE_EVENT_LOST);
		return;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time = now;
	event->kind = LSR_EVENT_FLOW;
	event->interface = skb->ifindex;
	event->direction = LSR_INGRESS;
	event->reason = reason;
	bpf_ringbuf_submit(event, 0);
}

/* Before anything is rewritten: the options are kept as they arrived. */
static __always_inline void record_flow(struct __sk_buff *skb, struct lsr_packet *packet,
					__u32 recorded, const struct lsr_flow_key *given,
					__u32 bytes)
{
	__u32 zero = 0;
	void *table = bpf_map_lookup_elem(&recording, &recorded);
	struct lsr_flow_key *key = bpf_map_lookup_elem(&scratch_key, &zero);
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 length = opaque(packet->header - LSR_BASE_HEADER);
	struct lsr_flow *flow, *fresh;

	if (!table || !key)
		return;
	*key = *given;
	flow = bpf_map_lookup_elem(table, key);
	if (flow) {
		__sync_fetch_and_add(&flow->packets, count_segments(skb, packet));
		__sync_fetch_and_add(&flow->bytes, bytes);
		flow->last_seen = now;
		return;
	}
	fresh = bpf_map_lookup_elem(&scratch, &zero); /* more than the stack has room for */
	if (!fresh)
		return;
	__builtin_memset(fresh, 0, sizeof(*fresh));
	fresh->packets = count_segments(skb, packet);
	fresh->bytes = bytes;
	fresh->first_seen = now;
	fresh->last_seen = now;
	fresh->hop = packet->destination;
	if (lies_within(length, 4, LSR_OPTIONS_MAX))
		load_bytes(skb, LSR_BASE_HEADER, fresh->options, length);
	bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), fresh->from,
			   sizeof(fresh->from));
	if (bpf_map_update_elem(table, key, fresh, BPF_NOEXIST)) {
		flow = bpf_map_lookup_elem(table, key); /* another CPU was first */
		if (!flow) {
			note(packet, LSR_NOTE_FLOW_LOST);
			return;
		}
		__sync_fetch_and_add(&flow->packets, fresh->packets);
		__sync_fetch_and_add(&flow->bytes, bytes);
		return;
	}
	announce_flow(skb, packet, key->reason, now);
}

static __always_inline void read_flow(struct __sk_buff *skb, const struct lsr_packet *packet,
				      __be32 destination, struct lsr_flow_key *key)
{
	struct lsr_fields fields = {};

	read_ports(skb, packet, &fields);
	key->source = packet->source;
	key->destination = destination;
	key->source_port = fields.source_port;
	key->destination_port = fields.destination_port;
	key->protocol = packet->protocol;
}

LSR_STEP int record_end(struct __sk_buff *skb, struct lsr_packet *packet,
			const struct lsr_flow_key *key)
{
	if (packet && key)
		record_flow(skb, packet, LSR_RECORDING_FLOWS, key, count_bytes(packet));
	return 0;
}

LSR_STEP int record_deviation(struct __sk_buff *skb, struct lsr_packet *packet,
			      const struct lsr_flow_key *key)
{
	if (packet && key)
		record_flow(skb, packet, LSR_RECORDING_DEVIATIONS, key, packet->length);
	return 0;
}

#endif
