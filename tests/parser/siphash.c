/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Reads 16 bytes of key and 32 of message at a time, writes the 8 bytes of each tag. */
#include "decide.h"

#include "../../bpf/siphash.h"
#include <stdio.h>

int main(void)
{
	__u64 input[2 + LSR_COVERED_WORDS];

	while (fread(input, sizeof(input), 1, stdin) == 1) {
		__u64 tag = LSR_LITTLE64(
			siphash(LSR_LITTLE64(input[0]), LSR_LITTLE64(input[1]), input + 2));

		fwrite(&tag, sizeof(tag), 1, stdout);
	}
	return 0;
}
