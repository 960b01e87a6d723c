/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The service function of a hop sees the true flow, to its final destination. For that the packet
 * is masked: hop and destination change places, and the options that the stack would act on get numbers
 * that it does not know, and so passes (RFC 1122 §3.2.1.8). All that undoes this is in the packet:
 *
 *   on the wire  dst=hop          131 | 137  pointer      [ … destination ]   7 …
 *   masked       dst=destination  222        pointer + s  [ … hop         ]  30 …
 *
 * s is 1 for a strict route: pointers are multiples of 4.
 */
#ifndef LSR_FUNCTION_H
#define LSR_FUNCTION_H

#include "probe.h"
#include "slice.h"
#include <linux/if_ether.h>
#include <stddef.h>

enum {
	LSR_MASKED_STRICT = 1,  /* in the pointer */
	LSR_SNAP_PARTIAL = 128, /* bytes; holds the checksum of TCP, also of one inside VXLAN */
};

/* The head of a masked source route as it is on the wire; another one stays as it is. */
static __always_inline void unmask_head(struct lsr_option_head *head)
{
	if (head->type != LSR_OPTION_MASKED_ROUTE)
		return;
	head->type = head->pointer & LSR_MASKED_STRICT ? LSR_OPTION_STRICT : LSR_OPTION_LOOSE;
	head->pointer &= ~LSR_MASKED_STRICT;
}

static __always_inline const struct lsr_function *find_function(__u32 number)
{
	return bpf_map_lookup_elem(&functions, &number);
}

LSR_STEP int mask_route(struct __sk_buff *skb, struct lsr_packet *packet,
			const struct lsr_options *options, __be32 final)
{
	struct lsr_option_head head = {.type = LSR_OPTION_MASKED_ROUTE};
	__u8 record = LSR_OPTION_MASKED_RECORD;
	__u32 at;

	if (!packet || !options)
		return LSR_DROP_SHORT;
	at = LSR_BASE_HEADER + options->route_at;
	head.length = options->route_length;
	head.pointer = options->route_pointer;
	if (options->route_type == LSR_OPTION_STRICT)
		head.pointer |= LSR_MASKED_STRICT;
	if (store_bytes(skb, at, &head, sizeof(head)) ||
	    store_bytes(skb, at + head.length - sizeof(final), &packet->destination,
			sizeof(final)) ||
	    store_bytes(skb, offsetof(struct iphdr, daddr), &final, sizeof(final)))
		return LSR_DROP_RESIZE;
	if (options->record_at &&
	    store_bytes(skb, LSR_BASE_HEADER + options->record_at, &record, sizeof(record)))
		return LSR_DROP_RESIZE;
	return write_checksum(skb, packet->header);
}

/* Where the masked source route begins, and its head; 0 where there is none. */
static __always_inline __u32 find_masked(struct __sk_buff *skb, const struct lsr_packet *packet,
					 struct lsr_option_head *head)
{
	__u32 at = LSR_BASE_HEADER;

	if (packet->header < LSR_BASE_HEADER + 8 || load_bytes(skb, at, head, sizeof(*head)))
		return 0;
	if (head->type == LSR_OPTION_INTEGRITY) {
		at += LSR_TAG_LENGTH;
		if (load_bytes(skb, at, head, sizeof(*head)))
			return 0;
	}
	if (head->type != LSR_OPTION_MASKED_ROUTE || !is_route_length(head->length) ||
	    at + head->length > packet->header)
		return 0;
	return at;
}

/* The packet as it arrived at this hop, but for what the function has changed; the checksum is left to who sends it on. */
LSR_STEP int unmask_route(struct __sk_buff *skb, struct lsr_packet *packet)
{
	struct lsr_option_head head, next = {};
	__u8 record = LSR_OPTION_RECORD_ROUTE;
	__be32 hop;
	__u32 at, end;

	if (!packet)
		return LSR_DROP_SHORT;
	at = find_masked(skb, packet, &head);
	if (!at)
		return LSR_DROP_LAYOUT;
	unmask_head(&head);
	end = at + head.length;
	if (load_bytes(skb, end - sizeof(hop), &hop, sizeof(hop)) ||
	    store_bytes(skb, at, &head, sizeof(head)) ||
	    store_bytes(skb, end - sizeof(hop), &packet->destination, sizeof(hop)) ||
	    store_bytes(skb, offsetof(struct iphdr, daddr), &hop, sizeof(hop)))
		return LSR_DROP_RESIZE;
	if (end + sizeof(next) <= packet->header && load_bytes(skb, end, &next, sizeof(next)))
		return LSR_DROP_RESIZE;
	if (next.type == LSR_OPTION_MASKED_RECORD && store_bytes(skb, end, &record, sizeof(record)))
		return LSR_DROP_RESIZE;
	packet->destination = hop;
	return 0;
}

/* Up this host's stack; it has to send the packet out of a port of ours, where it is unmasked. */
static __always_inline enum lsr_reason enter_stack(struct __sk_buff *skb, struct lsr_packet *packet,
						   const struct lsr_options *options, __be32 final)
{
	struct lsr_packet plain = *packet;
	enum lsr_reason reason;

	plain.destination = final;
	if (find_owner(final) & LSR_OWNER_SELF)
		return LSR_DROP_DESTINATION;
	if (!passes_port(skb, &plain))
		return LSR_DROP_NOT_MESH;
	reason = mask_route(skb, packet, options, final);
	if (reason)
		return reason;
	skb->tc_index = LSR_MASKED_MARK;
	return LSR_TO_STACK;
}

