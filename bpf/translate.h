/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Errors that routers send about a packet inside a chain quote it with its source route, which its
 * sender never wrote. They are translated back by the first agent that knows the path.
 */
#ifndef LSR_TRANSLATE_H
#define LSR_TRANSLATE_H

#include "answer.h"
#include "function.h"
#include "route.h"
#include "tag.h"

/* What an error begins with, behind its own IPv4 header. */
struct lsr_quoted_base {
	struct lsr_icmp_header icmp;
	struct iphdr ip;
};

struct lsr_quoted {
	struct lsr_icmp_header icmp;
	struct iphdr ip;
	__u8 options[LSR_OPTIONS_MAX];
};

enum {
	LSR_QUOTED_BASE = sizeof(struct lsr_quoted_base),
};

static __always_inline bool is_translatable(__u8 type)
{
	return type == LSR_ICMP_UNREACHABLE || type == LSR_ICMP_TIME_EXCEEDED ||
	       type == LSR_ICMP_PARAMETER_PROBLEM;
}

/* Reads an error about a packet with options; its header and, of the quoted one, the base header. */
static __always_inline bool read_quoted_base(struct __sk_buff *skb, const struct lsr_packet *packet,
					     struct lsr_quoted_base *quoted)
{
	return !load_bytes(skb, packet->header, quoted, sizeof(*quoted)) &&
	       is_translatable(quoted->icmp.type) && quoted->ip.version == 4 && quoted->ip.ihl > 6;
}

/* The quoted packet's options, as far as they tell its place in the table of predicted headers. */
LSR_STEP int read_quoted_options(struct __sk_buff *skb, __u32 at, __u32 end,
				 struct lsr_options *options)
{
	struct lsr_option_head head, next = {};

	if (!options || load_bytes(skb, at, &head, sizeof(head)))
		return false;
	if (head.type == LSR_OPTION_INTEGRITY && head.length == LSR_TAG_LENGTH) {
		options->tag = options->route_at = LSR_TAG_LENGTH;
		at += LSR_TAG_LENGTH;
		if (load_bytes(skb, at, &head, sizeof(head)))
			return false;
	}
	unmask_head(&head);
	if (!is_source_route(head.type) || !is_route_length(head.length) ||
	    !is_route_pointer(head.pointer, head.length) || at + head.length > end)
		return false;
	options->route_type = head.type;
	options->route_length = head.length;
	options->route_pointer = head.pointer;
	at += head.length;
	if (at + sizeof(next) <= end && load_bytes(skb, at, &next, sizeof(next)))
		return false;
	if (next.type == LSR_OPTION_RECORD_ROUTE || next.type == LSR_OPTION_MASKED_RECORD)
		options->record_length = next.length;
	return true;
}

/*
 * Whether the quoted packet is one of ours on its way to a hop, and where it goes in the end:
 * LSR_PASSED, 0 where nothing is known of it, LSR_DROP_ICMP_QUOTE where its tag says that it is none.
 */
LSR_STEP int find_quoted(struct __sk_buff *skb, const struct lsr_packet *packet, __be32 *final)
{
	struct lsr_quoted_base quoted;
	struct lsr_options options = {};
	struct lsr_packet sent = {};
	struct lsr_route route = {};
	const struct lsr_hop *hop;
	__u32 ip;

	if (!packet || !final || !read_quoted_base(skb, packet, &quoted))
		return 0;
	/* A router that honours source routes sends its error along the reversed one (RFC 1122 §3.2.2). */
	if (packet->header == LSR_BASE_HEADER && packet->destination != quoted.ip.saddr)
		return 0;
	ip = packet->header + sizeof(struct lsr_icmp_header);
	sent.header = ip + quoted.ip.ihl * 4U; /* as verify_tag() looks for ports there */
	if (!read_quoted_options(skb, ip + LSR_BASE_HEADER, sent.header, &options) ||
	    !read_hop_key(skb, ip, &options, &route))
		return 0;
	route.key.hop = quoted.ip.daddr;
	hop = bpf_map_lookup_elem(&hops, &route.key);
	if (!hop) { /* masked: the two have changed places */
		route.key.hop = route.final;
		route.final = quoted.ip.daddr;
		hop = bpf_map_lookup_elem(&hops, &route.key);
	}
	if (!hop)
		return 0;
	*final = route.final;
	if (!hop->binding)
		return LSR_PASSED;
	sent.source = quoted.ip.saddr;
	sent.protocol = quoted.ip.protocol;
	sent.fragment = LSR_NET16(quoted.ip.frag_off);
	return verify_tag(skb, &sent, ip + LSR_BASE_HEADER, hop, route.final) ? LSR_DROP_ICMP_QUOTE
									      : LSR_PASSED;
}

