/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Reading IPv4 headers and options. Plain C without maps: the same file compiles for user space,
 * given a load_bytes() of its own. Nothing has been checked before tc ingress, so nothing is
 * believed here.
 *
 * Bytes are copied, never pointed at: with CAP_BPF but without CAP_PERFMON the verifier refuses a
 * variable offset into the packet or the stack (kernel/bpf/verifier.c, retrieve_ptr_limit).
 */
#ifndef LSR_PARSE_H
#define LSR_PARSE_H

#include <linux/in.h>
#include <linux/ip.h>
#include <stdbool.h>

#include "lsr.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LSR_NET32(value) __builtin_bswap32(value)
#define LSR_NET16(value) __builtin_bswap16(value)
#else
#define LSR_NET32(value) (value)
#define LSR_NET16(value) (value)
#endif

enum {
	LSR_BASE_HEADER = 20, /* bytes of an IPv4 header without options */
	LSR_HEADER_MAX = 60,
};

/* RFC 791 §3.1: flags and fragment offset. */
enum {
	LSR_DONT_FRAGMENT = 0x4000,
	LSR_MORE_FRAGMENTS = 0x2000,
	LSR_FRAGMENT_OFFSET = 0x1fff,
};

/* How far a packet has come on this host. */
enum lsr_stage {
	LSR_ARRIVED = 0,   /* from the wire */
	LSR_ROUTED = 1,    /* the stack forwards it: TTL, netfilter and routes are behind it */
	LSR_LOCAL = 2,     /* a socket of this host sent it */
	LSR_DELIVERED = 3, /* sent on where its chain has ended, past the stack */
};

/* What the base header says, checked against the frame. */
struct lsr_packet {
	__be32 source;
	__be32 destination;
	__u32 length; /* total length, bytes */
	__u8 header;  /* bytes, 20…60 */
	__u8 ttl;
	__u8 protocol;
	__u8 dscp;
	__u16 fragment; /* flags and offset as in the header, host byte order */

	/* what the steps learn and want, none of it from the header; the stack has no room for more than 48 bytes */
	__u16 mtu;         /* to tell the sender of, bytes */
	__u8 stage;        /* enum lsr_stage */
	__u8 icmp : 4;     /* enum lsr_icmp: what this port allows */
	__u8 previous : 3; /* enum lsr_previous_hop */
	__u8 bypass : 1;   /* of this port: see lsr_interface */
	__u8 type;         /* of the ICMP error to answer with, 0 for none */
	__u8 code;         /* of that error */
	__u16 options;     /* what this port does with options: see lsr_interface */
	__u8 turn;         /* enum lsr_turn: it is a probe */
	__u8 slices;       /* fragments that it was cut into, 0 for none */
	__u32 input;       /* ifindex that routes are looked up for */
	__u32 path;        /* that it takes, as far as it is known; probes have none */
	__u32 chain;       /* the same; where a segment has ended, the one that begins */
	__u32 function;    /* that gets it where its chain has ended; 0 for none */
	__u32 notes;       /* bit n: count LSR_NOTE_… n beside the outcome */
};

static __always_inline bool is_fragment(const struct lsr_packet *packet)
{
	return packet->fragment & (LSR_MORE_FRAGMENTS | LSR_FRAGMENT_OFFSET);
}

/* Without the L4 header, and without the options that are not copied (RFC 791 §3.1). */
static __always_inline bool is_later_fragment(const struct lsr_packet *packet)
{
	return packet->fragment & LSR_FRAGMENT_OFFSET;
}

/* What the options hold; offsets count from the first option byte. */
struct lsr_options {
	__u8 seen; /* LSR_SEEN_… */
	__u8 route_type;
	__u8 route_length;
	__u8 route_pointer;
	__u8 record_at;     /* 0 where there is nothing to record in */
	__u8 record_length; /* 0 without Record Route; also of the NOPs in its place */
	__u8 record_pointer;
	__u8 end;     /* where padding begins */
	__u8 classes; /* bit n: enum lsr_option_class n was seen */
	__u8 route_at;
	__u8 tag; /* length of the integrity option, which is first; 0 without */
	__u8 unused;
};

