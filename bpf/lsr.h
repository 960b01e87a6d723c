/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The only layout: every key, value, event and reason that the kernel side and the agent share.
 * src/layout.ts is generated from this header's BTF (npm run layout).
 *
 * __be types are in network byte order, __u types in host byte order.
 */
#ifndef LSR_H
#define LSR_H

#include <linux/types.h>

enum lsr_limits {
	LSR_OPTIONS_MAX = 40,    /* bytes; RFC 791 §3.1: IHL is at most 15 */
	LSR_ROUTE_MAX = 9,       /* source route entries that fit 40 bytes */
	LSR_HOPS_KNOWN = 8,      /* entries known in advance: all but the destination */
	LSR_RECORD_MAX = 7,      /* Record Route slots beside a source route of one entry */
	LSR_TUPLES_MAX = 64,     /* distinct field masks among the rules of one set */
	LSR_CGROUP_LEVELS = 12,  /* below the root, that a cgroup of a rule may be at */
	LSR_INTERFACES_MAX = 64, /* managed interfaces of one agent */
	LSR_NEAR_MAX = 1024,     /* an ifindex below it is found without hashing */
	LSR_NAME_MAX = 16,       /* IFNAMSIZ, include/uapi/linux/if.h */
	LSR_QUOTE_MAX = 512, /* bytes; the error as a whole is at most 576 (RFC 1812 §4.3.2.3) */
	LSR_ICMP_PER_SECOND = 1000, /* errors, on each CPU; as net.ipv4.icmp_msgs_per_sec */
	LSR_ICMP_BURST = 50,        /* as net.ipv4.icmp_msgs_burst */
	LSR_KEYS = 4,               /* previous, current, next, and one to spare */
	LSR_TAG_LENGTH = 12,        /* bytes of the integrity option */
	LSR_CHAIN_MAX = 0x3fff,     /* the number of a chain in the integrity option */
	LSR_EPOCH_NS = 2000000000,  /* a tag holds in its epoch and in the next */
	LSR_LAG_NS = 500000000,     /* how far clocks may differ without a loss */
	LSR_SEEN_MAX = 65536,       /* packets that a hop remembers, where it takes none twice */
	LSR_SLOTS = 512,        /* of a chain with several paths; a flow falls into one of them */
	LSR_PROBE_PORT = 7914,  /* UDP */
	LSR_MOVED_MAX = 262144, /* flows that began while a node was drained */
	LSR_SAMPLES_PER_SECOND = 100, /* of drops, on each CPU; see sample_drop() */
	LSR_SAMPLES_BURST = 50,
	LSR_FLOWS_PER_SECOND = 20, /* announcements of new ones, on each CPU */
	LSR_WATCHES_MAX = 8,       /* flows that are followed at once */
	LSR_RECENT_MAX = 256,      /* routes that each CPU remembers */
	LSR_RECENT_NS = 10000000,  /* for how long */
};

/* IPv4 option types with the copied bit, RFC 791 §3.1. */
enum lsr_option {
	LSR_OPTION_END = 0,
	LSR_OPTION_NOP = 1,
	LSR_OPTION_RECORD_ROUTE = 7,
	LSR_OPTION_TIMESTAMP = 68,
	LSR_OPTION_SECURITY = 130,
	LSR_OPTION_LOOSE = 131,
	LSR_OPTION_EXTENDED_SECURITY = 133,
	LSR_OPTION_CIPSO = 134,
	LSR_OPTION_STREAM_ID = 136,
	LSR_OPTION_STRICT = 137,
	LSR_OPTION_ROUTER_ALERT = 148,
	/* ours, from the numbers for experiments: RFC 4727 §2.3 */
	LSR_OPTION_MASKED_RECORD = 30, /* Record Route and a source route while they pass a */
	LSR_OPTION_MASKED_ROUTE = 222, /* function: bpf/function.h */
	LSR_OPTION_INTEGRITY = 158,
};

/*
 * Why a packet left a program, and what else was counted about it. Each packet counts once under
 * LSR_RECEIVED and once under an outcome or a drop:
 *     received = passed + own + imposed + advanced + forwarded + ended + sliced + to_stack + to_device +
 *                tapped + probed + sum of drops
 */
