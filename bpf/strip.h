/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Taking the options out again. */
#ifndef LSR_STRIP_H
#define LSR_STRIP_H

#include "draft.h"

/* The source route of a packet of ours, or of one that was checked: where it ends, and 0 without one. */
static __always_inline __u32 find_route_end(struct __sk_buff *skb)
{
	struct lsr_option_head head;
	__u32 at = LSR_BASE_HEADER;

	if (load_bytes(skb, at, &head, sizeof(head)))
		return 0;
	if (head.type == LSR_OPTION_INTEGRITY) {
		at += LSR_TAG_LENGTH;
		if (load_bytes(skb, at, &head, sizeof(head)))
			return 0;
	}
	return is_source_route(head.type) && is_route_length(head.length) ? at + head.length : 0;
}

/* Its last entry: where the packet goes in the end. */
static __always_inline bool read_final(struct __sk_buff *skb, __be32 *address)
{
	__u32 end = find_route_end(skb);

	return end && !load_bytes(skb, end - sizeof(*address), address, sizeof(*address));
}

/* Takes all options out; the packet is then `destination`'s, as its source sent it. */
LSR_STEP int strip_options(struct __sk_buff *skb, struct lsr_packet *packet, __be32 destination)
{
	struct lsr_draft *begun;
	struct iphdr *header;
	__u32 length;
	__s64 sum;

	if (!packet || load_bytes(skb, 0, &header, sizeof(header)))
		return LSR_DROP_SHORT;
	sum = bpf_csum_diff(NULL, 0, (void *)&header, sizeof(header), 0);
	length = packet->header - LSR_BASE_HEADER;
	if (bpf_skb_adjust_room(skb, -(__s32)length, BPF_ADJ_ROOM_NET,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return LSR_DROP_RESIZE;
	/*
	 * CHECKSUM_COMPLETE: the kernel took the options' sum out of skb->csum, but the header as
	 * a whole summed to zero before and does so afterwards; put back what the base lacked.
	 */
	bpf_csum_update(skb, (__u16)~fold((__u32)sum));

	packet->length -= length;
	packet->header = LSR_BASE_HEADER;
	packet->destination = destination;
	begun = begin_draft(skb, LSR_BASE_HEADER);
	if (!begun)
		return LSR_DROP_SHORT;
	header = (struct iphdr *)begun->bytes;
	header->ihl = LSR_BASE_HEADER / 4;
	if (header->tot_len) /* 0: BIG TCP */
		header->tot_len = LSR_NET16((__u16)packet->length);
	header->daddr = destination;
	return send_draft(skb, begun, LSR_BASE_HEADER);
}

#endif