enum {
	LSR_SEEN_ROUTE = 1,
	LSR_SEEN_RECORD = 2,
	LSR_SEEN_NOP = 4,
	LSR_SEEN_FORBIDDEN = 8, /* known, and never beside a source route */
	LSR_SEEN_UNKNOWN = 16,
	LSR_SEEN_END = 64,
	LSR_SEEN_DISORDER = 32, /* something is not at the place that it has in a chain packet */
	LSR_SEEN_TAG = 128,
};

/* Keeps the compiler from proving away a bound that the verifier wants to see checked. */
static __always_inline __u32 opaque(__u32 value)
{
	__asm__ volatile("" : "+r"(value));
	return value;
}

/*
 * Whether a length that opaque() has returned is in these bounds, checked one by one. Linux 6.1 learns nothing from the
 * one compare that the compiler would make of both (value - low <= high - low), nor from `value != 0` for `low` 1.
 */
static __always_inline bool lies_within(__u32 value, __u32 low, __u32 high)
{
	return value >= opaque(low) && value <= high;
}

/*
 * A step that the verifier checks once, on its own, however many ways lead to it: without, the
 * number of ways multiplies from step to step. Its pointer arguments may be NULL for all it knows.
 */
#define LSR_STEP __attribute__((noinline))

#ifdef __bpf__
#define lsr_frame __sk_buff
#else
struct lsr_frame {
	const __u8 *ip;
	__u32 length;
};
#endif

/* Copies bytes that begin `at` bytes behind the start of the IPv4 header; 0, or negative. */
static __always_inline long load_bytes(const struct lsr_frame *frame, __u32 at, void *to,
				       __u32 length);

static __always_inline enum lsr_reason parse_header(const struct lsr_frame *frame, __u32 available,
						    bool gso, struct lsr_packet *packet)
{
	struct iphdr header;

	if (load_bytes(frame, 0, &header, sizeof(header)))
		return LSR_DROP_SHORT;
	if (header.version != 4)
		return LSR_DROP_VERSION;
	if (header.ihl < 5)
		return LSR_DROP_IHL;

	packet->header = header.ihl * 4;
	packet->length = LSR_NET16(header.tot_len);
	if (!packet->length && gso) /* BIG TCP: more than the field holds */
		packet->length = available;
	if (packet->length < packet->header || packet->length > available)
		return LSR_DROP_TOTAL_LENGTH;

	packet->source = header.saddr;
	packet->destination = header.daddr;
	packet->ttl = header.ttl;
	packet->protocol = header.protocol;
	packet->dscp = header.tos >> 2;
	packet->fragment = LSR_NET16(header.frag_off);
	return 0;
}

/* A header with its options, zero-filled. */
struct lsr_header {
	__be32 word[LSR_HEADER_MAX / 4];
};