enum lsr_reason {
	/* notes: counted beside the outcome */
	LSR_RECEIVED,
	LSR_NOTE_MSS_CLAMPED,
	LSR_NOTE_RECORD_FULL,
	LSR_NOTE_STRIPPED,
	LSR_NOTE_FRAGMENTED,
	LSR_NOTE_NEIGHBOUR_PENDING, /* handed over while the next hop's MAC address was unknown */
	LSR_NOTE_ICMP_SENT,
	LSR_NOTE_ICMP_LIMITED,
	LSR_NOTE_ICMP_TRANSLATED,
	LSR_NOTE_FLOW_LOST,
	LSR_NOTE_EVENT_LOST,
	LSR_NOTE_TRAFFIC_LOST, /* not counted by path: the table is full */
	LSR_NOTE_COPIED,       /* a copy went to a tap */
	LSR_NOTE_COPY_FAILED,  /* it should have; the packet itself went on */
	LSR_NOTE_REPORTED,     /* from elsewhere than the hop before; its chain lets it go on */
	LSR_NOTE_SEGMENT,      /* one segment of its chain ended here, and the next began */

	/* outcomes */
	LSR_PASSED,
	LSR_OWN,
	LSR_IMPOSED,
	LSR_ADVANCED,
	LSR_FORWARDED,
	LSR_ENDED,
	LSR_SLICED,    /* a fragment that our own program cut; it passes once more, as LSR_OWN */
	LSR_TO_STACK,  /* masked, for the function of this hop; it comes back at egress */
	LSR_TO_DEVICE, /* the same, to come back at a function port */
	LSR_TAPPED,    /* a copy, at the port of its tap */
	LSR_PROBED,    /* a probe of a path that ends here, turned round */

	/* drops, in the order of the checks */
	LSR_DROP_SHORT,
	LSR_DROP_VERSION,
	LSR_DROP_IHL,
	LSR_DROP_TOTAL_LENGTH,
	LSR_DROP_EDGE_OPTION,
	LSR_DROP_SOURCE_SPOOF,
	LSR_DROP_INFRASTRUCTURE,
	LSR_DROP_LOCAL_ROUTE,
	LSR_DROP_LAYER2_DESTINATION,
	LSR_DROP_CHECKSUM,
	LSR_DROP_OPTION_LENGTH,
	LSR_DROP_OPTION_OVERRUN,
	LSR_DROP_DUPLICATE_OPTION,
	LSR_DROP_FORBIDDEN_OPTION,
	LSR_DROP_UNKNOWN_OPTION,
	LSR_DROP_TAG_FORMAT,
	LSR_DROP_LAYOUT,
	LSR_DROP_POINTER,
	LSR_DROP_EXHAUSTED,
	LSR_DROP_RECORD_LENGTH,
	LSR_DROP_RECORD_POINTER,
	LSR_DROP_SOURCE_MARTIAN,
	LSR_DROP_SOURCE_SELF,
	LSR_DROP_NOT_MY_HOP,
	LSR_DROP_BAD_HOP,
	LSR_DROP_LOOP,
	LSR_DROP_UNKNOWN_PATH,
	LSR_DROP_TAG_MISSING,
	LSR_DROP_ROUTE_MISMATCH,
	LSR_DROP_RECORD_MISMATCH,
	LSR_DROP_POSITION,
	LSR_DROP_PREVIOUS_HOP,
	LSR_DROP_KEY_UNKNOWN,
	LSR_DROP_KEY_EXPIRED,
	LSR_DROP_TAG_AGE,
	LSR_DROP_TAG_WRONG,
	LSR_DROP_REPLAY,
	LSR_DROP_ICMP_QUOTE,
	LSR_DROP_REFLECT,
	LSR_DROP_DESTINATION,
	LSR_DROP_DETOUR,
	LSR_DROP_TTL,
	LSR_DROP_NO_CHAIN,
	LSR_DROP_UNAVAILABLE,
	LSR_DROP_FRAGMENT,
	LSR_DROP_HAS_OPTIONS,
	LSR_DROP_NO_KEY,
	LSR_DROP_NO_ROUTE,
	LSR_DROP_NOT_ADJACENT,
	LSR_DROP_NOT_MESH,
	LSR_DROP_TOO_BIG,
	LSR_DROP_CANNOT_FRAGMENT,
	LSR_DROP_RESIZE,
	LSR_DROP_NO_FUNCTION,
	LSR_DROP_WRONG_FUNCTION,
	LSR_DROP_TAP_INPUT,
	LSR_DROP_UNWELL,

