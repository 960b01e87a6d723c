/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the parser of bpf/parse.h decides about one IPv4 packet, in user space. It only calls. */
#ifndef LSR_DECIDE_H
#define LSR_DECIDE_H

#include "../../bpf/parse.h"
#include <stdlib.h>
#include <string.h>

/* 48 bytes without padding; tests/parser/decision.ts knows the same layout. */
struct lsr_decision {
	__u8 header_fault; /* enum lsr_reason, 0 for none; so are the other faults */
	__u8 option_fault;
	__u8 layout_fault;
	__u8 checksum; /* 1 where the header's is right */

	__be32 source;
	__be32 destination;
	__u32 length;
	__u16 fragment;
	__u8 header;
	__u8 ttl;
	__u8 protocol;
	__u8 dscp;
	__u8 martian; /* 1 where the source is no host */
	__u8 route;   /* 1 where the options hold a source route */

	struct lsr_options scanned;  /* when the last option, or the first fault, was reached */
	struct lsr_options laid_out; /* of a canonical chain packet only */
};

static __always_inline long load_bytes(const struct lsr_frame *frame, __u32 at, void *to,
				       __u32 length)
{
	if (at > frame->length || length > frame->length - at)
		return -1;
	memcpy(to, frame->ip + at, length);
	return 0;
}

/* The loop of scan_options() in bpf/port.h, without bpf_loop(). More steps than it has: abort. */
static inline enum lsr_reason scan(const struct lsr_frame *frame, __u32 length,
				   struct lsr_options *options)
{
	enum lsr_reason fault = 0;

	for (__u32 step = 0; !fault && has_more(options, length); step++) {
		if (step == LSR_OPTIONS_MAX)
			abort();
		fault = read_next(frame, length, options);
	}
	return fault;
}

static inline void decide(const struct lsr_frame *frame, bool gso, struct lsr_decision *decision)
{
	struct lsr_packet packet = {};
	struct lsr_options options = {};
	struct lsr_header header;

	memset(decision, 0, sizeof(*decision));
	decision->header_fault = parse_header(frame, frame->length, gso, &packet);
	if (decision->header_fault)
		return;
	decision->source = packet.source;
	decision->destination = packet.destination;
	decision->length = packet.length;
	decision->fragment = packet.fragment;
	decision->header = packet.header;
	decision->ttl = packet.ttl;
	decision->protocol = packet.protocol;
	decision->dscp = packet.dscp;
	decision->martian = is_martian(packet.source);
	decision->checksum =
		load_header(frame, packet.header, &header) && sum_header(&header) == 0xffff;

	decision->option_fault = scan(frame, packet.header - LSR_BASE_HEADER, &options);
	decision->scanned = options;
	decision->route = (options.seen & LSR_SEEN_ROUTE) != 0;
	if (decision->option_fault || !decision->route)
		return;
	decision->layout_fault = check_layout(frame, &packet, &options);
	if (!decision->layout_fault)
		decision->laid_out = options;
}

#endif
