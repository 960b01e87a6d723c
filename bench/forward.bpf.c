// SPDX-License-Identifier: GPL-2.0 OR MIT
/* What is compared with: programs that only send on, and one that counts what arrives. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#ifndef AF_INET
#define AF_INET 2
#endif

struct onward {
	__u32 output;     /* ifindex */
	__be32 neighbour; /* the next host */
};

/* One entry: where this host sends everything. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct onward);
} onward SEC(".maps");

/* One entry: packets. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} arrived SEC(".maps");

SEC("tc")
int redirect(struct __sk_buff *skb)
{
	struct bpf_redir_neigh next = {.nh_family = AF_INET};
	const struct onward *way;
	__u32 zero = 0;

	way = bpf_map_lookup_elem(&onward, &zero);
	if (!way || skb->protocol != __builtin_bswap16(0x0800))
		return TC_ACT_UNSPEC;
	next.ipv4_nh = way->neighbour;
	return bpf_redirect_neigh(way->output, &next, sizeof(next), 0);
}

/* Whatever IP it is in: the network's own ARP and neighbour discovery go on. */
SEC("tc")
int sink(struct __sk_buff *skb)
{
	__u64 *count;
	__u32 zero = 0;

	count = bpf_map_lookup_elem(&arrived, &zero);
	if (!count || skb->protocol != __builtin_bswap16(0x0800))
		return TC_ACT_UNSPEC;
	++*count;
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
