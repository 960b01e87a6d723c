/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * A header that changes in several places is read once, changed here, and written back at once: each helper that
 * touches the packet costs more than all that happens in between.
 */
#ifndef LSR_DRAFT_H
#define LSR_DRAFT_H

#include "port.h"

enum {
	LSR_TTL_AT = 8, /* offsets in the IPv4 header */
	LSR_CHECKSUM_AT = 10,
	LSR_DESTINATION_AT = 16,
};

/* The packet's first `length` bytes, and zeros behind them; NULL where there are not as many. */
static __always_inline struct lsr_draft *begin_draft(struct __sk_buff *skb, __u32 length)
{
	__u32 zero = 0;
	struct lsr_draft *begun = bpf_map_lookup_elem(&draft, &zero);

	length = opaque(length);
	if (!begun || !lies_within(length, LSR_BASE_HEADER, LSR_HEADER_MAX))
		return NULL;
	__builtin_memset(begun, 0, sizeof(*begun));
	return load_bytes(skb, 0, begun->bytes, length) ? NULL : begun;
}

static __always_inline void put_byte(struct lsr_draft *begun, __u32 at, __u8 value)
{
	at = opaque(at);
	if (at < LSR_HEADER_MAX)
		begun->bytes[at] = value;
}

static __always_inline void put_address(struct lsr_draft *begun, __u32 at, __be32 address)
{
	at = opaque(at);
	if (at <= LSR_HEADER_MAX - sizeof(address))
		__builtin_memcpy(begun->bytes + at, &address, sizeof(address));
}

/* Writes the draft into the packet, `length` bytes of it, with its checksum. */
static __always_inline enum lsr_reason send_draft(struct __sk_buff *skb, struct lsr_draft *begun,
						  __u32 length)
{
	__be16 checksum = 0;

	length = opaque(length);
	if (!lies_within(length, LSR_BASE_HEADER, LSR_HEADER_MAX))
		return LSR_DROP_SHORT;
	__builtin_memcpy(begun->bytes + LSR_CHECKSUM_AT, &checksum, sizeof(checksum));
	checksum = ~sum_header((const struct lsr_header *)begun->bytes);
	__builtin_memcpy(begun->bytes + LSR_CHECKSUM_AT, &checksum, sizeof(checksum));
	return store_bytes(skb, 0, begun->bytes, length) ? LSR_DROP_RESIZE : 0;
}

#endif