/* To the function's address as a router, or as a frame that a bridge will let pass. */
static __always_inline enum lsr_reason send_to_device(struct __sk_buff *skb,
						      const struct lsr_function *function)
{
	struct bpf_redir_neigh neighbour;

	skb->tc_index = LSR_OWN_MARK;
	if (!function->via) {
		if (bpf_skb_store_bytes(skb, 0, function->macs, sizeof(function->macs), 0))
			return LSR_DROP_RESIZE;
		bpf_redirect(function->device, 0);
		return LSR_TO_DEVICE;
	}
	__builtin_memset(&neighbour, 0, sizeof(neighbour));
	neighbour.nh_family = AF_INET;
	neighbour.ipv4_nh = function->via;
	bpf_redirect_neigh(function->device, &neighbour, sizeof(neighbour), 0);
	return LSR_TO_DEVICE;
}

/* Out of the function's device. */
LSR_STEP int enter_device(struct __sk_buff *skb, struct lsr_packet *packet,
			  const struct lsr_options *options, const struct lsr_function *function,
			  __be32 final)
{
	const struct lsr_interface *port;
	enum lsr_reason reason;

	if (!packet || !options || !function)
		return LSR_DROP_SHORT;
	port = find_interface(function->device);
	if (!port || port->role != LSR_ROLE_FUNCTION)
		return LSR_DROP_NO_FUNCTION;
	if (measure(skb, packet) > port->mtu)
		return refuse_size(packet, LSR_DROP_TOO_BIG,
				   port->mtu - (packet->header - LSR_BASE_HEADER));
	reason = mask_route(skb, packet, options, final);
	return reason ? reason : send_to_device(skb, function);
}

/*
 * Gives a tap its copy. It is made now, with the options as they are, and becomes the plain packet at the
 * egress hook of the tap's port, which it passes before bpf_clone_redirect returns.
 */
LSR_STEP int copy_to_tap(struct __sk_buff *skb, struct lsr_packet *packet,
			 const struct lsr_function *function)
{
	const struct lsr_interface *port;
	__u32 mark = skb->tc_index;
	bool sent = false;

	if (!packet || !function)
		return 0;
	if (function->sample > 1 && bpf_get_prandom_u32() % function->sample)
		return 0;
	port = find_interface(function->device);
	if (port && port->role == LSR_ROLE_TAP) {
		skb->tc_index = LSR_TAP_MARK;
		skb->cb[0] = function->snap;
		sent = !bpf_clone_redirect(skb, function->device, 0);
		skb->tc_index = mark;
	}
	note(packet, sent ? LSR_NOTE_COPIED : LSR_NOTE_COPY_FAILED);
	return 0;
}

/*
 * Cuts a copy down to `snap` bytes. The kernel does not cut off a checksum that the device is to make
 * (net/core/filter.c, __bpf_skb_min_len); such a copy keeps some more.
 */
static __always_inline bool cut_copy(struct __sk_buff *skb, __u32 length, __u32 snap)
{
	if (!snap || snap >= length || !bpf_skb_change_tail(skb, LSR_ETHERNET + snap, 0))
		return true;
	return length <= LSR_SNAP_PARTIAL ||
	       !bpf_skb_change_tail(skb, LSR_ETHERNET + LSR_SNAP_PARTIAL, 0);
}

/* At the egress hook of a tap, with the copy. */
LSR_STEP int finish_copy(struct __sk_buff *skb, struct lsr_packet *packet)
{
	enum lsr_reason reason;
	__u32 snap = skb->cb[0];
	__be32 final;

	if (!packet || !read_final(skb, &final))
		return LSR_DROP_SHORT;
	reason = strip_options(skb, packet, final);
	if (reason)
		return reason;
	return cut_copy(skb, packet->length, snap) ? LSR_TAPPED : LSR_DROP_RESIZE;
}

/* Gives a packet whose chain has ended here to a function that gets no options. */
LSR_STEP int serve_plain(struct __sk_buff *skb, struct lsr_packet *packet)
{
	const struct lsr_function *function;
	const struct lsr_interface *port;

	if (!packet)
		return LSR_DROP_SHORT;
	function = find_function(packet->function);
	if (!function)
		return LSR_DROP_NO_FUNCTION;
	port = find_interface(function->device);
	if (!port || port->role != LSR_ROLE_FUNCTION)
		return LSR_DROP_NO_FUNCTION;
	if (measure(skb, packet) > port->mtu)
		return refuse_size(packet, LSR_DROP_TOO_BIG, port->mtu);
	return send_to_device(skb, function);
}

/*
 * Gives a packet that has arrived at its hop to the function there: an outcome, or a drop, or 0 where it
 * goes on at once.
 */
LSR_STEP int serve(struct __sk_buff *skb, struct lsr_packet *packet,
		   const struct lsr_options *options, const struct lsr_hop *hop, __be32 final)
{
	const struct lsr_function *function;

	if (!packet || !options || !hop)
		return LSR_DROP_SHORT;
	if (!hop->function)
		return 0;
	function = find_function(hop->function);
	if (!function)
		return LSR_DROP_NO_FUNCTION;
	if (function->unwell && packet->turn)
		return LSR_DROP_UNWELL;
	switch (function->kind) {
	case LSR_FUNCTION_TAP:
		return copy_to_tap(skb, packet, function);
	case LSR_FUNCTION_INLINE:
		if (function->plain) { /* its chain ends here */
			packet->function = hop->function;
			return 0;
		}
		return enter_device(skb, packet, options, function, final);
	case LSR_FUNCTION_STACK: /* at the last hop the stack gets the packet anyway */
		return hop->next ? enter_stack(skb, packet, options, final) : 0;
	case LSR_FUNCTION_TRANSIT:
		return 0;
	default:
		return LSR_DROP_NO_FUNCTION;
	}
}

#endif
