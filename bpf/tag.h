/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The integrity option: a tag that only a node with the key can make. It covers what stays the same
 * from the edge to the end, so that one tag holds at every hop; what changes on the way, pointer and
 * record, is in the table of predicted headers.
 */
#ifndef LSR_TAG_H
#define LSR_TAG_H

#include "classify.h"
#include "siphash.h"
#include <stddef.h>

enum {
	LSR_SLOT_BITS = 2, /* of the option's number; the others are the chain's */
	LSR_CHAIN_BITS = 14,
	LSR_EPOCHS_EXPLAINED = 4, /* how far back a tag is told to be old and not just wrong */
};

/* What a tag is made of; the first words are those of the option. */
struct lsr_covered {
	__u8 type;
	__u8 length;
	__be16 number; /* key slot and chain */
	__be32 path;
	__be32 source;
	__be32 destination; /* the final one */
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 unused[3];
	__u64 epoch; /* network byte order */
};

union lsr_cover {
	struct lsr_covered fields;
	__u64 word[LSR_COVERED_WORDS];
};

/* The option as it travels. */
struct lsr_tag {
	__u8 type;
	__u8 length;
	__be16 number;
	__u32 tag[2]; /* little-endian, low half first */
};

/* CLOCK_REALTIME, ns. The kernel lends programs TAI only, and no daemon is needed to go on counting. */
static __always_inline __u64 read_wall_clock(void)
{
	__u32 zero = 0;
	const struct lsr_signing *current = bpf_map_lookup_elem(&signing, &zero);

	return bpf_ktime_get_tai_ns() - (current ? current->tai_offset : 0);
}

/*
 * A packet that may be fragmented on the way is covered without its ports: only then does its tag
 * hold for the fragments. One with DF cannot lose DF without losing its tag.
 */
static __always_inline bool covers_ports(const struct lsr_packet *packet, __u32 binding)
{
	return binding == LSR_BINDING_PORTS && packet->fragment == LSR_DONT_FRAGMENT;
}

/* What is covered of a packet but its epoch. Its L4 header begins at packet->header. */
static __always_inline void cover(struct __sk_buff *skb, const struct lsr_packet *packet,
				  __u32 path, __u32 binding, struct lsr_covered *covered)
{
	struct lsr_fields ports = {};

	if (covers_ports(packet, binding))
		read_ports(skb, packet, &ports);
	covered->type = LSR_OPTION_INTEGRITY;
	covered->length = LSR_TAG_LENGTH;
	covered->path = LSR_NET32(path);
	covered->source = packet->source;
	covered->destination = packet->destination;
	covered->source_port = ports.source_port;
	covered->destination_port = ports.destination_port;
	covered->protocol = packet->protocol;
}

/* Verified once: hashing is long, and many ways lead to it. */
LSR_STEP int hash_words(const union lsr_cover *cover, const struct lsr_key *key, __u64 *hash)
{
	if (cover && key && hash)
		*hash = siphash(key->low, key->high, cover->word);
	return 0;
}

static __always_inline __u64 make_tag(union lsr_cover *cover, const struct lsr_key *key,
				      __u64 epoch)
{
	__u64 tag = 0;

	cover->fields.epoch = LSR_NET64(epoch);
	hash_words(cover, key, &tag);
	return tag;
}

/* A key that is set and has not run out. */
static __always_inline enum lsr_reason find_key(__u32 slot, __u64 now, struct lsr_key *key)
{
	const struct lsr_key *found = bpf_map_lookup_elem(&keys, &slot);

	if (!found || !found->until)
		return LSR_DROP_KEY_UNKNOWN;
	if (now >= found->until)
		return LSR_DROP_KEY_EXPIRED;
	*key = *found;
	return 0;
}

/*
 * Writes the tag of a packet whose other options are written, all but the header's checksum.
 * Signed as of LSR_LAG_NS ago: a hop whose clock is behind by less never sees a tag of tomorrow.
 */
