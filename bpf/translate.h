/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Errors that routers send about a packet inside a chain quote it with its source route, which its
 * sender never wrote. They are translated back by the first agent that knows the path.
 */
#ifndef LSR_TRANSLATE_H
#define LSR_TRANSLATE_H

#include "answer.h"
#include "route.h"

/* What an error begins with, behind its own IPv4 header. */
struct lsr_quoted {
	struct lsr_icmp_header icmp;
	struct iphdr ip;
	__u8 options[LSR_OPTIONS_MAX];
};

enum {
	LSR_QUOTED_BASE = sizeof(struct lsr_icmp_header) + LSR_BASE_HEADER,
};

static __always_inline bool is_translatable(__u8 type)
{
	return type == LSR_ICMP_UNREACHABLE || type == LSR_ICMP_TIME_EXCEEDED ||
	       type == LSR_ICMP_PARAMETER_PROBLEM;
}

/* Reads an error about a packet that begins its options with a source route. */
static __always_inline bool read_quoted(struct __sk_buff *skb, const struct lsr_packet *packet,
					struct lsr_quoted *quoted)
{
	__u32 length;

	if (load_bytes(skb, packet->header, quoted, LSR_QUOTED_BASE))
		return false;
	if (!is_translatable(quoted->icmp.type) || quoted->ip.version != 4)
		return false;
	length = opaque(quoted->ip.ihl * 4U - LSR_BASE_HEADER);
	if (length < 8 || length > sizeof(quoted->options))
		return false;
	if (load_bytes(skb, packet->header + LSR_QUOTED_BASE, quoted->options, length))
		return false;
	return is_source_route(quoted->options[0]) && is_route_length(quoted->options[1]) &&
	       quoted->options[1] <= length &&
	       is_route_pointer(quoted->options[2], quoted->options[1]);
}

/* Whether the quoted packet is in the table of predicted headers, on its way to a hop; and where it goes in the end. */
LSR_STEP int find_quoted(struct __sk_buff *skb, __u32 header, const struct lsr_quoted *quoted,
			 __be32 *final)
{
	__u32 ip = header + sizeof(struct lsr_icmp_header);
	struct lsr_option_head next = {};
	struct lsr_options options = {};
	struct lsr_route route = {};
	const struct lsr_hop *hop;

	if (!quoted || !final)
		return false;
	options.route_type = quoted->options[0];
	options.route_length = quoted->options[1];
	options.route_pointer = quoted->options[2];
	if (options.route_length + sizeof(next) <= quoted->ip.ihl * 4U - LSR_BASE_HEADER &&
	    load_bytes(skb, ip + LSR_BASE_HEADER + options.route_length, &next, sizeof(next)))
		return false;
	if (next.type == LSR_OPTION_RECORD_ROUTE)
		options.record_length = next.length;
	if (!read_hop_key(skb, ip, &options, &route))
		return false;
	*final = route.final;
	hop = bpf_map_lookup_elem(&hops, &route.key);
	return hop && hop->address == quoted->ip.daddr;
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

/*
 * Translates an ICMP error about a packet of a path that is known here, and sends it on to the
 * packet's source through the stack. 0: it is none.
 */
LSR_STEP int translate_error(struct __sk_buff *skb, struct lsr_packet *packet)
{
	struct lsr_quoted before = {}, after = {};
	enum lsr_reason reason;
	__u32 length, sum;
	__be32 final = 0;

	if (!packet || packet->protocol != IPPROTO_ICMP || is_fragment(packet) ||
	    !read_quoted(skb, packet, &before))
		return 0;
	if (!find_quoted(skb, packet->header, &before, &final))
		return 0;
	/* A router that honours source routes sends its error along the reversed one (RFC 1122 §3.2.2). */
	if (packet->header == LSR_BASE_HEADER && packet->destination != before.ip.saddr)
		return 0;
	if (packet->header > LSR_BASE_HEADER) {
		reason = strip_options(skb, packet, before.ip.saddr);
		if (reason)
			return reason;
	}
	length = before.ip.ihl * 4U - LSR_BASE_HEADER;
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

#endif
