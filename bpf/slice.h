/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Fragmentation (RFC 791 §3.2), for which the kernel gives no helper. The whole packet, its options
 * already written, goes to the exit's egress hook once for each fragment; there all but that
 * fragment is cut away. A slow path: it costs a copy and two hooks a fragment.
 */
#ifndef LSR_SLICE_H
#define LSR_SLICE_H

#include "answer.h"

enum {
	LSR_SLICES_MAX = 64,
	LSR_ROOM_STEP =
		4088, /* bytes; the kernel takes out less than 4096 at once, fragments count in 8 */
};

/*
 * A checksum that the device is to make (CHECKSUM_PARTIAL) would be made of one fragment alone, and
 * there is no way to have it made before: such a packet has to be refused. Nor can a program read
 * ip_summed; but bpf_skb_change_tail refuses to cut off a checksum that is still to be made
 * (net/core/filter.c, __bpf_skb_min_len). It is tried on a copy, which passes the exit's egress
 * hook before bpf_clone_redirect returns, and goes no further.
 */
LSR_STEP int can_slice(struct __sk_buff *skb, __u32 output)
{
	__u32 zero = 0;
	struct lsr_trial *answer = bpf_map_lookup_elem(&trial, &zero);
	__u32 mark = skb->tc_index;

	if (!answer || skb->gso_size)
		return false;
	answer->answered = 0;
	skb->tc_index = LSR_TRIAL_MARK;
	bpf_clone_redirect(skb, output, 0);
	skb->tc_index = mark;
	return answer->answered && !answer->partial;
}

/* At the egress hook, with the copy. */
LSR_STEP int answer_trial(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct lsr_trial *answer = bpf_map_lookup_elem(&trial, &zero);
	__u8 first;

	if (!answer || load_bytes(skb, 0, &first, sizeof(first)))
		return 0;
	answer->partial = bpf_skb_change_tail(skb, LSR_ETHERNET + (first & 15) * 4, 0) != 0;
	answer->answered = 1;
	return 0;
}

/*
 * Whether a packet of `length` bytes may go where at most `limit` fit, given the bytes of options
 * among them: whole (`size` is 0), or out of interface `output` in fragments of `size` bytes each.
 */
static __always_inline enum lsr_reason choose_size(struct __sk_buff *skb, struct lsr_packet *packet,
						   __u32 length, __u32 limit, __u32 options,
						   __u32 output, __u32 *size)
{
	__u32 header = LSR_BASE_HEADER + options;
	__u32 room;

	*size = 0;
	if (length <= limit)
		return 0;
	if (packet->fragment & LSR_DONT_FRAGMENT)
		return refuse_size(packet, LSR_DROP_TOO_BIG, limit - options);
	room = limit > header ? (limit - header) & ~7U : 0;
	if (!room || length - header > room * LSR_SLICES_MAX || !can_slice(skb, output))
		return refuse_size(packet, LSR_DROP_CANNOT_FRAGMENT, limit - options);
	*size = room;
	return 0;
}

struct lsr_slices {
	struct __sk_buff *skb;
	__u32 size;   /* bytes of payload in each but the last */
	__u32 last;   /* number of the last one */
	__u32 output; /* ifindex */
	__u32 failed;
};

static long send_slice(__u32 number, struct lsr_slices *slices)
{
	struct __sk_buff *skb = slices->skb;

	skb->cb[0] = number * slices->size;
	skb->cb[1] = slices->size;
	slices->failed = bpf_clone_redirect(skb, slices->output, 0) != 0;
	return slices->failed;
}

/* Sends a packet whose header is written in fragments that carry `size` bytes each. */
LSR_STEP int send_slices(struct __sk_buff *skb, struct lsr_packet *packet, __u32 size, __u32 output)
{
	struct lsr_slices slices = {.skb = skb, .size = size, .output = output};

	if (!packet || !size)
		return LSR_DROP_RESIZE;
	slices.last = (packet->length - packet->header - 1) / size;
	skb->tc_index = LSR_SLICE_MARK;
	bpf_loop(slices.last, send_slice, &slices, 0);
	if (slices.failed)
		return LSR_DROP_RESIZE;
	skb->cb[0] = slices.last * size;
	skb->cb[1] = 0;
	bpf_redirect(output, 0);
	packet->slices = slices.last + 1;
	note(packet, LSR_NOTE_FRAGMENTED);
	return 0;
}

