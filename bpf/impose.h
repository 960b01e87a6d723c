/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The edge: classify a plain packet, and write its chain's source route into it. */
#ifndef LSR_IMPOSE_H
#define LSR_IMPOSE_H

#include "classify.h"
#include "draft.h"
#include "slice.h"
#include "tag.h"

/*
 * Makes room for the options. GSO segments keep their size where they fit with them, so that a
 * clamped TCP flow is not cut a second time; else the kernel lowers gso_size. It can do so for TCP,
 * inside a tunnel too, and then returns 0 (net/core/filter.c, bpf_skb_net_grow); segments of UDP have
 * to fit as they are. `size` is that of fragments, see choose_size().
 */
static __always_inline enum lsr_reason make_room(struct __sk_buff *skb, struct lsr_packet *packet,
						 const struct lsr_path *path,
						 const struct lsr_exit *way, __u32 *size)
{
	__u32 limit = way->mtu < path->mtu ? way->mtu : path->mtu;
	__u32 longest = measure(skb, packet);
	bool grown = longest + path->length <= limit;
	__u64 flags = BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	enum lsr_reason reason;

	*size = 0;
	if (skb->gso_size && longest <= limit && !(grown && packet->protocol == IPPROTO_TCP) &&
	    !bpf_skb_adjust_room(skb, path->length, BPF_ADJ_ROOM_NET, flags))
		return 0;
	reason = choose_size(skb, packet, longest + path->length, limit, path->length, way->index,
			     size);
	if (reason)
		return reason;
	if (skb->gso_size)
		flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
	if (bpf_skb_adjust_room(skb, path->length, BPF_ADJ_ROOM_NET, flags))
		return LSR_DROP_RESIZE;
	return 0;
}

/* The draft of a header with this path's options, for a packet that has made room for them. */
static __always_inline void draft_route(struct lsr_draft *begun, struct lsr_packet *packet,
					const struct lsr_path *path)
{
	struct iphdr *header = (struct iphdr *)begun->bytes;

	packet->header = LSR_BASE_HEADER + path->length;
	packet->length += path->length;
	header->ihl = packet->header / 4;
	if (header->tot_len) /* 0: BIG TCP */
		header->tot_len = LSR_NET16((__u16)packet->length);
	header->ttl -= packet->stage == LSR_ARRIVED; /* else the stack has seen to it */
	header->daddr = path->first;
	__builtin_memcpy(begun->bytes + LSR_BASE_HEADER, path->options, sizeof(path->options));
	put_address(begun, LSR_BASE_HEADER + path->destination, packet->destination);
}

static __always_inline enum lsr_reason write_route(struct __sk_buff *skb, struct lsr_packet *packet,
						   const struct lsr_path *path, __u32 number,
						   __u32 chain)
{
	struct lsr_draft *begun;
	enum lsr_reason reason;

	if (path->length < 8 || path->length > LSR_OPTIONS_MAX)
		return LSR_DROP_NO_CHAIN;
	begun = begin_draft(skb, LSR_BASE_HEADER);
	if (!begun)
		return LSR_DROP_RESIZE;
	draft_route(begun, packet, path);
	reason = send_draft(skb, begun, packet->header);
	if (reason || !(path->binding || (path->record && is_later_fragment(packet))))
		return reason;
	if (path->record && is_later_fragment(packet) &&
	    blank_record(skb, LSR_BASE_HEADER + path->destination + sizeof(packet->destination),
			 path->record))
		return LSR_DROP_RESIZE;
	reason = path->binding ? sign(skb, packet, number, path->binding, chain) : 0;
	return reason ? reason : write_checksum(skb, packet->header);
}

/* What the stack would have looked at, had it seen the packet. */
static __always_inline enum lsr_reason check_arrived(struct __sk_buff *skb,
						     struct lsr_packet *packet)
{
	if (!verify_checksum(skb, packet->header))
		return LSR_DROP_CHECKSUM;
	if (is_martian(packet->source))
		return LSR_DROP_SOURCE_MARTIAN;
	if (packet->ttl <= 1)
		return refuse(packet, LSR_DROP_TTL, LSR_ICMP_TIME_EXCEEDED, 0);
	return 0;
}