/* The quoted packet as its sender sent it, and what that means for its size. */
static __always_inline void restore(struct lsr_quoted *quoted, __u32 length, __be32 final)
{
	__u16 mtu = LSR_NET16(quoted->icmp.mtu);

	quoted->ip.ihl = LSR_BASE_HEADER / 4;
	quoted->ip.tot_len = LSR_NET16((__u16)(LSR_NET16(quoted->ip.tot_len) - length));
	quoted->ip.daddr = final;
	quoted->ip.check = 0;
	quoted->ip.check =
		~fold((__u32)bpf_csum_diff(NULL, 0, (void *)&quoted->ip, sizeof(quoted->ip), 0));
	quoted->icmp.unused = 0; /* the length of RFC 4884 no longer holds */
	if (quoted->icmp.type == LSR_ICMP_UNREACHABLE && quoted->icmp.code == LSR_ICMP_TOO_BIG &&
	    mtu > length)
		quoted->icmp.mtu = LSR_NET16((__u16)(mtu - length));
}

/* Takes the quoted options out; `after` is what stands before them then. */
static __always_inline enum lsr_reason shorten(struct __sk_buff *skb, struct lsr_packet *packet,
					       const struct lsr_quoted *after, __u32 length)
{
	struct iphdr header;

	if (bpf_skb_adjust_room(skb, -(__s32)length, BPF_ADJ_ROOM_NET,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return LSR_DROP_RESIZE;
	packet->length -= length;
	if (bpf_skb_store_bytes(skb, LSR_ETHERNET + LSR_BASE_HEADER, after, LSR_QUOTED_BASE,
				BPF_F_RECOMPUTE_CSUM) ||
	    load_bytes(skb, 0, &header, sizeof(header)))
		return LSR_DROP_RESIZE;
	header.tot_len = LSR_NET16((__u16)packet->length);
	if (store_bytes(skb, 0, &header, sizeof(header)))
		return LSR_DROP_RESIZE;
	return write_checksum(skb, LSR_BASE_HEADER);
}

/* Rewrites an error about one of our packets, whose final destination is known, for the packet's source. */
LSR_STEP int rewrite_error(struct __sk_buff *skb, struct lsr_packet *packet, __be32 final)
{
	struct lsr_quoted before = {}, after = {};
	enum lsr_reason reason;
	__u32 length, sum;

	if (!packet || load_bytes(skb, packet->header, &before, LSR_QUOTED_BASE))
		return LSR_DROP_SHORT;
	length = opaque(before.ip.ihl * 4U - LSR_BASE_HEADER);
	if (!lies_within(length, 8, sizeof(before.options)) ||
	    load_bytes(skb, packet->header + LSR_QUOTED_BASE, before.options, length))
		return LSR_DROP_SHORT;
	if (packet->header > LSR_BASE_HEADER) {
		reason = strip_options(skb, packet, before.ip.saddr);
		if (reason)
			return reason;
	}
	__builtin_memcpy(&after, &before, LSR_QUOTED_BASE);
	restore(&after, length, final);
	/* The sum moves by the difference, the rest of the quote stays what it was. */
	sum = (__u16)~before.icmp.checksum;
	before.icmp.checksum = after.icmp.checksum = 0;
	sum = bpf_csum_diff((void *)&before, sizeof(before), (void *)&after, LSR_QUOTED_BASE, sum);
	after.icmp.checksum = ~fold(sum);
	reason = shorten(skb, packet, &after, length);
	if (reason)
		return reason;
	note(packet, LSR_NOTE_ICMP_TRANSLATED);
	return LSR_PASSED;
}

/*
 * Whether an error is sound itself; else it goes the way of all packets, which is to be dropped. One with options is
 * to have come to this node along the reversed route, and to carry nothing that must not be stripped.
 */
LSR_STEP int is_sound(struct __sk_buff *skb, const struct lsr_packet *packet)
{
	const struct lsr_state *current;
	struct lsr_options options = {};
	__u32 zero = 0;

	if (!packet || !verify_checksum(skb, packet->header) || check_source(packet))
		return false;
	if (packet->header == LSR_BASE_HEADER)
		return true;
	current = bpf_map_lookup_elem(&state, &zero);
	if (!current || packet->destination != current->address ||
	    scan_options(skb, packet->header, &options))
		return false;
	return (options.seen & LSR_SEEN_ROUTE) &&
	       !(options.seen & (LSR_SEEN_FORBIDDEN | LSR_SEEN_UNKNOWN | LSR_SEEN_TAG));
}

/*
 * Translates an ICMP error about a packet of a path that is known here, and sends it on to the
 * packet's source through the stack. 0: it is none.
 */
LSR_STEP int translate_error(struct __sk_buff *skb, struct lsr_packet *packet)
{
	enum lsr_reason reason;
	__be32 final = 0;

	if (!packet || is_fragment(packet))
		return 0;
	reason = find_quoted(skb, packet, &final);
	if (reason != LSR_PASSED)
		return reason;
	return is_sound(skb, packet) ? rewrite_error(skb, packet, final) : 0;
}

#endif
