/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * A hop: the source route must be, byte for byte, what the table predicts here. Then it advances
 * by one entry, or ends. RFC 791 §3.1, Loose and Strict Source and Record Route.
 */
#ifndef LSR_HOP_H
#define LSR_HOP_H

#include "audit.h"
#include "draft.h"
#include "function.h"
#include "probe.h"
#include "route.h"
#include "tag.h"
#include <linux/if_ether.h>
#include <stddef.h>

/* What is known of the entries on one side of the pointer, or of all of them at another hop. */
static __always_inline const struct lsr_hop *find_part(const struct lsr_route *route,
						       enum lsr_part part)
{
	struct lsr_hop_key key = route->key;
	__u32 passed = key.pointer / 4U - 1;

	key.part = part;
	key.hop = 0;
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < LSR_HOPS_KNOWN; i++) {
		if (part != LSR_PART_ROUTE && (i < passed) == (part == LSR_PART_AHEAD))
			key.route[i] = 0;
	}
	return bpf_map_lookup_elem(&hops, &key);
}

/* The same route without its tag, or with one, at any hop. */
static __always_inline const struct lsr_hop *find_other(const struct lsr_route *route)
{
	struct lsr_hop_key key = route->key;

	key.tag = key.tag ? 0 : LSR_TAG_LENGTH;
	key.part = LSR_PART_ROUTE;
	key.hop = 0;
	return bpf_map_lookup_elem(&hops, &key);
}

static __always_inline enum lsr_reason explain_entries(const struct lsr_packet *packet,
						       const struct lsr_route *route)
{
	__u32 count = (route->key.length - 3U) / 4 - 1;
	__u32 martian = 0, back = 0, loop = 0;

#pragma clang loop unroll(full)
	for (__u32 i = 0; i < LSR_HOPS_KNOWN; i++) {
		__be32 entry = route->key.route[i];

		if (i < count) {
			martian |= is_martian(entry);
			back |= equals(entry, packet->source);
			loop |= equals(entry, packet->destination);
#pragma clang loop unroll(full)
			for (__u32 j = 0; j < i; j++)
				loop |= equals(entry, route->key.route[j]);
		}
	}
	if (martian)
		return LSR_DROP_BAD_HOP;
	if (back)
		return LSR_DROP_REFLECT;
	return loop ? LSR_DROP_LOOP : 0;
}

/* Why a source route is in no table. */
LSR_STEP int explain_mismatch(const struct lsr_packet *packet, const struct lsr_route *route)
{
	enum lsr_reason reason;

	if (!packet || !route)
		return LSR_DROP_SHORT;
	reason = explain_entries(packet, route);
	if (reason)
		return reason;
	if (is_martian(route->final))
		return LSR_DROP_BAD_HOP;
	if (route->final == packet->source)
		return LSR_DROP_REFLECT;
	if (find_other(route))
		return route->key.tag ? LSR_DROP_UNKNOWN_OPTION : LSR_DROP_TAG_MISSING;
	if (find_part(route, LSR_PART_AHEAD))
		return LSR_DROP_RECORD_MISMATCH;
	if (find_part(route, LSR_PART_RECORDED))
		return LSR_DROP_ROUTE_MISMATCH;
	return LSR_DROP_UNKNOWN_PATH;
}

static __always_inline void read_record_route(struct __sk_buff *skb,
					      const struct lsr_options *options,
					      struct lsr_flow_key *key)
{
	__u32 bytes = opaque(options->record_pointer - 4U);

	if (!lies_within(bytes, sizeof(*key->record), sizeof(key->record))) /* or there is none */
		return;
	if (load_bytes(skb, LSR_BASE_HEADER + options->record_at + 3, key->record, bytes))
		return;
	key->recorded = bytes / sizeof(*key->record);
}

/* Whether Record Route names anybody but the hops of the path. */
static __always_inline bool is_detour(const struct lsr_flow_key *flow)
{
	struct lsr_recorder recorder = {.path = flow->path};

#pragma clang loop unroll(full)
	for (__u32 i = 0; i < LSR_RECORD_MAX; i++) {
		recorder.address = flow->record[i];
		if (i < flow->recorded && !bpf_map_lookup_elem(&recorders, &recorder))
			return true;
	}
	return false;
}

/* Writes an address into the next free Record Route slot. */
static __always_inline void write_record(struct lsr_draft *begun, struct lsr_packet *packet,
					 const struct lsr_options *options, __be32 address)
{
	__u32 record = LSR_BASE_HEADER + options->record_at;

	if (!options->record_at)
		return;
	if (options->record_pointer > options->record_length) {
		note(packet, LSR_NOTE_RECORD_FULL);
		return;
	}
	put_address(begun, record + options->record_pointer - 1, address);
	put_byte(begun, record + 2, options->record_pointer + 4);
}

