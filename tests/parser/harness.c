// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Reads packets from stdin and writes one struct lsr_decision for each to stdout. In front of a
 * packet: its length, two bytes in this machine's order, and 1 where it is to count as GSO.
 */
#include "decide.h"
#include <stdio.h>

struct lsr_head {
	__u16 length;
	__u16 gso;
};

_Static_assert(sizeof(struct lsr_decision) == 48, "as tests/parser/decision.ts has it");

/* An allocation of exactly its length lets AddressSanitizer see a read behind the packet. */
static void decide_one(const struct lsr_head *head)
{
	__u8 *bytes = malloc(head->length ? head->length : 1);
	struct lsr_frame frame = {.ip = bytes, .length = head->length};
	struct lsr_decision decision;

	if (!bytes || fread(bytes, 1, head->length, stdin) != head->length) {
		fprintf(stderr, "the input ends inside a packet\n");
		exit(1);
	}
	decide(&frame, head->gso, &decision);
	fwrite(&decision, sizeof(decision), 1, stdout);
	free(bytes);
}

int main(void)
{
	struct lsr_head head;

	while (fread(&head, sizeof(head), 1, stdin) == 1)
		decide_one(&head);
	return ferror(stdin) || fflush(stdout) ? 1 : 0;
}