	LSR_REASONS,
};

enum lsr_role {
	LSR_ROLE_EDGE = 1,
	LSR_ROLE_MESH = 2,
	LSR_ROLE_FUNCTION = 3, /* behind it is a function that packets come back from */
	LSR_ROLE_TAP = 4,      /* behind it is one that gets copies, and sends nothing */
};

enum lsr_direction {
	LSR_INGRESS = 0,
	LSR_EGRESS = 1,
};

/* Where a packet to classify comes from. A rule that holds for several has an entry for each. */
enum lsr_origin {
	LSR_ORIGIN_EDGE = 1,
	LSR_ORIGIN_LOCAL = 2,
	LSR_ORIGIN_MESH = 3,
	LSR_ORIGIN_FUNCTION = 4,
	LSR_ORIGIN_FRAGMENT =
		0x80, /* beside one of the others: the packet is a fragment, without ports */
};

/* What a port may be told apart by among the options of a packet that no chain carries. */
enum lsr_option_class {
	LSR_CLASS_SOURCE_ROUTE,
	LSR_CLASS_RECORD_ROUTE,
	LSR_CLASS_TIMESTAMP,
	LSR_CLASS_ROUTER_ALERT,
	LSR_CLASS_SECURITY, /* 130, 133 and 134 */
	LSR_CLASS_STREAM_ID,
	LSR_CLASS_OTHER,
	LSR_CLASSES,
};

/* What becomes of such a packet; of several policies the strictest holds. */
enum lsr_option_policy {
	LSR_POLICY_PASS = 0, /* to this host's kernel as it is, as without us */
	LSR_POLICY_STRIP = 1,
	LSR_POLICY_DROP = 2,
};

/* From where a source route may come in, compared with the route to the hop before. */
enum lsr_previous_hop {
	LSR_PREVIOUS_OFF = 0,
	LSR_PREVIOUS_INTERFACE = 1, /* from the interface of that route */
	LSR_PREVIOUS_NEIGHBOUR =
		2, /* and, where it is known, from the MAC address of its neighbour */
};

/* Which ICMP errors the agent sends on its own behalf. */
enum lsr_icmp {
	LSR_ICMP_OFF = 0,
	LSR_ICMP_PMTU = 1, /* 3/4 fragmentation needed */
	LSR_ICMP_ALL = 2,  /* also 3/0 no route, 3/5 source route failed, 11/0 time exceeded */
};

/* `state`, one entry: what is flipped to make a change visible at once. */
struct lsr_state {
	__be32 address;   /* this node's address */
	__u32 set;        /* the set of rules and chains in force, 0 or 1 */
	__u32 tuples;     /* how many tuples that set has */
	__u32 cgroups;    /* 1: some of its rules look at cgroups */
	__u32 generation; /* of the mesh document */
};

/* `interfaces`: ifindex -> what this port is; `near`: the same of those below LSR_NEAR_MAX, role 0 where there is none. */
struct lsr_interface {
	__u8 role;      /* enum lsr_role */
	__u8 slot;      /* of `counters` */
	__u8 icmp;      /* enum lsr_icmp */
	__u8 previous;  /* enum lsr_previous_hop */
	__u8 guarded;   /* what goes to nodes of the mesh has to be in `openings` */
	__u8 bypass;    /* chains begin and end past this host's own stack, where they can */
	__u16 options;  /* enum lsr_option_policy, two bits for each enum lsr_option_class */
	__u32 mtu;      /* bytes */
	__be32 address; /* written into Record Route when a packet leaves here */
	char name[LSR_NAME_MAX];
};

/* `openings`: what a guarded port lets through to the nodes' own addresses. */
struct lsr_opening {
	__u8 slot; /* of the port */
	__u8 protocol;
	__be16 port; /* destination port; 0 for all */
};

/* `counters`: slot * 2 + direction -> what was counted there. */
struct lsr_counters {
	__u64 count[LSR_REASONS];
	__u64 sampled[LSR_REASONS]; /* CLOCK_BOOTTIME ns of the last event about a drop */
};

