import { enums } from './layout.js';

type Enumerator = Exclude<keyof typeof enums.lsr_reason, 'LSR_REASONS'>;
type Short<E extends string> = E extends `LSR_DROP_${infer N}` ? Lowercase<N> : never;
type Note<E extends string> = E extends `LSR_NOTE_${infer N}` ? Lowercase<N> : never;
type Outcome<E extends string> = E extends `LSR_DROP_${string}` | `LSR_NOTE_${string}` | 'LSR_RECEIVED'
  ? never
  : E extends `LSR_${infer N}`
    ? Lowercase<N>
    : never;

export type DropReason = Short<Enumerator>;
export type NoteReason = Note<Enumerator>;
export type OutcomeReason = Outcome<Enumerator>;

export interface Reason {
  index: number;
  kind: 'received' | 'note' | 'outcome' | 'drop';
  name: string;
}

/** Every reason of bpf/lsr.h in the kernel's order; names are those of JSON, metrics and the commands. */
export const reasons: readonly Reason[] = Object.entries(enums.lsr_reason)
  .filter(([name]) => name !== 'LSR_REASONS')
  .map(([name, index]) => {
    const [, prefix, rest] = /^LSR_(DROP_|NOTE_)?(.*)$/.exec(name) ?? [];
    const short = (rest ?? '').toLowerCase();
    const kind =
      prefix === 'DROP_'
        ? 'drop'
        : prefix === 'NOTE_'
          ? 'note'
          : short === 'received'
            ? 'received'
            : 'outcome';
    return { index, kind, name: short };
  });

export interface Explanation {
  meaning: string;
  advice: string;
}

