/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The one way out of both programs. */
#ifndef LSR_FINISH_H
#define LSR_FINISH_H

#include "answer.h"
#include "traffic.h"
#include "watch.h"

/* The only place that turns a reason into a tc action. Passing means "next program", not "accept". */
LSR_STEP int choose_action(struct __sk_buff *skb, struct lsr_packet *packet, __u32 port,
			   __u32 reason)
{
	if (!packet)
		return TC_ACT_SHOT;
	switch (reason) {
	case LSR_PASSED:
	case LSR_OWN:
	case LSR_TO_STACK:
	case LSR_TAPPED:
		return TC_ACT_UNSPEC;
	case LSR_ENDED:
		return packet->stage == LSR_DELIVERED ? TC_ACT_REDIRECT : TC_ACT_UNSPEC;
	case LSR_IMPOSED:
	case LSR_ADVANCED:
	case LSR_FORWARDED:
	case LSR_SLICED:
	case LSR_TO_DEVICE:
	case LSR_PROBED:
		return TC_ACT_REDIRECT;
	default:
		sample_drop(skb, port, reason);
		return packet->type && answer(skb, packet) ? TC_ACT_REDIRECT : TC_ACT_SHOT;
	}
}

LSR_STEP int count(const struct lsr_packet *packet, __u32 port, __u32 reason)
{
	struct lsr_counters *counted = bpf_map_lookup_elem(&counters, &port);

	if (!packet || !counted || reason >= LSR_REASONS)
		return 0;
	counted->count[LSR_RECEIVED]++;
	counted->count[reason]++;
	for (__u32 i = LSR_RECEIVED + 1; packet->notes && i < LSR_PASSED; i++)
		counted->count[i] += packet->notes >> i & 1;
	return 0;
}

static __always_inline int finish(struct __sk_buff *skb, struct lsr_packet *packet, __u32 port,
				  __u32 reason)
{
	int action;

	if (reason != LSR_ENDED) /* that is counted already: something else may follow it */
		count_traffic(skb, packet, reason);
	if (is_watching())
		look(skb, packet, reason);
	action = choose_action(skb, packet, port, reason);
	count(packet, port, reason);
	return action;
}

#endif
