/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The agent's own ICMP errors. They quote the packet as its sender knows it, to the final
 * destination and without options: otherwise its stack would not find the socket.
 */
#ifndef LSR_ANSWER_H
#define LSR_ANSWER_H

#include "leave.h"
#include "strip.h"

enum {
	LSR_CONTROL_TOS = 0xc0, /* internetwork control, RFC 1812 §4.3.2.5 */
	LSR_ICMP_TTL = 64,
};

/* RFC 1191 §4. <linux/icmp.h> drags in headers of the C library. */
struct lsr_icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 unused;
	__be16 mtu;
};

struct lsr_error {
	struct iphdr ip;
	struct lsr_icmp_header icmp;
};

static __always_inline bool is_error_type(__u8 type)
{
	return type == LSR_ICMP_UNREACHABLE || type == LSR_ICMP_SOURCE_QUENCH ||
	       type == LSR_ICMP_REDIRECT || type == LSR_ICMP_TIME_EXCEEDED ||
	       type == LSR_ICMP_PARAMETER_PROBLEM;
}

static __always_inline bool is_allowed(const struct lsr_packet *packet)
{
	if (packet->icmp == LSR_ICMP_PMTU)
		return packet->type == LSR_ICMP_UNREACHABLE && packet->code == LSR_ICMP_TOO_BIG;
	return packet->icmp == LSR_ICMP_ALL;
}

/* RFC 1122 §3.2.2: never about an ICMP error, a later fragment, or a source that is no host. */
static __always_inline bool may_answer(struct __sk_buff *skb, const struct lsr_packet *packet)
{
	__u8 type;

	if (!is_allowed(packet) || is_later_fragment(packet) || is_martian(packet->source))
		return false;
	if (packet->stage == LSR_ARRIVED && find_owner(packet->source) & LSR_OWNER_SELF)
		return false;
	if (packet->protocol != IPPROTO_ICMP)
		return true;
	return !load_bytes(skb, packet->header, &type, sizeof(type)) && !is_error_type(type);
}

/* The sum of a pseudo header, not inverted: what stands for a checksum that is still to be made. */
static __always_inline __u16 sum_pseudo_header(const struct lsr_packet *packet, __be32 final)
{
	__u64 sum = packet->source;

	sum += final;
	sum += LSR_NET16(packet->protocol);
	sum += LSR_NET16((__u16)(packet->length - packet->header));
	return fold(sum);
}

/*
 * Whether the L4 checksum is left to the device (CHECKSUM_PARTIAL), as with a packet that never
 * was on a wire: its field then holds the pseudo header's sum. `checksum` is that field.
 */
static __always_inline bool is_partial(struct __sk_buff *skb, const struct lsr_packet *packet,
				       __be32 final, __u16 *checksum)
{
	__u32 at = packet->protocol == IPPROTO_TCP ? 16 : 6;

	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
		return false;
	if (is_fragment(packet) ||
	    load_bytes(skb, packet->header + at, checksum, sizeof(*checksum)))
		return false;
	return *checksum == sum_pseudo_header(packet, final);
}

/*
 * The sum of the first `length` bytes of the packet, a multiple of 4. Where the device will make
 * the L4 checksum, L4 as a whole will sum to the pseudo header's complement
 * (Documentation/networking/checksum-offloads.rst, "LCO").
 */
LSR_STEP int sum_quote(struct __sk_buff *skb, const struct lsr_packet *packet, __u32 length)
{
	__u32 zero = 0;
	struct lsr_quote *buffer = bpf_map_lookup_elem(&quote, &zero);
	__u16 checksum;
	__s64 sum;

	if (!packet || !buffer)
		return 0;
	length = opaque(length);
	if (!lies_within(length, LSR_BASE_HEADER, sizeof(buffer->bytes)))
		return 0;
	if (load_bytes(skb, 0, buffer->bytes, length))
		return 0;
	if (is_partial(skb, packet, packet->destination, &checksum)) {
		sum = bpf_csum_diff(NULL, 0, (void *)buffer->bytes, LSR_BASE_HEADER, 0);
		return fold((__u32)sum + (__u64)(__u16)~checksum);
	}
	sum = bpf_csum_diff(NULL, 0, (void *)buffer->bytes, length, 0);
	return fold((__u32)sum);
}

