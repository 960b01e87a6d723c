// Sends the frames of standard input in turn, as fast as it can, and prints how often the kernel took each.
// Usage: flood DEVICE SECONDS <FRAMES; a frame is its length (16 bits, host byte order) and its bytes. A frame that
// the kernel refuses for want of buffers is not sent again.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum {
	FRAMES_MAX = 4096,
	FRAME_BYTES_MAX = 2048,
	BATCH = 64, /* frames a system call */
};

static char bytes[FRAMES_MAX][FRAME_BYTES_MAX];
static struct iovec parts[FRAMES_MAX];
static struct mmsghdr messages[FRAMES_MAX];
static uint64_t taken[FRAMES_MAX];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static unsigned read_frames(void)
{
	uint16_t length;
	unsigned count = 0;

	while (fread(&length, sizeof(length), 1, stdin) == 1) {
		if (count == FRAMES_MAX || length > FRAME_BYTES_MAX ||
		    fread(bytes[count], length, 1, stdin) != 1)
			fail("frames");
		parts[count].iov_base = bytes[count];
		parts[count].iov_len = length;
		messages[count].msg_hdr.msg_iov = &parts[count];
		messages[count].msg_hdr.msg_iovlen = 1;
		count++;
	}
	if (!count)
		fail("frames");
	return count;
}

static int open_device(const char *name)
{
	struct sockaddr_ll device = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(name)};
	int packets = socket(AF_PACKET, SOCK_RAW, 0);
	int on = 1;

	if (packets < 0 || bind(packets, (struct sockaddr *)&device, sizeof(device)) ||
	    setsockopt(packets, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)))
		fail(name);
	return packets;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **words)
{
	unsigned frames, next = 0;
	uint64_t refused = 0;
	double begun, end;
	int packets;

	if (count != 3)
		return 2;
	frames = read_frames();
	packets = open_device(words[1]);
	begun = now();
	end = begun + atof(words[2]);
	while (now() < end) {
		unsigned most = frames - next < BATCH ? frames - next : BATCH;
		int sent = sendmmsg(packets, messages + next, most, 0);

		if (sent < 0 && errno != ENOBUFS)
			fail("sendmmsg");
		for (int i = 0; i < sent; i++)
			taken[next + i]++;
		if (sent < 0) { /* the first of these was refused */
			refused++;
			sent = 1;
		}
		next = (next + sent) % frames;
	}
	printf("{\"seconds\": %f, \"refused\": %lu, \"taken\": [%lu", now() - begun,
	       (unsigned long)refused, (unsigned long)taken[0]);
	for (unsigned i = 1; i < frames; i++)
		printf(", %lu", (unsigned long)taken[i]);
	printf("]}\n");
	return 0;
}