/* `addresses`: IPv4 address -> whose it is; bits. */
enum lsr_owner {
	LSR_OWNER_SELF = 1, /* this host's */
	LSR_OWNER_NODE = 2, /* what chains call another node by */
	LSR_OWNER_MESH = 4, /* of any node of the mesh document, this one included */
};

/* `tuples`: set * LSR_TUPLES_MAX + i -> the fields that a group of rules looks at, by best priority. */
struct lsr_fields {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 mark;
	__u32 cgroup; /* as `cgroups` numbers it; 0 where it is in none of those */
	__u8 protocol;
	__u8 dscp;
	__u8 origin; /* enum lsr_origin */
	__u8 tuple;  /* its index in `tuples` */
};

struct lsr_tuple {
	struct lsr_fields mask;
	__u32 priority; /* the best (lowest) among its rules */
};

/* `cgroups`: a cgroup of this host that rules of the set name -> the number that stands for it in `rules`. */
struct lsr_cgroup_key {
	__u64 id; /* as bpf_skb_ancestor_cgroup_id() has it */
	__u64 set;
};

/* `rules`: masked fields -> rule. */
struct lsr_rule {
	__u32 priority; /* lower first, as `ip rule` has it */
	__u32 chain;
};

/* What becomes of fragments that a rule sends into a chain. */
enum lsr_fragments {
	LSR_FRAGMENTS_CHAIN = 0,
	LSR_FRAGMENTS_DROP = 1,
};

/* `chains`: set and chain -> how its packets are sent. */
struct lsr_chain_key {
	__u32 chain;
	__u32 set;
};

struct lsr_chain {
	__u32 path; /* 0 where it has several */
	__u32 generation;
	__u16 number;   /* in the integrity option, 1…LSR_CHAIN_MAX */
	__u8 fragments; /* enum lsr_fragments */
	__u8 several;   /* its paths are in `choices` */
	/* only from read_chain() */
	__u32 before; /* the path of flows that were there before a node was drained */
	__u32 id;
};

/* `choices`: set and chain -> the path for each slot that a flow can fall into; 0 where none is up. */
struct lsr_choice {
	__u32 path[LSR_SLOTS];
	__u32 before[LSR_SLOTS]; /* while a node is drained: of flows that were there; else 0 */
};

/* What the tag of a packet covers beside its path, its addresses and its protocol. */
enum lsr_binding {
	LSR_BINDING_NONE = 0, /* there is no tag */
	LSR_BINDING_ADDRESSES = 1,
	LSR_BINDING_PORTS = 2, /* the ports of a packet that nobody may fragment */
};

/* `keys`: slot -> a key of SipHash-2-4. */
struct lsr_key {
	__u64 low;
	__u64 high;
	__u64 until; /* CLOCK_REALTIME ns; 0: the slot is empty */
};

/* `signing`, one entry. */
struct lsr_signing {
	__u64 tai_offset; /* CLOCK_TAI - CLOCK_REALTIME, ns */
	__u32 slot;       /* of the key to sign with; LSR_KEYS for none */
	__u32 unused;
};

/* `paths`: path -> what the edge writes. */
struct lsr_path {
	__u8 options[LSR_OPTIONS_MAX]; /* as sent to the first hop, the destination zero */
	__be32 first;                  /* address of the first hop */
	__u8 length;                   /* bytes of `options` in use, a multiple of 4 */
	__u8 destination;              /* offset of the destination in `options` */
	__u8 strict;
	__u8 record;  /* bytes of Record Route, which stands behind the destination; 0 without */
	__u16 mtu;    /* bytes; the smallest on the way, as far as the agent knows */
	__u8 binding; /* enum lsr_binding */
	__u8 unused;
};

/* Which part of a predicted source route a key holds; the parts explain a mismatch. */
enum lsr_part {
	LSR_PART_WHOLE = 0,
	LSR_PART_RECORDED = 1, /* entries before the pointer, at any hop */
	LSR_PART_AHEAD = 2,    /* entries from the pointer on, at any hop */
	LSR_PART_ROUTE = 3,    /* all entries, at any hop */
};