/* Whether this host's stack is to have the error: for a socket of its own, or for its NAT. */
static __always_inline bool is_own(const struct lsr_packet *packet)
{
	return packet->stage == LSR_LOCAL || find_owner(packet->source) & LSR_OWNER_SELF;
}

/* The address that the error comes from. */
static __always_inline __be32 find_own_address(const struct lsr_packet *packet)
{
	const struct lsr_interface *port;
	const struct lsr_state *current;
	__u32 zero = 0;

	/* From an address of its own the stack would take nothing (a martian). The kernel's
	 * tunnels do the same: net/ipv4/ip_tunnel_core.c, iptunnel_pmtud_build_icmp.
	 */
	if (is_own(packet))
		return packet->destination;
	port = find_interface(packet->input);
	if (port && port->address)
		return port->address;
	current = bpf_map_lookup_elem(&state, &zero);
	return current ? current->address : 0;
}

/* Turns the packet into an error about itself. */
LSR_STEP int write_error(struct __sk_buff *skb, const struct lsr_packet *packet, __be32 from)
{
	struct lsr_error error = {};
	__u32 length;
	__u64 sum;

	if (!packet)
		return false;
	length = packet->length < LSR_QUOTE_MAX ? packet->length & ~3U : LSR_QUOTE_MAX;
	error.ip.version = 4;
	error.ip.ihl = LSR_BASE_HEADER / 4;
	error.ip.tos = LSR_CONTROL_TOS;
	error.ip.tot_len = LSR_NET16((__u16)(sizeof(error) + length));
	error.ip.frag_off = LSR_NET16(LSR_DONT_FRAGMENT);
	error.ip.ttl = LSR_ICMP_TTL;
	error.ip.protocol = IPPROTO_ICMP;
	error.ip.saddr = from;
	error.ip.daddr = packet->source;
	error.ip.check =
		~fold((__u32)bpf_csum_diff(NULL, 0, (void *)&error.ip, sizeof(error.ip), 0));
	error.icmp.type = packet->type;
	error.icmp.code = packet->code;
	error.icmp.mtu = LSR_NET16(packet->mtu);
	sum = (__u32)bpf_csum_diff(NULL, 0, (void *)&error.icmp, sizeof(error.icmp), 0);
	error.icmp.checksum = ~fold(sum + sum_quote(skb, packet, length));

	if (bpf_skb_change_tail(skb, LSR_ETHERNET + length, 0))
		return false;
	if (bpf_skb_adjust_room(skb, sizeof(error), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return false;
	return !bpf_skb_store_bytes(skb, LSR_ETHERNET, &error, sizeof(error), BPF_F_RECOMPUTE_CSUM);
}

/* Up this host's own stack, as if it had come in where it was to leave. */
static __always_inline bool send_up(struct __sk_buff *skb)
{
	__u8 macs[12], swapped[12];

	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)))
		return false;
	__builtin_memcpy(swapped, macs + 6, 6);
	__builtin_memcpy(swapped + 6, macs, 6);
	if (bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0))
		return false;
	bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	return true;
}

static __always_inline bool send_error(struct __sk_buff *skb, const struct lsr_packet *packet,
				       __be32 from)
{
	struct lsr_exit way;

	if (is_own(packet))
		return send_up(skb);
	if (!find_route(skb, packet, from, packet->source, &way))
		return false;
	send_on(skb, packet, &way);
	return true;
}

/* Sends the error that refuse() asked for, in place of the packet; false where it must not be. */
LSR_STEP int answer(struct __sk_buff *skb, struct lsr_packet *packet)
{
	__be32 from, final;

	if (!packet || !may_answer(skb, packet))
		return false;
	if (!take_token(LSR_BUCKET_ICMP, LSR_ICMP_PER_SECOND, LSR_ICMP_BURST)) {
		note(packet, LSR_NOTE_ICMP_LIMITED);
		return false;
	}
	if (packet->header > LSR_BASE_HEADER &&
	    (!read_final(skb, &final) || strip_options(skb, packet, final)))
		return false;
	from = find_own_address(packet);
	if (!from || !write_error(skb, packet, from) || !send_error(skb, packet, from))
		return false;
	note(packet, LSR_NOTE_ICMP_SENT);
	return true;
}

#endif