/* Swaps this node's address for the entry at the pointer, and moves the pointer behind it. */
static __always_inline void write_advance(struct lsr_draft *begun, const struct lsr_packet *packet,
					  const struct lsr_options *options, __be32 next)
{
	__u32 route = LSR_BASE_HEADER + options->route_at;

	put_address(begun, route + options->route_pointer - 1, packet->destination);
	put_byte(begun, route + 2, options->route_pointer + 4);
	put_address(begun, LSR_DESTINATION_AT, next);
}

/* Sends the packet on to `next`; `advance` is set at a hop, not on the way to one. */
LSR_STEP int forward(struct __sk_buff *skb, struct lsr_packet *packet,
		     const struct lsr_options *options, __be32 next, __u32 advance)
{
	struct lsr_exit way;
	enum lsr_reason reason;
	struct lsr_draft *begun;
	bool strict;
	__u32 size;

	if (!packet || !options)
		return LSR_DROP_SHORT;
	if (advance && packet->turn == LSR_TURN_BEHIND)
		return LSR_PROBED;
	if (packet->stage == LSR_ARRIVED && packet->ttl <= 1)
		return refuse(packet, LSR_DROP_TTL, LSR_ICMP_TIME_EXCEEDED, 0);
	strict = advance && options->route_type == LSR_OPTION_STRICT;
	reason = find_exit(skb, packet, next, strict, &way);
	if (reason)
		return reason;
	reason = choose_size(skb, packet, measure(skb, packet), way.mtu,
			     packet->header - LSR_BASE_HEADER, way.index, &size);
	if (reason)
		return reason;
	begun = begin_draft(skb, packet->header);
	if (!begun)
		return LSR_DROP_SHORT;
	if (advance)
		write_advance(begun, packet, options, next);
	write_record(begun, packet, options, way.interface->address);
	if (packet->stage == LSR_ARRIVED) /* else the stack has seen to it */
		put_byte(begun, LSR_TTL_AT, packet->ttl - 1);
	reason = send_draft(skb, begun, packet->header);
	if (reason)
		return reason;
	reason = depart(skb, packet, size, &way);
	if (reason)
		return reason;
	return advance ? LSR_ADVANCED : LSR_FORWARDED;
}

/* The number of the chain in a tag; 0 without one. */
static __always_inline __u32 read_chain_number(struct __sk_buff *skb,
					       const struct lsr_options *options)
{
	__be16 number;

	if (!options->tag || load_bytes(skb, LSR_BASE_HEADER + offsetof(struct lsr_tag, number),
					&number, sizeof(number)))
		return 0;
	return LSR_NET16(number) & LSR_CHAIN_MAX;
}

LSR_STEP int end_chain(struct __sk_buff *skb, struct lsr_packet *packet,
		       const struct lsr_options *options, __be32 destination, __u32 path)
{
	struct lsr_destination_key key = {
		.prefix_length = 96,
		.path = path,
		.destination = destination,
	};
	const struct lsr_destination *allowed;
	struct lsr_flow_key flow = {};
	enum lsr_reason reason;

	if (!packet || !options)
		return LSR_DROP_SHORT;
	if (destination == packet->destination && packet->turn)
		return LSR_PROBED; /* and answered by enter() */
	key.number = read_chain_number(skb, options);
	allowed = bpf_map_lookup_elem(&destinations, &key);
	if (allowed)
		packet->chain = allowed->chain;
	if (!allowed || is_martian(destination))
		return LSR_DROP_DESTINATION;
	if (!packet->ttl)
		return LSR_DROP_TTL;
	read_flow(skb, packet, destination, &flow);
	flow.reason = LSR_ENDED;
	flow.path = path;
	flow.chain = allowed->chain;
	flow.generation = allowed->generation;
	read_record_route(skb, options, &flow);
	if (allowed->complete && is_detour(&flow)) {
		flow.reason = LSR_DROP_DETOUR;
		record_deviation(skb, packet, &flow);
		return LSR_DROP_DETOUR;
	}
	record_end(skb, packet, &flow);
	reason = strip_options(skb, packet, destination);
	if (reason)
		return reason;
	skb->tc_index = LSR_ENDED_MARK;
	count_traffic(skb, packet, LSR_ENDED);
	packet->chain = allowed->onward;
	return LSR_ENDED;
}

/* Records a source route that is not as predicted; `reason` 0 asks for an explanation. */
LSR_STEP int deviate(struct __sk_buff *skb, struct lsr_packet *packet,
		     const struct lsr_route *route, __u32 path, __u32 reason)
{
	struct lsr_flow_key flow = {};

	if (!packet || !route)
		return LSR_DROP_SHORT;
	read_flow(skb, packet, route->final, &flow);
	flow.reason = reason ? reason : explain_mismatch(packet, route);
	flow.path = path;
	packet->path = path;
	record_deviation(skb, packet, &flow);
	return flow.reason;
}

