/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Probes: whether a path carries packets, through all its functions. An agent's UDP datagram to the last node of a path
 * is sent down that path like any other packet; the program at the end turns it round, whether an agent runs there or not.
 */
#ifndef LSR_PROBE_H
#define LSR_PROBE_H

#include "leave.h"
#include "strip.h"
#include <linux/udp.h>
#include <stddef.h>

enum {
	LSR_PROBE_TTL = 64,
};

/* Whether a packet is a probe, and which. */
LSR_STEP int read_probe(struct __sk_buff *skb, const struct lsr_packet *packet,
			struct lsr_probe *probe)
{
	struct udphdr udp;

	if (!packet || !probe || packet->protocol != IPPROTO_UDP || is_fragment(packet))
		return false;
	if (load_bytes(skb, packet->header, &udp, sizeof(udp)) ||
	    udp.dest != LSR_NET16(LSR_PROBE_PORT) ||
	    load_bytes(skb, packet->header + sizeof(udp), probe, sizeof(*probe)))
		return false;
	return probe->magic == LSR_NET32(LSR_PROBE_MAGIC);
}

/*
 * Tells whether a packet that is at hop `position` of its path is a probe, and one for this hop. Only nodes of the mesh
 * send any, so nobody else is answered.
 */
LSR_STEP int recognise(struct __sk_buff *skb, struct lsr_packet *packet, __u32 position)
{
	struct lsr_probe probe = {};

	if (!packet || !read_probe(skb, packet, &probe) ||
	    !(find_owner(packet->source) & LSR_OWNER_MESH))
		return 0;
	packet->path = 0;
	packet->turn = LSR_TURN_END;
	if (LSR_NET16(probe.turn) == position && LSR_NET16(probe.place) < LSR_TURN_END)
		packet->turn = LSR_NET16(probe.place);
	return 0;
}

/* Addresses and ports change places, which leaves the UDP checksum as it is. */
static __always_inline enum lsr_reason swap_ends(struct __sk_buff *skb, struct lsr_packet *packet)
{
	struct iphdr header;
	__be16 ports[2], swapped[2];

	if (load_bytes(skb, 0, &header, sizeof(header)) ||
	    load_bytes(skb, LSR_BASE_HEADER, ports, sizeof(ports)))
		return LSR_DROP_SHORT;
	header.daddr = packet->source;
	header.saddr = packet->destination;
	header.ttl = LSR_PROBE_TTL;
	swapped[0] = ports[1];
	swapped[1] = ports[0];
	if (store_bytes(skb, 0, &header, sizeof(header)) ||
	    store_bytes(skb, LSR_BASE_HEADER, swapped, sizeof(swapped)))
		return LSR_DROP_RESIZE;
	packet->source = header.saddr;
	packet->destination = header.daddr;
	return write_checksum(skb, LSR_BASE_HEADER);
}

/* Answers a probe whose path ends here, or that asks for this hop. */
LSR_STEP int answer_probe(struct __sk_buff *skb, struct lsr_packet *packet)
{
	struct lsr_exit way;
	enum lsr_reason reason;
	__be32 final;

	if (!packet || !read_final(skb, &final))
		return LSR_DROP_SHORT;
	reason = strip_options(skb, packet, packet->destination);
	if (reason)
		return reason;
	/* It was made for the end, and now comes from this hop. */
	bpf_l4_csum_replace(skb, LSR_ETHERNET + LSR_BASE_HEADER + offsetof(struct udphdr, check),
			    final, packet->destination,
			    BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | sizeof(final));
	reason = swap_ends(skb, packet);
	if (!reason)
		reason = find_exit(skb, packet, packet->destination, false, &way);
	if (reason)
		return reason;
	leave(skb, packet, &way);
	return LSR_PROBED;
}

#endif
