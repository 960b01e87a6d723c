/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The peer's SYN on its way back names the largest segment that the chained direction may send:
 * lower it so that full-size segments leave room for the options (RFC 9293 §3.7.1).
 */
#ifndef LSR_CLAMP_H
#define LSR_CLAMP_H

#include "classify.h"
#include <linux/tcp.h>

enum {
	LSR_TCP_MSS = 2, /* option kind */
	LSR_TCP_MSS_LENGTH = 4,
	LSR_TCP_BASE = 20,
	LSR_TCP_MAX = 60,
	LSR_TCP_CHECKSUM = 16, /* offset */
};

/* Where the option behind the one at `at` begins; 0 at the end, `at` itself for an MSS. */
LSR_STEP int skip_tcp_option(struct __sk_buff *skb, __u32 at)
{
	__u8 option[2];

	if (load_bytes(skb, at, option, sizeof(option)) || option[0] == 0)
		return 0;
	if (option[0] == 1)
		return at + 1;
	if (option[1] < 2)
		return 0;
	if (option[0] == LSR_TCP_MSS)
		return option[1] == LSR_TCP_MSS_LENGTH ? at : 0;
	return at + option[1];
}

struct lsr_mss_search {
	struct __sk_buff *skb;
	__u32 at; /* the option to look at, then the value */
	__u32 end;
	__u32 found;
	__u32 unused;
};

static long search_mss(__u32 step __attribute__((unused)), struct lsr_mss_search *search)
{
	__u32 next;

	if (search->at + LSR_TCP_MSS_LENGTH > search->end)
		return 1;
	next = skip_tcp_option(search->skb, search->at);
	search->found = next && next == search->at;
	search->at = next;
	return !next || search->found;
}

/* Where the MSS value of a SYN is, 0 where it has none. */
LSR_STEP int find_mss(struct __sk_buff *skb, __u32 tcp)
{
	struct lsr_mss_search search = {.skb = skb, .at = tcp + LSR_TCP_BASE};
	__u8 offset;

	if (load_bytes(skb, tcp + 12, &offset, sizeof(offset)))
		return 0;
	search.end = tcp + (offset >> 4) * 4;
	bpf_loop(LSR_TCP_MAX - LSR_TCP_BASE, search_mss, &search, 0);
	return search.found ? search.at + 2 : 0;
}

LSR_STEP int lower_mss(struct __sk_buff *skb, __u32 tcp, __u32 most)
{
	__u32 at = find_mss(skb, tcp);
	__be16 wanted = LSR_NET16(most);
	__be16 present;

	if (!at || load_bytes(skb, at, &present, sizeof(present)))
		return false;
	if (LSR_NET16(present) <= most)
		return false;
	if ((at - tcp) & 1) { /* the sum counts the value's bytes in the other order */
		__be16 from = __builtin_bswap16(present);
		__be16 to = __builtin_bswap16(wanted);

		bpf_l4_csum_replace(skb, LSR_ETHERNET + tcp + LSR_TCP_CHECKSUM, from, to,
				    sizeof(to));
	} else {
		bpf_l4_csum_replace(skb, LSR_ETHERNET + tcp + LSR_TCP_CHECKSUM, present, wanted,
				    sizeof(wanted));
	}
	bpf_skb_store_bytes(skb, LSR_ETHERNET + at, &wanted, sizeof(wanted), BPF_F_RECOMPUTE_CSUM);
	return true;
}

static __always_inline bool is_syn(struct __sk_buff *skb, const struct lsr_packet *packet)
{
	__u8 flags;

	if (packet->protocol != IPPROTO_TCP || is_fragment(packet))
		return false;
	if (load_bytes(skb, packet->header + LSR_TCP_FLAGS, &flags, sizeof(flags)))
		return false;
	return flags & LSR_TCP_SYN;
}

/* The chain of these fields, wherever the packets come from; false where there is none. */
static __always_inline bool choose_any(struct lsr_fields *fields, struct lsr_chain *chain)
{
	fields->origin = LSR_ORIGIN_EDGE;
	if (!choose_chain(fields, true, chain))
		return true;
	fields->origin = LSR_ORIGIN_LOCAL;
	if (!choose_chain(fields, true, chain))
		return true;
	fields->origin = LSR_ORIGIN_MESH;
	return !choose_chain(fields, true, chain);
}

/* Lowers the MSS of a SYN whose opposite direction takes a chain here. */
LSR_STEP int clamp_mss(struct __sk_buff *skb, struct lsr_packet *packet)
{
	const struct lsr_path *path;
	struct lsr_fields there = {}, back = {};
	struct lsr_chain chain = {};
	__u32 most;

	if (!packet || !is_syn(skb, packet))
		return 0;
	read_fields(skb, packet, &there);
	back = there;
	back.source = there.destination;
	back.destination = there.source;
	back.source_port = there.destination_port;
	back.destination_port = there.source_port;
	if (!choose_any(&back, &chain))
		return 0;
	path = bpf_map_lookup_elem(&paths, &chain.path);
	if (!path)
		return 0;
	most = path->mtu - path->length - LSR_BASE_HEADER - LSR_TCP_BASE;
	if (most < 0xffff && lower_mss(skb, packet->header, most))
		note(packet, LSR_NOTE_MSS_CLAMPED);
	return 0;
}

#endif