static __always_inline bool load_header(const struct lsr_frame *frame, __u32 length,
					struct lsr_header *header)
{
	length = opaque(length);
	if (!lies_within(length, LSR_BASE_HEADER, LSR_HEADER_MAX))
		return false;
	__builtin_memset(header, 0, sizeof(*header));
	return !load_bytes(frame, 0, header, length);
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* The 16-bit one's complement sum: 0xffff when the header's checksum is right (RFC 1071). */
static __always_inline __u16 sum_header(const struct lsr_header *header)
{
	__u64 sum = 0;

#pragma clang loop unroll(full)
	for (__u32 i = 0; i < LSR_HEADER_MAX / 4; i++)
		sum += header->word[i];
	return fold(sum);
}

/*
 * 1 where the two are equal, without a branch: each branch doubles the ways that the verifier
 * follows, and comparing all entries of a route with each other has many.
 */
static __always_inline __u32 equals(__u32 left, __u32 right)
{
	__u32 difference = left ^ right;

	return ~opaque(difference | -difference) >> 31;
}

/* Not a host: 0/8, 127/8, 224/4 and above (RFC 1812 §5.3.7). */
static __always_inline __u32 is_martian(__be32 address)
{
	__u32 first = LSR_NET32(address) >> 24;

	return equals(first, 0) | equals(first, 127) | equals(first >> 5, 224 >> 5);
}

static __always_inline bool is_source_route(__u8 type)
{
	return type == LSR_OPTION_LOOSE || type == LSR_OPTION_STRICT;
}

static __always_inline bool is_route_length(__u8 length)
{
	return length >= 7 && length % 4 == 3;
}

static __always_inline bool is_route_pointer(__u8 pointer, __u8 length)
{
	return pointer >= 4 && pointer % 4 == 0 && pointer <= length + 1;
}

/* An option's first bytes; a short option's pointer is never looked at. */
struct lsr_option_head {
	__u8 type;
	__u8 length;
	__u8 pointer;
};

/* Opaque, or the verifier would follow each set of classes that there can be. */
static __always_inline void note_class(struct lsr_options *options, enum lsr_option_class class)
{
	options->classes = opaque(options->classes | 1U << class);
}

static __always_inline enum lsr_reason read_route(const struct lsr_option_head *head, __u32 at,
						  struct lsr_options *options)
{
	if (options->seen & LSR_SEEN_ROUTE)
		return LSR_DROP_DUPLICATE_OPTION;
	if (!is_route_length(head->length))
		return LSR_DROP_OPTION_LENGTH;
	if (!is_route_pointer(head->pointer, head->length))
		return LSR_DROP_POINTER;
	if (at != options->tag)
		options->seen |= LSR_SEEN_DISORDER;
	options->seen |= LSR_SEEN_ROUTE;
	note_class(options, LSR_CLASS_SOURCE_ROUTE);
	options->route_at = at;
	options->route_type = head->type;
	options->route_length = head->length;
	options->route_pointer = head->pointer;
	return 0;
}

static __always_inline enum lsr_reason read_record(const struct lsr_option_head *head, __u32 at,
						   struct lsr_options *options)
{
	if (options->seen & LSR_SEEN_RECORD)
		return LSR_DROP_DUPLICATE_OPTION;
	if (!is_route_length(head->length))
		return LSR_DROP_RECORD_LENGTH;
	if (!is_route_pointer(head->pointer, head->length))
		return LSR_DROP_RECORD_POINTER;
	if (at != options->route_at + options->route_length)
		options->seen |= LSR_SEEN_DISORDER;
	options->seen |= LSR_SEEN_RECORD;
	note_class(options, LSR_CLASS_RECORD_ROUTE);
	options->record_at = at;
	options->record_length = head->length;
	options->record_pointer = head->pointer;
	return 0;
}

static __always_inline enum lsr_reason read_tag(const struct lsr_option_head *head, __u32 at,
						struct lsr_options *options)
{
	if (options->seen & LSR_SEEN_TAG)
		return LSR_DROP_DUPLICATE_OPTION;
	if (head->length != LSR_TAG_LENGTH)
		return LSR_DROP_TAG_FORMAT;
	if (at)
		options->seen |= LSR_SEEN_DISORDER;
	options->seen |= LSR_SEEN_TAG;
	note_class(options, LSR_CLASS_OTHER);
	options->tag = LSR_TAG_LENGTH;
	return 0;
}

static __always_inline enum lsr_option_class classify_option(__u8 type)
{
	switch (type) {
	case LSR_OPTION_TIMESTAMP:
		return LSR_CLASS_TIMESTAMP;
	case LSR_OPTION_ROUTER_ALERT:
		return LSR_CLASS_ROUTER_ALERT;
	case LSR_OPTION_SECURITY:
	case LSR_OPTION_EXTENDED_SECURITY:
	case LSR_OPTION_CIPSO:
		return LSR_CLASS_SECURITY;
	case LSR_OPTION_STREAM_ID:
		return LSR_CLASS_STREAM_ID;
	case LSR_OPTION_MASKED_ROUTE: /* has no business outside a host */
		return LSR_CLASS_SOURCE_ROUTE;
	default:
		return LSR_CLASS_OTHER;
	}
}

static __always_inline enum lsr_reason read_other(const struct lsr_option_head *head,
						  struct lsr_options *options)
{
	enum lsr_option_class class;