/** What each drop and note means and what to do about it. One without an entry does not compile. */
export const explanations: Record<DropReason | NoteReason, Explanation> = {
  mss_clamped: {
    meaning: 'the MSS of a SYN was lowered, so that full-size TCP segments leave room for the options',
    advice: '',
  },
  record_full: {
    meaning: 'all Record Route slots were used up before this hop',
    advice: 'normal with fewer slots than hops; the source route still records every hop',
  },
  stripped: {
    meaning: 'options were taken off at an edge port with `options: strip`',
    advice: '',
  },
  fragmented: {
    meaning: 'a packet without DF was too big for the way to the next hop and was sent in fragments',
    advice: 'slow; an MTU of the mesh that is 40 bytes above the edge’s avoids it',
  },
  neighbour_pending: {
    meaning:
      'handed to the kernel while the MAC address of the next hop was unknown; it waits there, and is lost if nobody answers',
    advice: 'if it goes on counting, the next hop is down: `ip neigh` shows it as FAILED',
  },
  icmp_sent: {
    meaning: 'the sender of a dropped packet was told by ICMP',
    advice: '',
  },
  icmp_limited: {
    meaning: 'the sender of a dropped packet was not told: too many ICMP errors in a short time',
    advice: 'normal in a burst; the limit is per CPU, as net.ipv4.icmp_msgs_per_sec',
  },
  icmp_translated: {
    meaning: 'an ICMP error about a packet inside a chain was translated back for its sender',
    advice: '',
  },
  flow_lost: {
    meaning: 'the flow table is full: the packet went on, but its path is not recorded',
    advice:
      'the daemon empties the table; `lsr-agent status` shows whether it runs and how full the table is',
  },
  traffic_lost: {
    meaning: 'the packet took its way, but is missing in the counts by path: the table is full',
    advice: 'fewer paths a chain (`paths`); entries of paths that are gone are removed by themselves',
  },
  event_lost: {
    meaning: 'the event buffer is full: flows are recorded later, and samples of drops are missing',
    advice: 'the daemon empties the buffer; `lsr-agent status` shows whether it runs',
  },
  copied: {
    meaning: 'a copy of the packet went to a tap',
    advice: '',
  },
  copy_failed: {
    meaning:
      'a tap did not get its copy, and the packet went on: its interface is away, down, or no `tap` in agent.yaml',
    advice: '`lsr-agent status` shows the interfaces of this host; compare with `device` of the service',
  },
  reported: {
    meaning:
      'a packet came in from elsewhere than the hop before, and went on, as its chain says `onDeviation: report`',
    advice: '`lsr-agent paths --verdict skipped` tells of which flows, and from where',
  },
  segment: {
    meaning: 'one segment of a long chain ended here, and the next began',
    advice: '',
  },
  short: {
    meaning: 'the frame ends inside its headers',
    advice: 'find the sender; tcpdump -e on this interface shows its MAC address',
  },
  version: {
    meaning: 'EtherType IPv4, but another version in the header',
    advice: 'find the sender; this is no IPv4',
  },
  ihl: {
    meaning: 'the header length is below 20 bytes',
    advice: 'find the sender; this is no valid IPv4 header',
  },
  total_length: {
    meaning: 'the total length is shorter than the header or longer than the frame',
    advice: 'find the sender, or a device on the way that truncates frames',
  },
  edge_option: {
    meaning: 'a packet with IPv4 options came in on an edge port; only our own may carry them',
    advice:
      'harmless if it was ping -R or a scan; `options: strip` on the port lets such packets in without options',
  },
  source_spoof: {
    meaning: 'an address of this host or of a node of the mesh came in as a source on an edge port',
    advice: 'forged, or the network behind the edge port has an address of the mesh: see the sample',
  },
  infrastructure: {
    meaning:
      'a packet from an edge port was meant for a node of the mesh itself, and is not in the port’s `infrastructure`',
    advice: 'add what the network outside needs of the nodes there, such as tcp/22',
  },
  local_route: {
    meaning: 'a program on this host sent a source route of its own',
    advice: 'let a rule choose the chain instead; source routes are written by lsr-agent only',
  },
  layer2_destination: {
    meaning: 'a source-routed packet whose frame was not addressed to this host',
    advice: 'look for a switch that floods, or for someone who broadcasts source routes',
  },
  checksum: {
    meaning: 'the IPv4 header checksum of a packet with options is wrong',
    advice: 'look for a faulty device on the leg before this host',
  },
  option_length: {
    meaning: 'an option has an impossible length',
    advice: 'forged or broken: see the sample for its sender',
  },
  option_overrun: {
    meaning: 'an option is longer than the header',
    advice: 'forged or broken: see the sample for its sender',
  },
  duplicate_option: {
    meaning: 'two source routes or two Record Routes in one packet',
    advice: 'forged: no honest sender does this (RFC 1122 §3.2.1.8)',
  },
  forbidden_option: {
    meaning:
      'an option that has no place on the mesh: timestamp, stream id, or a label or alert inside a chain',
    advice: 'find the sender; RFC 7126 tells what each option is for',
  },
  unknown_option: {
    meaning: 'an unknown option beside a source route',
    advice: 'forged, or another version of lsr-agent',
  },
  tag_format: {
    meaning: 'an integrity option that is not 12 bytes long',
    advice: 'forged, or another program that uses option 158',
  },
  layout: {
    meaning: 'a source route that is not laid out as lsr-agent writes it',
    advice: 'forged, or a source route of some other program',
  },
  pointer: { meaning: 'a source route pointer that no step can lead to', advice: 'forged: see the sample' },
  exhausted: {
    meaning: 'a source route that is already used up, though the last hop strips it',
    advice: 'forged, or a router with accept_source_route=1 on the way; `lsr-agent doctor` looks for it here',
  },
  record_length: { meaning: 'a Record Route of impossible length', advice: 'forged: see the sample' },
  record_pointer: {
    meaning: 'a Record Route pointer that no step can lead to',
    advice: 'forged: see the sample',
  },
  source_martian: { meaning: 'a source address that no host has', advice: 'forged: see the sample' },
  source_self: {
    meaning: "this host's own address came in as a source",
    advice: 'forged, or a loop in the network',
  },
  not_my_hop: {
    meaning: 'source-routed to an address that is no node of the mesh',
    advice: 'compare the mesh documents of the hosts: `lsr-agent status` prints their generations',
  },
  bad_hop: {
    meaning: 'an entry of the source route is no unicast address',
    advice: 'forged: see the sample',
  },
  loop: {
    meaning: 'an address appears twice in the source route',
    advice: 'forged: chains never repeat a hop',
  },
  unknown_path: {
    meaning: 'a well-formed source route that is no path of this mesh',
    advice: 'compare the mesh documents of the hosts; if they agree, it is forged',
  },
  tag_missing: {
    meaning: 'a right source route, but its chain requires the integrity option and there is none',
    advice: 'forged, or the edge has an older mesh document; while a mesh changes use `integrity: verify`',
  },
  route_mismatch: {
    meaning: 'the hops so far are those of a path, what is ahead is not',
    advice: 'compare the mesh documents of the hosts; if they agree, it is forged',
  },
  record_mismatch: {
    meaning: 'what is ahead is a path, but the hops recorded so far are not the ones expected',
    advice: 'a hop wrote another address, or it is forged: see the sample',
  },
  position: {
    meaning: 'a path of this mesh, but at another hop than this one: a hop was skipped or repeated',
    advice: 'look at the hop before: `lsr-agent paths --verdict skipped` names it',
  },
  previous_hop: {
    meaning: 'a right packet, but not from where the route to the hop before it leads',
    advice: 'forged, or routes differ by direction: `previousHop: off` allows that',
  },
  key_unknown: {
    meaning: 'the tag names a key slot that is empty here',
    advice: 'give this host the keys that the edge has: `lsr-agent keys` on both compares them',
  },
  key_expired: {
    meaning: 'the tag was made with a key that has run out',
    advice: 'rotate the keys: see docs/security.md',
  },
  tag_age: {
    meaning: 'the tag is right, but older than 4 s or from the future',
    advice: 'replayed, or the clocks of the hosts differ: compare `timedatectl`',
  },
  tag_wrong: {
    meaning: 'the tag is not that of this packet',
    advice: 'forged or changed on the way, or keys differ: `lsr-agent keys` on both hosts compares them',
  },
  replay: {
    meaning: 'the very same packet came before, in a chain with `duplicates: drop`',
    advice:
      'replayed, or a network that doubles packets, or a sender that repeats a datagram without changing its identification',
  },
  icmp_quote: {
    meaning: 'an ICMP error about a packet that no edge of the mesh sent lately',
    advice: 'forged, or an error that came seconds late',
  },
  reflect: {
    meaning: 'the route leads back to its sender',
    advice: 'forged, or a rule that chains a host to itself',
  },
  destination: {
    meaning: 'the final destination is not one that the rules of this chain allow',
    advice: 'compare the mesh documents of the hosts; if they agree, it is forged',
  },
  detour: {
    meaning:
      'Record Route names an address of none of the chain’s hops, and the chain says `onDeviation: drop`',
    advice:
      'a router on the way wrote itself: `lsr-agent paths --verdict detour` names it. If it belongs to a node, list it in the node’s `addresses`',
  },
  ttl: { meaning: 'the time to live ran out', advice: 'a routing loop, or traceroute through a chain' },
  unavailable: {
    meaning: 'none of the chain’s paths can be used now: a service that it needs is away',
    advice:
      '`lsr-agent chains` shows which paths are down; `unavailable` of a service says what to do without it',
  },
  no_chain: {
    meaning: 'a rule names a chain whose path is not in the tables',
    advice: 'apply the mesh again; if it stays, report it with `lsr-agent status --json`',
  },
  fragment: {
    meaning: 'a fragment of a datagram that belongs into a chain with `fragments: drop`',
    advice: 'lower the datagram size of the sender, or set `fragments: chain` for the chain',
  },
  has_options: {
    meaning: 'a packet that belongs into a chain carries options of its own',
    advice: 'a local program sets them; there is no room for both, and merging them is unsafe',
  },
  no_key: {
    meaning: 'a chain with integrity, but this edge has no key that holds to sign with',
    advice: '`lsr-agent keys` shows the slots; packets pass again when a key is there',
  },
  no_route: {
    meaning: 'this host has no route to the next hop, or does not forward',
    advice: '`ip route get NEXT-HOP`, and `sysctl net.ipv4.ip_forward`',
  },
  not_adjacent: {
    meaning: 'the chain is strict and the next hop is not on a directly connected network',
    advice: 'make the chain loose, or add an address of that network',
  },
  not_mesh: {
    meaning: 'the route to the next hop leaves by an interface without the role mesh',
    advice: 'give that interface the role mesh in agent.yaml, or correct the route',
  },
  too_big: {
    meaning: "with the chain's options the packet exceeds the MTU of the way to the next hop",
    advice:
      'normal while a sender learns the path MTU (see icmp_sent); if it stays, something drops ICMP on the way back to it. An MTU of the mesh that is 40 bytes above the edge’s avoids it',
  },
  cannot_fragment: {
    meaning:
      'too big, without DF, but not to be cut here: a segmented datagram, or one whose checksum the sending device still has to make',
    advice:
      'its sender was told the path MTU (see icmp_sent) and will send fragments itself; an MTU of the mesh that is 40 bytes above the edge’s avoids it',
  },
  resize: {
    meaning: 'the kernel could not make room for the options, or take them out',
    advice:
      'memory pressure, or a kind of segmentation offload that cannot be resized: `ethtool -K` can turn it off',
  },
  no_function: {
    meaning:
      'the function of this hop cannot be reached: its interface is away, or no `function` in agent.yaml',
    advice: '`lsr-agent status` shows the interfaces of this host; compare with `device` of the service',
  },
  wrong_function: {
    meaning: 'a packet came back from another function than it was given to',
    advice: 'compare `returnDevice` of the service with how the function is wired',
  },
  unwell: {
    meaning:
      'a probe for a function that its own host finds unwell was dropped, so that edges send flows elsewhere',
    advice: '`check` of the service failed; `lsr-agent status` on this host says how',
  },
  tap_input: {
    meaning: 'a tap sent a packet; it gets copies and has nothing to say',
    advice: 'take the IPv4 address off the interface inside the tap, or make it `inline`',
  },
};

/** The one drop that is not in the programs: src/backstop.ts. */
export const backstopExplanation: Explanation = {
  meaning:
    'a packet of a chain with `onMissing: drop` that would have left this host un-chained, as programs or tables were not in force; nftables dropped it',
  advice:
    'see that the agent runs and is ready: `lsr-agent status` names ports without programs. A rule whose plain route leaves by a port that is not managed, and that is for local sockets, always ends here',
};
