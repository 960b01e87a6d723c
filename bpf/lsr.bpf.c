// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * lsr-agent's data path: two programs on every managed interface.
 *
 *   ingress   edge:      options? drop or strip.  plain: classify -> to the stack | impose
 *             mesh:      source route? validate -> function | advance | end | forward | drop.  plain: as edge
 *             function:  masked? advance | end.  plain: classify -> impose | pass
 *   egress    our own packets pass, or are cut; a masked one of the stack: advance; a plain one: classify -> impose | pass
 *
 * A step returns enum lsr_reason; only finish() returns TC_ACT_*.
 */
#include "clamp.h"
#include "finish.h"
#include "impose.h"
#include "resume.h"
#include "translate.h"
#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>

enum {
	LSR_VLAN_ID = 0x0fff,
	LSR_DROP_ALL = 0x2aaa, /* LSR_POLICY_DROP for each enum lsr_option_class */
};

/* A frame of another VLAN belongs to a sub-interface; priority tags (VLAN 0) are this port's. */
static __always_inline bool is_ipv4(struct __sk_buff *skb)
{
	if (skb->vlan_present && (skb->vlan_tci & LSR_VLAN_ID))
		return false;
	return skb->protocol == bpf_htons(ETH_P_IP);
}

static __always_inline enum lsr_reason read_packet(struct __sk_buff *skb, struct lsr_packet *packet)
{
	if (skb->len < LSR_ETHERNET)
		return LSR_DROP_SHORT;
	return parse_header(skb, skb->len - LSR_ETHERNET, skb->gso_size, packet);
}

static __always_inline enum lsr_reason enter_plain(struct __sk_buff *skb, struct lsr_packet *packet,
						   enum lsr_origin origin)
{
	if (skb->pkt_type != 0) /* PACKET_HOST */
		return LSR_PASSED;
	clamp_mss(skb, packet);
	return classify(skb, packet, origin);
}

/* What an edge port's policies say of a packet's options: 0 where it may go on, with them or without. */
LSR_STEP int admit_options(struct __sk_buff *skb, struct lsr_packet *packet)
{
	struct lsr_options options = {};
	enum lsr_option_policy policy;
	enum lsr_reason reason;

	if (!packet || packet->options == LSR_DROP_ALL)
		return LSR_DROP_EDGE_OPTION; /* without looking at them */
	reason = scan_options(skb, packet->header, &options);
	if (reason)
		return reason;
	policy = judge_options(packet->options, &options);
	if (policy == LSR_POLICY_PASS)
		return 0;
	if (policy != LSR_POLICY_STRIP)
		return LSR_DROP_EDGE_OPTION;
	if (!verify_checksum(skb, packet->header))
		return LSR_DROP_CHECKSUM;
	reason = strip_options(skb, packet, packet->destination);
	if (reason)
		return reason;
	note(packet, LSR_NOTE_STRIPPED);
	return 0;
}

/* Whether the nodes of the mesh offer this to the network behind an edge port. */
LSR_STEP int is_open(struct __sk_buff *skb, const struct lsr_packet *packet, __u32 slot)
{
	struct lsr_opening opening = {.slot = slot};
	struct lsr_fields fields = {};

	if (!packet)
		return false;
	opening.protocol = packet->protocol;
	if (bpf_map_lookup_elem(&openings, &opening))
		return true;
	read_ports(skb, packet, &fields);
	opening.port = fields.destination_port;
	return opening.port && bpf_map_lookup_elem(&openings, &opening);
}

static __always_inline enum lsr_reason enter_edge(struct __sk_buff *skb, struct lsr_packet *packet,
						  const struct lsr_interface *interface)
{
	enum lsr_reason reason;

	if (packet->header > LSR_BASE_HEADER) {
		reason = admit_options(skb, packet);
		if (reason)
			return reason;
	}
	/* RFC 8754 §5.1: nobody outside speaks with an address from inside, or to one without need. */
	if (find_owner(packet->source) & (LSR_OWNER_SELF | LSR_OWNER_MESH))
		return LSR_DROP_SOURCE_SPOOF;
	if (interface->guarded && find_owner(packet->destination) & LSR_OWNER_MESH &&
	    !is_open(skb, packet, interface->slot))
		return LSR_DROP_INFRASTRUCTURE;
	return enter_plain(skb, packet, LSR_ORIGIN_EDGE);
}

static __always_inline enum lsr_reason enter_mesh(struct __sk_buff *skb, struct lsr_packet *packet)
{
	enum lsr_reason reason;

	if (skb->pkt_type == 0 && packet->protocol == IPPROTO_ICMP) { /* PACKET_HOST */
		reason = translate_error(skb, packet);
		if (reason)
			return reason;
	}
	if (packet->header == LSR_BASE_HEADER)
		return enter_plain(skb, packet, LSR_ORIGIN_MESH);
	return walk_route(skb, packet);
}

/* What becomes of a packet whose chain has ended here. */
static __always_inline enum lsr_reason go_on(struct __sk_buff *skb, struct lsr_packet *packet)
{
	enum lsr_reason reason;

	if (packet->chain)
		return begin_segment(skb, packet);
	if (packet->function)
		return serve_plain(skb, packet);
	clamp_mss(skb, packet);
	reason = packet->bypass ? deliver(skb, packet) : 0;
	return reason ? reason : LSR_ENDED;
}