/* Whether the frame came from where this host would send to the hop before (RFC 3704 §2.2). */
LSR_STEP int came_from(struct __sk_buff *skb, __u32 check, __be32 previous)
{
	struct lsr_packet back = {.input = LSR_LOOPBACK};
	__u8 mac[ETH_ALEN], difference = 0;
	struct lsr_exit way;

	if (!find_route(skb, &back, 0, previous, &way) || way.index != skb->ifindex)
		return false;
	if (check != LSR_PREVIOUS_NEIGHBOUR || way.pending)
		return true;
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), mac, sizeof(mac)))
		return false;
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < sizeof(mac); i++)
		difference |= mac[i] ^ way.mac[i];
	return !difference;
}

/* Which hop of its path a source route has come to, from 1 (RFC 791 §3.1: the pointer counts from 1, after 3 bytes). */
static __always_inline __u32 find_position(const struct lsr_options *options)
{
	return options->route_pointer / sizeof(__be32);
}

/* A source route addressed to this node. */
LSR_STEP int visit_hop(struct __sk_buff *skb, struct lsr_packet *packet,
		       const struct lsr_options *options)
{
	struct lsr_route route = {};
	const struct lsr_hop *hop;
	enum lsr_reason reason;
	bool elsewhere;

	if (!packet || !options || !read_hop_key(skb, 0, options, &route))
		return LSR_DROP_SHORT;
	if (options->route_pointer > options->route_length)
		return deviate(skb, packet, &route, 0, LSR_DROP_EXHAUSTED);
	route.key.hop = packet->destination;
	hop = bpf_map_lookup_elem(&hops, &route.key);
	if (!hop) {
		hop = find_part(&route, LSR_PART_ROUTE);
		return deviate(skb, packet, &route, hop ? hop->path : 0,
			       hop ? LSR_DROP_POSITION : 0);
	}
	packet->path = hop->path;
	elsewhere = packet->previous && hop->previous &&
		    !came_from(skb, packet->previous, hop->previous);
	if (elsewhere && !hop->reported)
		return deviate(skb, packet, &route, hop->path, LSR_DROP_PREVIOUS_HOP);
	if (hop->binding) {
		reason = verify_tag(skb, packet, LSR_BASE_HEADER, hop, route.final);
		if (reason)
			return deviate(skb, packet, &route, hop->path, reason);
		if (hop->once && is_repeated(skb, packet))
			return LSR_DROP_REPLAY;
	}
	if (elsewhere) {
		note(packet, LSR_NOTE_REPORTED);
		deviate(skb, packet, &route, hop->path, LSR_NOTE_REPORTED);
	}
	if (hop->next == packet->source || route.final == packet->source)
		return LSR_DROP_REFLECT;
	if (packet->protocol == IPPROTO_UDP)
		recognise(skb, packet, find_position(options));
	if (packet->turn == LSR_TURN_BEFORE)
		return LSR_PROBED;
	reason = serve(skb, packet, options, hop, route.final);
	if (reason)
		return reason;
	if (hop->next)
		return forward(skb, packet, options, hop->next, true);
	return end_chain(skb, packet, options, route.final, hop->path);
}

/* A mesh port's packet with options. */
LSR_STEP int walk_route(struct __sk_buff *skb, struct lsr_packet *packet)
{
	const struct lsr_state *current;
	struct lsr_options options = {};
	enum lsr_reason reason;
	__u32 zero = 0;

	if (!packet)
		return LSR_DROP_SHORT;
	reason = scan_options(skb, packet->header, &options);
	if (reason)
		return reason;
	if (options.seen & LSR_SEEN_TAG && !(options.seen & LSR_SEEN_ROUTE))
		return LSR_DROP_LAYOUT; /* of a source route that was meddled with */
	if (!(options.seen & LSR_SEEN_ROUTE))
		return judge_options(packet->options, &options) ? LSR_DROP_FORBIDDEN_OPTION
								: LSR_PASSED;
	if (skb->pkt_type != 0) /* PACKET_HOST */
		return LSR_DROP_LAYER2_DESTINATION;
	if (!verify_checksum(skb, packet->header))
		return LSR_DROP_CHECKSUM;
	reason = verify_layout(skb, packet, &options);
	if (reason)
		return reason;
	reason = check_source(packet);
	if (reason)
		return reason;
	current = bpf_map_lookup_elem(&state, &zero);
	if (current && packet->destination == current->address)
		return visit_hop(skb, packet, &options);
	/* Only a loose route leads over nodes that it does not name. */
	if (options.route_type != LSR_OPTION_LOOSE ||
	    !(find_owner(packet->destination) & LSR_OWNER_NODE))
		return LSR_DROP_NOT_MY_HOP;
	return forward(skb, packet, &options, packet->destination, false);
}

#endif