/* `hops`: the predicted destination and source route of a packet that arrives at a hop -> that hop. */
struct lsr_hop_key {
	__u8 type;   /* LSR_OPTION_LOOSE or LSR_OPTION_STRICT */
	__u8 length; /* of the source route option */
	__u8 pointer;
	__u8 record; /* length of the Record Route option, 0 without */
	__u8 part;   /* enum lsr_part */
	__u8 tag;    /* length of the integrity option, 0 without */
	__u8 unused[2];
	__be32 hop;                   /* the destination; 0 in parts */
	__be32 route[LSR_HOPS_KNOWN]; /* entries but the last (the destination), zero-filled */
};

struct lsr_hop {
	__be32 next;     /* the node after it, 0 at the last hop */
	__be32 previous; /* the node before it, 0 at the first hop of chains that begin at several */
	__u32 path;
	__u32 generation; /* that first wrote this entry */
	__u32 function;   /* of the hop, in `functions`; 0 where it only forwards */
	__u8 binding;     /* enum lsr_binding */
	__u8 once;        /* the same packet twice is once too often */
	__u8 reported; /* what comes from elsewhere than the hop before goes on, and is recorded */
	__u8 unused;
};

/* How a service function gets a packet (RFC 7665 §4.2). */
enum lsr_function_kind {
	LSR_FUNCTION_STACK = 1,   /* this host's own stack */
	LSR_FUNCTION_INLINE = 2,  /* a device; the packet comes back */
	LSR_FUNCTION_TAP = 3,     /* a device; a copy */
	LSR_FUNCTION_TRANSIT = 4, /* none; but it is checked whether it is well */
};

/* `functions`: number of a service -> its function on this host. */
struct lsr_function {
	__u32 device;        /* ifindex; of none where the interface is not there */
	__u32 return_device; /* the same; 0 for the stack */
	__be32 via;          /* the function's address as a router; 0 for a bump in the wire */
	__u32 sample;        /* a copy of one packet in so many */
	__u16 snap;          /* bytes of IPv4 in a copy, at most */
	__u8 kind;           /* enum lsr_function_kind */
	__u8 plain;          /* it gets packets without options, at the end of a chain */
	__u8 macs[12];       /* destination and source of frames for a bump in the wire */
	__u32 unwell;        /* probes are dropped, so that nobody counts on it */
};

/* What a probe begins with, behind its UDP header. */
enum lsr_probe_magic {
	LSR_PROBE_MAGIC = 0x6c737270, /* "lsrp" */
};

struct lsr_probe {
	__be32 magic;
	__be32 path;     /* that it is sent down */
	__be32 nonce[2]; /* of the agent that sends it */
	__be32 number;
	__be16 turn;  /* hop, from 1, where it is turned round; 0: the last */
	__be16 place; /* enum lsr_turn */
};

/* Where a probe is turned round: `place` at hop `turn`, else at the end of its path. */
enum lsr_turn {
	LSR_TURN_NEVER = 0,  /* in struct lsr_packet: it is no probe */
	LSR_TURN_BEFORE = 1, /* the function of the hop */
	LSR_TURN_BEHIND = 2,
	LSR_TURN_END = 3,
};

/* `traffic`: path, chain and outcome or drop -> how much. */
struct lsr_traffic_key {
	__u32 path;   /* 0 where none could be chosen */
	__u32 chain;  /* 0 on hops in between, which know paths alone */
	__u32 reason; /* enum lsr_reason */
};

struct lsr_traffic {
	__u64 packets; /* on the wire: segments of a GSO packet, fragments of one that was cut */
	__u64 bytes;   /* of IPv4, without our options */
};

/* `watches`: flows that somebody follows; `watching`, one entry: how many there are. */
struct lsr_watch {
	__be32 source;
	__be32 destination;
	__be16 source_port; /* 0 for all, as the next two */
	__be16 destination_port;
	__u8 protocol;
	__u8 used;
	__u8 unused[2];
};

/* `sightings`: watch * LSR_REASONS + outcome or drop -> how often, ever. */
struct lsr_sighting {
	__u64 packets;
	__u64 last_seen; /* CLOCK_BOOTTIME ns */
};

