/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * SipHash-2-4 (Aumasson and Bernstein, 2012) of exactly 32 bytes. Plain C, also compiled for user
 * space: tests/unit/siphash.test.ts compares it with the published vectors.
 */
#ifndef LSR_SIPHASH_H
#define LSR_SIPHASH_H

#include "parse.h"

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LSR_LITTLE64(value) (value)
#define LSR_NET64(value)    __builtin_bswap64(value)
#else
#define LSR_LITTLE64(value) __builtin_bswap64(value)
#define LSR_NET64(value)    (value)
#endif

enum {
	LSR_COVERED_WORDS = 4,
};

struct lsr_sip {
	__u64 v0, v1, v2, v3;
};

static __always_inline __u64 rotate(__u64 value, __u32 bits)
{
	return value << bits | value >> (64 - bits);
}

static __always_inline void sip_round(struct lsr_sip *sip)
{
	sip->v0 += sip->v1;
	sip->v1 = rotate(sip->v1, 13) ^ sip->v0;
	sip->v0 = rotate(sip->v0, 32);
	sip->v2 += sip->v3;
	sip->v3 = rotate(sip->v3, 16) ^ sip->v2;
	sip->v0 += sip->v3;
	sip->v3 = rotate(sip->v3, 21) ^ sip->v0;
	sip->v2 += sip->v1;
	sip->v1 = rotate(sip->v1, 17) ^ sip->v2;
	sip->v2 = rotate(sip->v2, 32);
}

static __always_inline void sip_absorb(struct lsr_sip *sip, __u64 word)
{
	sip->v3 ^= word;
	sip_round(sip);
	sip_round(sip);
	sip->v0 ^= word;
}

/* `word` as the bytes lie in memory; the result is the number whose little-endian bytes are the tag. */
static __always_inline __u64 siphash(__u64 low, __u64 high, const __u64 word[LSR_COVERED_WORDS])
{
	struct lsr_sip sip = {
		.v0 = low ^ 0x736f6d6570736575ULL,
		.v1 = high ^ 0x646f72616e646f6dULL,
		.v2 = low ^ 0x6c7967656e657261ULL,
		.v3 = high ^ 0x7465646279746573ULL,
	};

#pragma clang loop unroll(full)
	for (__u32 i = 0; i < LSR_COVERED_WORDS; i++)
		sip_absorb(&sip, LSR_LITTLE64(word[i]));
	sip_absorb(&sip, 8ULL * LSR_COVERED_WORDS << 56);
	sip.v2 ^= 0xff;
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < 4; i++)
		sip_round(&sip);
	return sip.v0 ^ sip.v1 ^ sip.v2 ^ sip.v3;
}

#endif