LSR_STEP int impose(struct __sk_buff *skb, struct lsr_packet *packet, __u32 number, __u32 chain)
{
	const struct lsr_path *path = bpf_map_lookup_elem(&paths, &number);
	struct lsr_exit way;
	enum lsr_reason reason;
	__u32 size;

	if (!packet || !path)
		return LSR_DROP_NO_CHAIN;
	if (packet->header != LSR_BASE_HEADER)
		return LSR_DROP_HAS_OPTIONS;
	reason = packet->stage == LSR_ARRIVED ? check_arrived(skb, packet) : 0;
	if (reason)
		return reason;
	reason = find_exit(skb, packet, path->first, path->strict, &way);
	if (reason)
		return reason;
	reason = make_room(skb, packet, path, &way, &size);
	if (reason)
		return reason;
	reason = write_route(skb, packet, path, number, chain);
	if (reason)
		return reason;
	reason = depart(skb, packet, size, &way);
	return reason ? reason : LSR_IMPOSED;
}

/*
 * While a node is drained, a TCP connection that begins takes its new path at once, and is remembered; what was there
 * before stays until the drain ends, and so does all that has no beginning to be seen.
 */
LSR_STEP int settle_path(struct __sk_buff *skb, const struct lsr_packet *packet,
			 const struct lsr_fields *fields, struct lsr_chain *chain)
{
	__u32 known = 1;
	__u8 flags = 0;
	__u64 flow;

	if (!packet || !fields || !chain || !chain->before || chain->before == chain->path)
		return 0;
	flow = hash_flow(fields);
	if (packet->protocol == IPPROTO_TCP && !is_fragment(packet) &&
	    !load_bytes(skb, packet->header + LSR_TCP_FLAGS, &flags, sizeof(flags)) &&
	    (flags & (LSR_TCP_SYN | LSR_TCP_ACK)) == LSR_TCP_SYN)
		bpf_map_update_elem(&moved, &flow, &known, BPF_ANY);
	if (!bpf_map_lookup_elem(&moved, &flow))
		chain->path = chain->before;
	return 0;
}

/* Sends a packet whose segment of a chain has ended here down the next one. */
LSR_STEP int begin_segment(struct __sk_buff *skb, struct lsr_packet *packet)
{
	struct lsr_fields fields = {};
	struct lsr_chain chain = {};
	enum lsr_reason reason;

	if (!packet)
		return LSR_DROP_SHORT;
	read_fields(skb, packet, &fields);
	packet->path = 0;
	reason = read_chain(&fields, packet->chain, &chain);
	if (reason)
		return reason;
	settle_path(skb, packet, &fields, &chain);
	packet->path = chain.path;
	reason = impose(skb, packet, chain.path, chain.number);
	if (reason == LSR_IMPOSED)
		note(packet, LSR_NOTE_SEGMENT);
	return reason;
}

/*
 * Classifies a packet and sends it down its chain. LSR_PASSED where no rule speaks of it, and for
 * an arriving packet that the stack will bring to a managed port: netfilter and conntrack of this
 * host see it first, and both directions of its connection. A port with `bypass` does without them.
 */
LSR_STEP int classify(struct __sk_buff *skb, struct lsr_packet *packet, __u32 origin)
{
	struct lsr_fields fields = {.origin = origin};
	struct lsr_chain chain = {};
	enum lsr_reason reason;

	if (!packet)
		return LSR_DROP_SHORT;
	if (is_martian(packet->destination) || find_owner(packet->destination) & LSR_OWNER_SELF)
		return LSR_PASSED;
	if (is_fragment(packet))
		fields.origin |= LSR_ORIGIN_FRAGMENT;
	read_fields(skb, packet, &fields);
	if (origin == LSR_ORIGIN_LOCAL)
		fields.cgroup = find_cgroup(skb);
	reason = choose_chain(&fields, has_ports(packet), &chain);
	packet->chain = chain.id;
	if (reason)
		return reason;
	settle_path(skb, packet, &fields, &chain);
	packet->path = chain.path;
	if (is_fragment(packet) && chain.fragments == LSR_FRAGMENTS_DROP)
		return LSR_DROP_FRAGMENT;
	if (packet->stage == LSR_ARRIVED && !packet->bypass && passes_port(skb, packet))
		return LSR_PASSED;
	return impose(skb, packet, chain.path, chain.number);
}

#endif
