/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Tuple-space search: one hash lookup per distinct mask, whatever the number of rules. */
#ifndef LSR_CLASSIFY_H
#define LSR_CLASSIFY_H

#include "flow.h"

enum {
	LSR_TCP_FLAGS = 13, /* offset */
	LSR_TCP_SYN = 0x02,
	LSR_TCP_ACK = 0x10,
};

static __always_inline bool has_ports(const struct lsr_packet *packet)
{
	switch (packet->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
		return !is_fragment(packet); /* the same answer for all fragments of a datagram */
	default:
		return false;
	}
}

static __always_inline void read_ports(struct __sk_buff *skb, const struct lsr_packet *packet,
				       struct lsr_fields *fields)
{
	__be16 ports[2];

	if (!has_ports(packet))
		return;
	if (load_bytes(skb, packet->header, ports, sizeof(ports)))
		return;
	fields->source_port = ports[0];
	fields->destination_port = ports[1];
}

static __always_inline void read_fields(struct __sk_buff *skb, const struct lsr_packet *packet,
					struct lsr_fields *fields)
{
	fields->source = packet->source;
	fields->destination = packet->destination;
	fields->mark = skb->mark;
	fields->protocol = packet->protocol;
	fields->dscp = packet->dscp;
	read_ports(skb, packet, fields);
}

/*
 * The innermost of the cgroups in `cgroups` that the socket of a packet of this host belongs to; 0 where there is none.
 * A rule for an outer one is in the tables for each inner one too.
 */
LSR_STEP int find_cgroup(struct __sk_buff *skb)
{
	struct lsr_cgroup_key key = {};
	const struct lsr_state *current;
	const __u32 *number;
	__u32 zero = 0;
	int level;

	current = bpf_map_lookup_elem(&state, &zero);
	if (!current || !current->cgroups)
		return 0;
	key.set = current->set;
	for (level = LSR_CGROUP_LEVELS; level > 0; level--) {
		key.id = bpf_skb_ancestor_cgroup_id(skb, level);
		number = key.id ? bpf_map_lookup_elem(&cgroups, &key) : NULL;
		if (number)
			return *number;
	}
	return 0;
}

static __always_inline void mask_fields(const struct lsr_fields *fields,
					const struct lsr_fields *mask, struct lsr_fields *key)
{
	key->source = fields->source & mask->source;
	key->destination = fields->destination & mask->destination;
	key->source_port = fields->source_port & mask->source_port;
	key->destination_port = fields->destination_port & mask->destination_port;
	key->mark = fields->mark & mask->mark;
	key->cgroup = fields->cgroup & mask->cgroup;
	key->protocol = fields->protocol & mask->protocol;
	key->dscp = fields->dscp & mask->dscp;
	key->origin = fields->origin & mask->origin;
	key->tuple = mask->tuple;
}

struct lsr_search {
	const struct lsr_fields *fields;
	__u32 set;
	__u32 with_ports;
	__u32 found;
	__u32 priority; /* of the best rule so far */
	__u32 chain;
	__u32 unused;
};

static long try_tuple(__u32 step, struct lsr_search *search)
{
	__u32 index = search->set * LSR_TUPLES_MAX + step;
	const struct lsr_tuple *tuple = bpf_map_lookup_elem(&tuples, &index);
	const struct lsr_rule *rule;
	struct lsr_fields key;

	if (!tuple || (search->found && search->priority <= tuple->priority))
		return 1;
	if (!search->with_ports && (tuple->mask.source_port || tuple->mask.destination_port))
		return 0;
	mask_fields(search->fields, &tuple->mask, &key);
	rule = bpf_map_lookup_elem(&rules, &key);
	if (!rule || (search->found && search->priority <= rule->priority))
		return 0;
	search->found = 1;
	search->priority = rule->priority;
	search->chain = rule->chain;
	return 0;
}

/* Reads the chain as the set in force has it, with the path that a packet with these fields takes. */
LSR_STEP int read_chain(const struct lsr_fields *fields, __u32 number, struct lsr_chain *chain)
{
	struct lsr_chain_key key = {.chain = number};
	const struct lsr_choice *choice;
	const struct lsr_state *current;
	const struct lsr_chain *found;
	__u32 zero = 0, slot;

	current = bpf_map_lookup_elem(&state, &zero);
	if (!fields || !chain || !current)
		return LSR_DROP_NO_CHAIN;
	key.set = current->set;
	found = bpf_map_lookup_elem(&chains, &key);
	if (!found)
		return LSR_DROP_NO_CHAIN;
	*chain = *found;
	chain->id = number;
	if (chain->several) {
		choice = bpf_map_lookup_elem(&choices, &key);
		slot = opaque(hash_flow(fields) >> LSR_SLOT_SHIFT);
		if (!choice || slot >= LSR_SLOTS)
			return LSR_DROP_NO_CHAIN;
		chain->path = choice->path[slot];
		chain->before = choice->before[slot];
	}
	return chain->path ? 0 : LSR_DROP_UNAVAILABLE;
}

/*
 * Finds the chain for these fields by the first rule that holds, and their path: LSR_PASSED without a rule, else 0, or
 * a drop where the rule's chain is not in the tables or none of its paths is up.
 */
LSR_STEP int choose_chain(const struct lsr_fields *fields, __u32 with_ports,
			  struct lsr_chain *chain)
{
	struct lsr_search search = {
		.fields = fields,
		.with_ports = with_ports,
	};
	const struct lsr_state *current;
	__u32 zero = 0;

	current = bpf_map_lookup_elem(&state, &zero);
	if (!fields || !chain || !current || !current->tuples)
		return LSR_PASSED;
	search.set = current->set;
	bpf_loop(current->tuples, try_tuple, &search, 0);
	return search.found ? read_chain(fields, search.chain, chain) : LSR_PASSED;
}

#endif
