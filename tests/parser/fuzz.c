// SPDX-License-Identifier: GPL-2.0 OR MIT
/* libFuzzer's entry: what holds for every packet, whatever else is decided about it. */
#include "decide.h"
#include <stddef.h>

static void hold(bool promise)
{
	if (!promise)
		abort();
}

/* The grammar of a chain packet, and nothing of it outside the header. */
static void check_chain(const struct lsr_decision *decision)
{
	const struct lsr_options *options = &decision->laid_out;
	__u32 length = decision->header - LSR_BASE_HEADER;
	__u32 used = options->route_at + options->route_length + options->record_length;

	hold(options->route_type == LSR_OPTION_LOOSE || options->route_type == LSR_OPTION_STRICT);
	hold(options->route_length >= 7 && options->route_length <= 39);
	hold(options->route_length % 4 == 3);
	hold(options->route_pointer >= 4 && options->route_pointer % 4 == 0);
	hold(options->route_pointer <= options->route_length + 1);
	hold(options->route_at == (options->tag ? LSR_TAG_LENGTH : 0));
	hold(used <= length && length - used < 4);
	if (options->record_length)
		hold(options->record_length % 4 == 3);
	if (options->record_at) {
		hold(options->record_at == options->route_at + options->route_length);
		hold(options->record_pointer >= 4 && options->record_pointer % 4 == 0);
		hold(options->record_pointer <= options->record_length + 1);
	}
}

int LLVMFuzzerTestOneInput(const __u8 *bytes, size_t size)
{
	struct lsr_decision decision;
	struct lsr_frame frame = {.ip = bytes, .length = size};

	if (!size)
		return 0;
	frame.ip++; /* the first byte is not of the packet: its lowest bit stands for GSO */
	frame.length--;
	decide(&frame, bytes[0] & 1, &decision);
	if (decision.header_fault)
		return 0;
	hold(decision.header >= LSR_BASE_HEADER && decision.header <= LSR_HEADER_MAX);
	hold(decision.header <= decision.length && decision.length <= frame.length);
	hold(decision.scanned.end <= decision.header - LSR_BASE_HEADER);
	if (decision.route && !decision.option_fault && !decision.layout_fault)
		check_chain(&decision);
	return 0;
}