LSR_STEP int sign(struct __sk_buff *skb, const struct lsr_packet *packet, __u32 path, __u32 binding,
		  __u32 chain)
{
	const struct lsr_signing *current;
	union lsr_cover covered = {};
	struct lsr_tag option = {};
	struct lsr_key key;
	__u32 zero = 0;
	__u64 now, tag;

	current = bpf_map_lookup_elem(&signing, &zero);
	if (!packet || !current)
		return LSR_DROP_NO_KEY;
	now = read_wall_clock();
	if (find_key(current->slot, now, &key))
		return LSR_DROP_NO_KEY;
	cover(skb, packet, path, binding, &covered.fields);
	option.type = LSR_OPTION_INTEGRITY;
	option.length = LSR_TAG_LENGTH;
	option.number = LSR_NET16((__u16)(current->slot << LSR_CHAIN_BITS | chain));
	covered.fields.number = option.number;
	tag = LSR_LITTLE64(make_tag(&covered, &key, (now - LSR_LAG_NS) / LSR_EPOCH_NS));
	__builtin_memcpy(option.tag, &tag, sizeof(tag));
	return store_bytes(skb, LSR_BASE_HEADER, &option, sizeof(option)) ? LSR_DROP_RESIZE : 0;
}

/* What tells a packet from others with the same tag: length, identification, and how its payload begins. */
struct lsr_instance {
	__u32 tag[2];
	__u8 header[6]; /* total length, identification, flags and offset */
	__u8 unused[2];
	__u8 payload[16];
};

union lsr_instance_words {
	struct lsr_instance fields;
	union lsr_cover cover;
};

/* Whether this very packet came before, as long as its tag holds; only where its tag was verified. */
LSR_STEP int is_repeated(struct __sk_buff *skb, const struct lsr_packet *packet)
{
	union lsr_instance_words instance = {};
	struct lsr_tag option;
	struct lsr_key key;
	__u64 now = bpf_ktime_get_boot_ns(), digest = 0;
	const __u64 *before;

	if (!packet || load_bytes(skb, LSR_BASE_HEADER, &option, sizeof(option)) ||
	    load_bytes(skb, offsetof(struct iphdr, tot_len), instance.fields.header,
		       sizeof(instance.fields.header)))
		return false;
	if (find_key(LSR_NET16(option.number) >> LSR_CHAIN_BITS, 0, &key))
		return false;
	__builtin_memcpy(instance.fields.tag, option.tag, sizeof(option.tag));
	if (load_bytes(skb, packet->header, instance.fields.payload,
		       sizeof(instance.fields.payload)))
		load_bytes(skb, packet->header, instance.fields.payload,
			   sizeof(instance.fields.payload) / 2);
	hash_words(&instance.cover, &key, &digest);
	if (!bpf_map_update_elem(&seen, &digest, &now, BPF_NOEXIST))
		return false;
	before = bpf_map_lookup_elem(&seen, &digest);
	if (before && now - *before < 2ULL * LSR_EPOCH_NS)
		return true;
	bpf_map_update_elem(&seen, &digest, &now, BPF_ANY);
	return false;
}

/*
 * Whether the tag at `at` is that of a packet to `final` on this path, made lately with a key that
 * holds. `packet` need not be the skb's own: an ICMP error quotes another.
 */
LSR_STEP int verify_tag(struct __sk_buff *skb, const struct lsr_packet *packet, __u32 at,
			const struct lsr_hop *hop, __be32 final)
{
	union lsr_cover covered = {};
	struct lsr_tag option;
	struct lsr_key key;
	enum lsr_reason reason;
	__u64 now, epoch, first, tag = 0;

	if (!packet || !hop || load_bytes(skb, at, &option, sizeof(option)))
		return LSR_DROP_SHORT;
	now = read_wall_clock();
	reason = find_key(LSR_NET16(option.number) >> LSR_CHAIN_BITS, now, &key);
	if (reason)
		return reason;
	cover(skb, packet, hop->path, hop->binding, &covered.fields);
	covered.fields.destination = final;
	covered.fields.number = option.number;
	__builtin_memcpy(&tag, option.tag, sizeof(tag));
	tag = LSR_LITTLE64(tag);

	epoch = now / LSR_EPOCH_NS;
	first = (now - LSR_LAG_NS) / LSR_EPOCH_NS; /* what our own clock would sign with */
	if (!(make_tag(&covered, &key, first) ^ tag))
		return 0;
	if (!(make_tag(&covered, &key, 2 * epoch - 1 - first) ^ tag))
		return 0;
	if (!(make_tag(&covered, &key, epoch + 1) ^ tag))
		return LSR_DROP_TAG_AGE;
	for (__u32 i = 0; i < LSR_EPOCHS_EXPLAINED; i++) {
		if (!(make_tag(&covered, &key, epoch - 2 - i) ^ tag))
			return LSR_DROP_TAG_AGE;
	}
	return LSR_DROP_TAG_WRONG;
}

#endif
