/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The port a packet passes: its role, its counters, and the one way out. */
#ifndef LSR_PORT_H
#define LSR_PORT_H

#include <linux/pkt_cls.h>

#include "maps.h"
#include "parse.h"

enum {
	LSR_ETHERNET = 14, /* bytes in front of the IPv4 header */
	/* in skb->tc_index: how our own program has left a packet that passes another hook */
	LSR_OWN_MARK = 0x15c0,    /* on its way to the next node */
	LSR_SLICE_MARK = 0x15c1,  /* to be cut: skb->cb[0] is the offset, skb->cb[1] the length */
	LSR_ENDED_MARK = 0x15c2,  /* at the end of its chain, and not to be classified again */
	LSR_TRIAL_MARK = 0x15c3,  /* a copy, only to find out about its checksum: slice.h */
	LSR_MASKED_MARK = 0x15c4, /* on its way through this host's stack, masked: function.h */
	LSR_TAP_MARK = 0x15c5,    /* a copy for a tap: skb->cb[0] is the most bytes of it */
	LSR_SECOND = 1000 * 1000 * 1000, /* ns */
};

static __always_inline long load_bytes(const struct lsr_frame *frame, __u32 at, void *to,
				       __u32 length)
{
	return bpf_skb_load_bytes(frame, LSR_ETHERNET + at, to, length);
}

static __always_inline long store_bytes(struct __sk_buff *skb, __u32 at, const void *from,
					__u32 length)
{
	return bpf_skb_store_bytes(skb, LSR_ETHERNET + at, from, length, 0);
}

static __always_inline void note(struct lsr_packet *packet, enum lsr_reason reason)
{
	packet->notes |= 1U << reason;
}

static __always_inline const struct lsr_interface *find_interface(__u32 index)
{
	const struct lsr_interface *port;

	if (index >= LSR_NEAR_MAX)
		return bpf_map_lookup_elem(&interfaces, &index);
	port = bpf_map_lookup_elem(&near, &index);
	return port && port->role ? port : NULL;
}

/* Takes a token of this CPU; false when there is none. */
static __always_inline bool take_token(enum lsr_bucket bucket, __u32 per_second, __u32 burst)
{
	__u32 key = bucket;
	struct lsr_allowance *left = bpf_map_lookup_elem(&allowance, &key);
	__u64 interval = LSR_SECOND / per_second;
	__u64 gained;

	if (!left)
		return false;
	gained = (bpf_ktime_get_boot_ns() - left->filled) / interval;
	if (gained) {
		left->filled += gained * interval;
		left->tokens += gained;
		if (left->tokens > burst)
			left->tokens = burst;
	}
	if (!left->tokens)
		return false;
	left->tokens--;
	return true;
}

/*
 * Samples a drop: the first under its reason in a second, so that a flood hides no other reason,
 * and beyond that as long as there are tokens. All drops are counted; the rest was not sampled.
 *
 * This and finish() are steps of their own also because CAP_BPF without CAP_PERFMON forbids to
 * index a map value by a number whose range depends on the way that led here.
 */
LSR_STEP int sample_drop(struct __sk_buff *skb, __u32 port, __u32 reason)
{
	struct lsr_counters *counted = bpf_map_lookup_elem(&counters, &port);
	__u64 now = bpf_ktime_get_boot_ns();
	struct lsr_event *event;
	__u32 length;

	if (!counted || reason >= LSR_REASONS)
		return 0;
	if (now - counted->sampled[reason] < LSR_SECOND &&
	    !take_token(LSR_BUCKET_SAMPLES, LSR_SAMPLES_PER_SECOND, LSR_SAMPLES_BURST))
		return 0;
	counted->sampled[reason] = now;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		counted->count[LSR_NOTE_EVENT_LOST]++;
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time = now;
	event->kind = LSR_EVENT_DROP;
	event->interface = skb->ifindex;
	event->direction = port % 2;
	event->reason = reason;
	length = skb->len - LSR_ETHERNET;
	if (length > sizeof(event->header))
		length = sizeof(event->header);
	length = opaque(length);
	if (lies_within(length, 1, sizeof(event->header)) &&
	    !load_bytes(skb, 0, event->header, length))
		event->captured = length;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

LSR_STEP int verify_checksum(struct __sk_buff *skb, __u32 length)
{
	struct lsr_header header;

	return load_header(skb, length, &header) && sum_header(&header) == 0xffff;
}

/* Writes the header's checksum anew, over what is there now. */
LSR_STEP int write_checksum(struct __sk_buff *skb, __u32 length)
{
	/* As one of 64 bytes: Linux 6.1 counts the stack of each step in steps of 32. */
	struct {
		struct lsr_header header;
		__be16 checksum, unused;
	} here;

	if (!load_header(skb, length, &here.header))
		return LSR_DROP_SHORT;
	here.header.word[2] &=
		LSR_NET32(0xffff0000); /* the checksum is the low half of the third word */
	here.checksum = ~sum_header(&here.header);
	return store_bytes(skb, 10, &here.checksum, sizeof(here.checksum)) ? LSR_DROP_RESIZE : 0;
}

struct lsr_walk {
	struct __sk_buff *skb;
	struct lsr_options options;
	__u32 fault; /* enum lsr_reason, 0 while there is none. At offset 20: where the verifier does not
		      * tell the values apart, as it does of what is aligned to 8 */
	__u32 length; /* of all options, bytes */
	__u32 unused;
};

static long walk_option(__u32 step __attribute__((unused)), struct lsr_walk *walk)
{
	if (!has_more(&walk->options, walk->length))
		return 1;
	walk->fault = read_next(walk->skb, walk->length, &walk->options);
	return walk->fault != 0;
}

/* Reads all options. Returns 0 or the first fault. */
LSR_STEP int scan_options(struct __sk_buff *skb, __u32 header, struct lsr_options *options)
{
	struct lsr_walk walk = {.skb = skb, .length = header - LSR_BASE_HEADER};

	if (!options)
		return LSR_DROP_SHORT;
	bpf_loop(LSR_OPTIONS_MAX, walk_option, &walk, 0);
	*options = walk.options;
	return walk.fault;
}

LSR_STEP int verify_layout(struct __sk_buff *skb, const struct lsr_packet *packet,
			   struct lsr_options *options)
{
	return packet && options ? check_layout(skb, packet, options) : LSR_DROP_SHORT;
}

static __always_inline __u32 find_owner(__be32 address)
{
	const __u32 *owner = bpf_map_lookup_elem(&addresses, &address);

	return owner ? *owner : 0;
}

/* What no packet that we send on may have come from. */
static __always_inline enum lsr_reason check_source(const struct lsr_packet *packet)
{
	if (is_martian(packet->source))
		return LSR_DROP_SOURCE_MARTIAN;
	if (find_owner(packet->source) & LSR_OWNER_SELF)
		return LSR_DROP_SOURCE_SELF;
	return 0;
}

/* Bytes of the headers that each segment of a GSO packet has; of an unknown L4, its least. */
static __always_inline __u32 measure_headers(struct __sk_buff *skb, const struct lsr_packet *packet)
{
	__u8 offset;

	if (packet->protocol != IPPROTO_TCP ||
	    load_bytes(skb, packet->header + 12, &offset, sizeof(offset)))
		return packet->header + 8;
	return packet->header + (offset >> 4) * 4;
}

/* Bytes of the longest IPv4 packet on the wire that this skb stands for. */
static __always_inline __u32 measure(struct __sk_buff *skb, const struct lsr_packet *packet)
{
	return skb->gso_size ? measure_headers(skb, packet) + skb->gso_size : packet->length;
}

#endif