static __always_inline enum lsr_reason enter(struct __sk_buff *skb, struct lsr_packet *packet,
					     const struct lsr_interface *interface)
{
	enum lsr_reason reason;

	if (skb->tc_index)
		skb->tc_index = 0; /* ours to set: nothing from outside may claim to be our own */
	packet->icmp = interface->icmp;
	packet->options = interface->options;
	packet->previous = interface->previous;
	packet->bypass = interface->bypass;
	packet->input = skb->ifindex;
	if (!is_ipv4(skb))
		return LSR_PASSED;
	reason = read_packet(skb, packet);
	if (reason)
		return reason;
	switch (interface->role) {
	case LSR_ROLE_EDGE:
		return enter_edge(skb, packet, interface);
	case LSR_ROLE_FUNCTION:
		reason = leave_function(skb, packet);
		break;
	case LSR_ROLE_TAP:
		return LSR_DROP_TAP_INPUT;
	default:
		reason = enter_mesh(skb, packet);
	}
	if (reason == LSR_PROBED)
		return answer_probe(skb, packet);
	return reason == LSR_ENDED ? go_on(skb, packet) : reason;
}

/* A local socket may send Record Route, but the chains are ours to write. */
static __always_inline enum lsr_reason check_local_options(struct __sk_buff *skb,
							   const struct lsr_packet *packet)
{
	struct lsr_options options = {};

	if (packet->header == LSR_BASE_HEADER)
		return 0;
	scan_options(skb, packet->header, &options);
	return options.classes & 1 << LSR_CLASS_SOURCE_ROUTE ? LSR_DROP_LOCAL_ROUTE : 0;
}

/* Where a packet that the stack sends has come from: 0, where that is no port of ours. */
static __always_inline __u32 find_origin(struct __sk_buff *skb, struct lsr_packet *packet)
{
	const struct lsr_interface *port;

	packet->input = skb->ingress_ifindex;
	packet->stage = LSR_ROUTED;
	if (!packet->input) {
		packet->input = LSR_LOOPBACK; /* as the kernel looks up an output route */
		packet->stage = LSR_LOCAL;
		return LSR_ORIGIN_LOCAL;
	}
	port = find_interface(packet->input);
	if (!port)
		return 0;
	switch (port->role) {
	case LSR_ROLE_EDGE:
		return LSR_ORIGIN_EDGE;
	case LSR_ROLE_FUNCTION:
		return LSR_ORIGIN_FUNCTION;
	default:
		return LSR_ORIGIN_MESH;
	}
}

static __always_inline enum lsr_reason leave_host(struct __sk_buff *skb, struct lsr_packet *packet,
						  const struct lsr_interface *interface)
{
	enum lsr_reason reason;
	struct lsr_probe probe = {};
	__u32 origin;

	if (skb->tc_index == LSR_OWN_MARK)
		return LSR_OWN;
	if (skb->tc_index == LSR_ENDED_MARK || !is_ipv4(skb))
		return LSR_PASSED;
	reason = read_packet(skb, packet);
	if (reason)
		return reason;
	packet->icmp = interface->icmp;
	origin = find_origin(skb, packet);
	switch (skb->tc_index) {
	case LSR_SLICE_MARK:
		return cut_slice(skb, packet);
	case LSR_TAP_MARK:
		return finish_copy(skb, packet);
	case LSR_MASKED_MARK:
		reason = resume(skb, packet, 0);
		return reason == LSR_PROBED ? answer_probe(skb, packet) : reason;
	}
	reason = check_local_options(skb, packet);
	if (reason)
		return reason;
	if (origin == LSR_ORIGIN_LOCAL && find_owner(packet->destination) & LSR_OWNER_NODE &&
	    read_probe(skb, packet, &probe))
		return impose(skb, packet, LSR_NET32(probe.path), 0);
	return origin ? classify(skb, packet, origin) : LSR_PASSED;
}

SEC("tc")
int lsr_ingress(struct __sk_buff *skb)
{
	const struct lsr_interface *interface = find_interface(skb->ifindex);
	struct lsr_packet packet = {};
	enum lsr_reason reason;

	if (!interface)
		return TC_ACT_UNSPEC;
	reason = enter(skb, &packet, interface);
	return finish(skb, &packet, interface->slot * 2 + LSR_INGRESS, reason);
}

SEC("tc")
int lsr_egress(struct __sk_buff *skb)
{
	const struct lsr_interface *interface = find_interface(skb->ifindex);
	struct lsr_packet packet = {};
	enum lsr_reason reason;

	if (!interface)
		return TC_ACT_UNSPEC;
	if (skb->tc_index == LSR_TRIAL_MARK) {
		answer_trial(skb);
		return TC_ACT_SHOT; /* no packet, but a question about one: not counted */
	}
	reason = leave_host(skb, &packet, interface);
	return finish(skb, &packet, interface->slot * 2 + LSR_EGRESS, reason);
}

/* No program reads this section: it keeps types that no map names in the object's BTF. */
struct {
	struct lsr_event event;
	struct lsr_probe probe;
	enum lsr_limits *limits;
	enum lsr_reason *reason;
	enum lsr_role *role;
	enum lsr_direction *direction;
	enum lsr_origin *origin;
	enum lsr_option_class *class;
	enum lsr_option_policy *policy;
	enum lsr_previous_hop *previous;
	enum lsr_owner *owner;
	enum lsr_option *option;
	enum lsr_part *part;
	enum lsr_icmp *icmp;
	enum lsr_fragments *fragments;
	enum lsr_binding *binding;
	enum lsr_function_kind *function;
	enum lsr_probe_magic *magic;
	enum lsr_turn *turn;
	enum lsr_recording *recording;
	enum lsr_event_kind *kind;
} lsr_layout SEC("layout");

char LICENSE[] SEC("license") = "Dual MIT/GPL";
