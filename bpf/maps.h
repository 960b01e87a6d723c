/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The tables; the agent sets capacities and pins. Meaning of keys and values: lsr.h. */
#ifndef LSR_MAPS_H
#define LSR_MAPS_H

#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>

#include "lsr.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lsr_state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LSR_INTERFACES_MAX);
	__type(key, __u32);
	__type(value, struct lsr_interface);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LSR_NEAR_MAX);
	__type(key, __u32);
	__type(value, struct lsr_interface);
} near SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct lsr_opening);
	__type(value, __u32);
} openings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LSR_KEYS);
	__type(key, __u32);
	__type(value, struct lsr_key);
} keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lsr_signing);
} signing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LSR_INTERFACES_MAX * 2);
	__type(key, __u32);
	__type(value, struct lsr_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __be32);
	__type(value, __u32);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LSR_TUPLES_MAX * 2);
	__type(key, __u32);
	__type(value, struct lsr_tuple);
} tuples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 524288);
	__type(key, struct lsr_fields);
	__type(value, struct lsr_rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct lsr_chain_key);
	__type(value, struct lsr_chain);
} chains SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 32768);
	__type(key, struct lsr_chain_key);
	__type(value, struct lsr_choice);
} choices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct lsr_path);
} paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct lsr_hop_key);
	__type(value, struct lsr_hop);
} hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct lsr_function);
} functions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct lsr_cgroup_key);
	__type(value, __u32);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct lsr_destination_key);
	__type(value, struct lsr_destination);
} destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct lsr_recorder);
	__type(value, __u32);
} recorders SEC(".maps");

/* Hash of a flow that began while a node of its chain was drained -> 1. Empty at all other times. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LSR_MOVED_MAX);
	__type(key, __u64);
	__type(value, __u32);
} moved SEC(".maps");

/*
 * What ended here, and, apart from it, so that hostile packets cannot crowd out honest ones, what deviated. Plain
 * hashes: a full one refuses and the loss is counted, where an LRU would evict in silence. Of each there are two, of
 * which `recording` names the one that is written now, while the agent empties the other.
 */
struct flow_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct lsr_flow_key);
	__type(value, struct lsr_flow);
} flows_even SEC(".maps"), flows_odd SEC(".maps");

struct deviation_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct lsr_flow_key);
	__type(value, struct lsr_flow);
} deviations_even SEC(".maps"), deviations_odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, LSR_RECORDINGS);
	__type(key, __u32);
	__array(values, struct flow_table);
} recording SEC(".maps") = {
	.values =
		{
			[LSR_RECORDING_FLOWS] = &flows_even,
			[LSR_RECORDING_DEVIATIONS] = (void *)&deviations_even,
		},
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct lsr_traffic_key);
	__type(value, struct lsr_traffic);
} traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} watching SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LSR_WATCHES_MAX);
	__type(key, __u32);
	__type(value, struct lsr_watch);
} watches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LSR_WATCHES_MAX *LSR_REASONS);
	__type(key, __u32);
	__type(value, struct lsr_sighting);
} sightings SEC(".maps");

/* Digest of a packet -> when it came, CLOCK_BOOTTIME ns; for chains with `duplicates: drop` alone. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LSR_SEEN_MAX);
	__type(key, __u64);
	__type(value, __u64);
} seen SEC(".maps");

/* A flow in the making. Programs on one CPU do not interrupt each other: softirqs are off. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lsr_flow);
} scratch SEC(".maps");

/* The key of a flow: Linux 6.1 looks up no memory that another step has handed over, and the stack is full. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lsr_flow_key);
} scratch_key SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LSR_BUCKETS);
	__type(key, __u32);
	__type(value, struct lsr_allowance);
} allowance SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LSR_RECENT_MAX);
	__type(key, __u32);
	__type(value, struct lsr_recent_route);
} recent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lsr_draft);
} draft SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lsr_quote);
} quote SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lsr_trial);
} trial SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

#endif
