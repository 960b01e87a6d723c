/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Which of its chain's paths a flow takes: by a hash of its ends and protocol, the same for both directions. */
#ifndef LSR_FLOW_H
#define LSR_FLOW_H

#include "port.h"

enum {
	LSR_SLOT_SHIFT = 64 - 9, /* the upper bits of the hash: LSR_SLOTS is 2^9 */
};

_Static_assert(1ULL << (64 - LSR_SLOT_SHIFT) == LSR_SLOTS, "all bits of a slot");

/* The finalizer of MurmurHash3: each bit moves about half of all others. */
static __always_inline __u64 mix(__u64 value)
{
	value ^= value >> 33;
	value *= 0xff51afd7ed558ccdULL;
	value ^= value >> 33;
	value *= 0xc4ceb9fe1a85ec53ULL;
	return value ^ value >> 33;
}

/* Mirrored by src/flow-hash.ts. */
static __always_inline __u64 hash_flow(const struct lsr_fields *fields)
{
	__u64 one = (__u64)LSR_NET32(fields->source) << 16 | LSR_NET16(fields->source_port);
	__u64 other =
		(__u64)LSR_NET32(fields->destination) << 16 | LSR_NET16(fields->destination_port);
	__u64 low = one < other ? one : other;
	__u64 high = one < other ? other : one;

	return mix(mix(low | (__u64)fields->protocol << 48) ^ high);
}

#endif