	if (head->type == LSR_OPTION_ROUTER_ALERT && head->length != 4) /* RFC 2113 §2.1 */
		return LSR_DROP_OPTION_LENGTH;
	class = classify_option(head->type);
	note_class(options, class);
	options->seen |= class == LSR_CLASS_OTHER ? LSR_SEEN_UNKNOWN : LSR_SEEN_FORBIDDEN;
	return 0;
}

/* The strictest of a port's policies for the options that a packet has; NOPs alone count as others. */
static __always_inline enum lsr_option_policy judge_options(__u32 policies,
							    const struct lsr_options *options)
{
	__u32 classes = options->classes ? options->classes : 1 << LSR_CLASS_OTHER;
	__u32 strictest = LSR_POLICY_PASS;

#pragma clang loop unroll(full)
	for (__u32 i = 0; i < LSR_CLASSES; i++) {
		__u32 policy = policies >> 2 * i & 3;

		if ((classes >> i & 1) && policy > strictest)
			strictest = policy;
	}
	return strictest;
}

/* Reads one option that is longer than a byte; `room` is what is left from its type byte on. */
static __always_inline enum lsr_reason read_option(const struct lsr_option_head *head, __u32 at,
						   __u32 room, struct lsr_options *options)
{
	if (room < 2)
		return LSR_DROP_OPTION_OVERRUN;
	if (head->length < 2)
		return head->type == LSR_OPTION_RECORD_ROUTE ? LSR_DROP_RECORD_LENGTH
							     : LSR_DROP_OPTION_LENGTH;
	if (head->length > room)
		return LSR_DROP_OPTION_OVERRUN;
	if (is_source_route(head->type))
		return read_route(head, at, options);
	if (head->type == LSR_OPTION_RECORD_ROUTE)
		return read_record(head, at, options);
	if (head->type == LSR_OPTION_INTEGRITY)
		return read_tag(head, at, options);
	return read_other(head, options);
}

static __always_inline bool has_more(const struct lsr_options *options, __u32 length)
{
	return options->end < length && !(options->seen & LSR_SEEN_END);
}

/*
 * Reads the option at `options->end` and moves on: 0, or its fault. To be called while has_more(),
 * which is at most 40 times.
 */
static __always_inline enum lsr_reason read_next(const struct lsr_frame *frame, __u32 length,
						 struct lsr_options *options)
{
	struct lsr_option_head head = {};
	enum lsr_reason reason;
	__u32 at = options->end;
	__u32 size;

	size = opaque(length - at < sizeof(head) ? length - at : sizeof(head));
	if (!lies_within(size, 1, sizeof(head)))
		return LSR_DROP_SHORT;
	if (load_bytes(frame, LSR_BASE_HEADER + at, &head, size))
		return LSR_DROP_SHORT;
	if (head.type == LSR_OPTION_END) {
		options->seen |= LSR_SEEN_END;
		return 0;
	}
	if (head.type == LSR_OPTION_NOP) {
		options->seen |= LSR_SEEN_NOP;
		options->end = at + 1;
		return 0;
	}
	reason = read_option(&head, at, length - at, options);
	if (reason)
		return reason;
	options->end = at + head.length;
	return 0;
}

/*
 * A router that fragments puts NOPs in the place of Record Route, in all fragments but the first
 * (net/ipv4/ip_options.c, ip_options_fragment): they count as the Record Route they were.
 */
static __always_inline void read_blank(struct lsr_options *options)
{
	__u32 length = options->end - options->route_at - options->route_length;

	if (options->seen & LSR_SEEN_RECORD) {
		options->seen |= LSR_SEEN_DISORDER;
		return;
	}
	if (!is_route_length(length))
		return;
	options->seen &= ~LSR_SEEN_NOP;
	options->record_length = length;
}

/*
 * The canonical chain packet: integrity option if any, source route, then Record Route if any, then one or two bytes of
 * zero padding. What follows the End of Option List is nobody's (RFC 791 §3.1), so it must be zero.
 */
static __always_inline enum lsr_reason check_layout(const struct lsr_frame *frame,
						    const struct lsr_packet *packet,
						    struct lsr_options *options)
{
	__u32 padding = packet->header - LSR_BASE_HEADER - options->end;
	__u8 last[2] = {}; /* the first is the End of Option List */

	if (is_later_fragment(packet))
		read_blank(options);

	if (options->seen & LSR_SEEN_FORBIDDEN)
		return LSR_DROP_FORBIDDEN_OPTION;
	if (options->seen & LSR_SEEN_UNKNOWN)
		return LSR_DROP_UNKNOWN_OPTION;
	if (options->seen & (LSR_SEEN_NOP | LSR_SEEN_DISORDER))
		return LSR_DROP_LAYOUT;
	padding = opaque(padding);
	if (padding > sizeof(last))
		return LSR_DROP_LAYOUT;
	if (lies_within(padding, 1, sizeof(last)) &&
	    load_bytes(frame, LSR_BASE_HEADER + options->end, last, padding))
		return LSR_DROP_SHORT;
	return last[1] ? LSR_DROP_LAYOUT : 0;
}

#endif
