/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Taking the options out again. */
#ifndef LSR_STRIP_H
#define LSR_STRIP_H

#include "port.h"

/* The last entry of the source route that a checked packet begins its options with. */
static __always_inline bool read_final(struct __sk_buff *skb, __be32 *address)
{
	__u8 length;

	if (load_bytes(skb, LSR_BASE_HEADER + 1, &length, sizeof(length)) ||
	    !is_route_length(length))
		return false;
	return !load_bytes(skb, LSR_BASE_HEADER + length - sizeof(*address), address,
			   sizeof(*address));
}

/* Takes all options out; the packet is then `destination`'s, as its source sent it. */
LSR_STEP int strip_options(struct __sk_buff *skb, struct lsr_packet *packet, __be32 destination)
{
	struct lsr_header whole;
	struct iphdr header;
	__u32 length;

	if (!packet || !load_header(skb, LSR_BASE_HEADER, &whole))
		return LSR_DROP_SHORT;
	length = packet->header - LSR_BASE_HEADER;
	if (bpf_skb_adjust_room(skb, -(__s32)length, BPF_ADJ_ROOM_NET,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return LSR_DROP_RESIZE;
	/*
	 * CHECKSUM_COMPLETE: the kernel took the options' sum out of skb->csum, but the header as
	 * a whole summed to zero before and does so afterwards; put back what the base lacked.
	 */
	bpf_csum_update(skb, (__u16)~sum_header(&whole));

	packet->length -= length;
	packet->header = LSR_BASE_HEADER;
	packet->destination = destination;
	if (load_bytes(skb, 0, &header, sizeof(header)))
		return LSR_DROP_SHORT;
	header.ihl = LSR_BASE_HEADER / 4;
	if (header.tot_len) /* 0: BIG TCP */
		header.tot_len = LSR_NET16((__u16)packet->length);
	header.daddr = destination;
	if (store_bytes(skb, 0, &header, sizeof(header)))
		return LSR_DROP_RESIZE;
	return write_checksum(skb, LSR_BASE_HEADER);
}

#endif