/* `destinations`, an LPM trie: path, chain and destination -> chain. What is before the destination always counts. */
struct lsr_destination_key {
	__u32 prefix_length; /* bits of all that follows: 64…96 */
	__u32 path;
	__u32 number; /* of the chain, as the integrity option has it; 0 without */
	__be32 destination;
};

struct lsr_destination {
	__u32 chain;
	__u32 generation;
	__u32 onward;   /* the chain that is its next segment, and begins here; 0 for none */
	__u32 complete; /* 1: dropped when Record Route names another than `recorders` of the path */
};

/* `recorders`: path and an address that one of its hops may write into Record Route -> 1. */
struct lsr_recorder {
	__u32 path;
	__be32 address;
};

/* `recording`: which of the two tables of a kind is written now. */
enum lsr_recording {
	LSR_RECORDING_FLOWS,      /* ended here */
	LSR_RECORDING_DEVIATIONS, /* dropped here though addressed to this node */
	LSR_RECORDINGS,
};

/* `flows_even`, `flows_odd`, `deviations_even`, `deviations_odd`. */
struct lsr_flow_key {
	__be32 source;
	__be32 destination;
	__be16 source_port; /* 0 where the packet has none */
	__be16 destination_port;
	__u8 protocol;
	__u8 reason;   /* enum lsr_reason */
	__u8 recorded; /* addresses in `record` */
	__u8 unused;
	__u32 path;  /* 0 when unknown */
	__u32 chain; /* 0 when unknown */
	__u32 generation;
	__be32 record[LSR_RECORD_MAX]; /* the Record Route as it arrived */
};

struct lsr_flow {
	__u64 packets;    /* on the wire: the segments of a GSO packet count */
	__u64 bytes;      /* of IPv4 as delivered; a GSO packet's headers count once */
	__u64 first_seen; /* CLOCK_BOOTTIME ns */
	__u64 last_seen;
	__be32 hop;                    /* the destination address that the packet arrived with */
	__u8 options[LSR_OPTIONS_MAX]; /* the options of the first packet */
	__u8 from[6];                  /* source of its frame */
	__u8 unused[6];
};

/* `allowance`, per CPU: token buckets. */
enum lsr_bucket {
	LSR_BUCKET_ICMP,
	LSR_BUCKET_SAMPLES,
	LSR_BUCKET_FLOWS,
	LSR_BUCKETS,
};

struct lsr_allowance {
	__u64 filled; /* CLOCK_BOOTTIME ns */
	__u64 tokens;
};

/* `trial`, per CPU: what the copy of a packet told (bpf/slice.h). */
struct lsr_trial {
	__u32 answered;
	__u32 partial; /* the device is still to make a checksum */
};

/* `recent`, per CPU: routes that were looked up a moment ago, each at the hash of its question. */
struct lsr_route_question {
	__be32 source;
	__be32 destination;
	__u32 input; /* ifindex */
	__u8 dscp;
	__u8 protocol;
	__u8 unused[2];
};

struct lsr_recent_route {
	struct lsr_route_question question;
	__u64 until;  /* CLOCK_MONOTONIC ns */
	__u32 output; /* ifindex */
	__be32 neighbour;
	__u32 mtu;   /* bytes */
	__u8 mac[6]; /* of the neighbour */
	__u8 unused[6];
};

/* `draft`, per CPU: the header of a packet as it will be sent. */
struct lsr_draft {
	__u8 bytes[64]; /* LSR_HEADER_MAX of them are used */
};

/* `quote`, per CPU: what an ICMP error carries of the packet that it is about. */
struct lsr_quote {
	__u8 bytes[LSR_QUOTE_MAX];
};

/* `events`, a ring buffer. */
enum lsr_event_kind {
	LSR_EVENT_FLOW = 1, /* `recording` has something new */
	LSR_EVENT_DROP = 2, /* a sample */
};

struct lsr_event {
	__u64 time;      /* CLOCK_BOOTTIME ns */
	__u32 kind;      /* enum lsr_event_kind */
	__u32 interface; /* ifindex */
	__u8 direction;  /* enum lsr_direction */
	__u8 reason;     /* enum lsr_reason */
	__u8 captured;   /* bytes of `header` */
	__u8 unused[5];
	__u8 header[64]; /* the IPv4 header as it arrived, options included, and ports */
};

#endif