/* Sends a packet on whose header is written: whole, or in fragments that carry `size` bytes. */
static __always_inline enum lsr_reason depart(struct __sk_buff *skb, struct lsr_packet *packet,
					      __u32 size, const struct lsr_exit *way)
{
	if (size)
		return send_slices(skb, packet, size, way->index);
	leave(skb, packet, way);
	return 0;
}

/* Overwrites Record Route with NOPs: it goes into the first fragment only. */
LSR_STEP int blank_record(struct __sk_buff *skb, __u32 at, __u32 length)
{
	__u8 blank[LSR_OPTIONS_MAX];

	length = opaque(length);
	if (!lies_within(length, 1, sizeof(blank)))
		return 0;
	__builtin_memset(blank, LSR_OPTION_NOP, sizeof(blank));
	return store_bytes(skb, at, blank, length) ? LSR_DROP_RESIZE : 0;
}

/* Where the Record Route of a packet of ours is: behind the source route. */
static __always_inline enum lsr_reason blank_options(struct __sk_buff *skb,
						     const struct lsr_packet *packet)
{
	struct lsr_option_head head;
	__u32 at;

	at = find_route_end(skb);
	if (!at || at + sizeof(head) > packet->header)
		return 0;
	if (load_bytes(skb, at, &head, sizeof(head)))
		return LSR_DROP_RESIZE;
	return head.type == LSR_OPTION_RECORD_ROUTE ? blank_record(skb, at, head.length) : 0;
}

/* Takes `count` bytes of payload out from its beginning. */
static __always_inline bool skip_payload(struct __sk_buff *skb, __u32 count)
{
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < 4; i++) {
		__u32 step = opaque(count < LSR_ROOM_STEP ? count : LSR_ROOM_STEP);

		if (step && bpf_skb_adjust_room(skb, -(__s32)step, BPF_ADJ_ROOM_NET,
						BPF_F_ADJ_ROOM_NO_CSUM_RESET))
			return false;
		count -= step;
	}
	return !count;
}

/* At the egress hook: cuts all away but the fragment that skb->cb names, and sends it. */
LSR_STEP int cut_slice(struct __sk_buff *skb, struct lsr_packet *packet)
{
	__u32 offset = skb->cb[0];
	__u32 size = skb->cb[1];
	struct lsr_header whole;
	struct lsr_exit way;
	struct iphdr header;
	enum lsr_reason reason;
	__u32 options;

	if (!packet || !load_header(skb, packet->header, &whole))
		return LSR_DROP_RESIZE;
	reason = find_exit(skb, packet, packet->destination, false, &way);
	if (reason)
		return reason;
	if (!skip_payload(skb, offset))
		return LSR_DROP_RESIZE;
	packet->length -= offset;
	options = opaque(
		packet->header -
		LSR_BASE_HEADER); /* what was taken out was these, and as much of the payload less */
	if (lies_within(options, 1, LSR_OPTIONS_MAX) &&
	    store_bytes(skb, LSR_BASE_HEADER, &whole.word[5], options))
		return LSR_DROP_RESIZE;
	if (size) {
		packet->length = packet->header + size;
		packet->fragment |= LSR_MORE_FRAGMENTS;
		if (bpf_skb_change_tail(skb, LSR_ETHERNET + packet->length, 0))
			return LSR_DROP_RESIZE;
	}
	packet->fragment += offset / 8;
	if (load_bytes(skb, 0, &header, sizeof(header)))
		return LSR_DROP_RESIZE;
	header.tot_len = LSR_NET16((__u16)packet->length);
	header.frag_off = LSR_NET16(packet->fragment);
	if (store_bytes(skb, 0, &header, sizeof(header)))
		return LSR_DROP_RESIZE;
	reason = offset ? blank_options(skb, packet) : 0;
	if (!reason)
		reason = write_checksum(skb, packet->header);
	if (reason)
		return reason;
	leave(skb, packet, &way);
	return LSR_SLICED;
}

#endif
