/**
 * Functions of a hop, on cables, as host fw; what is sent and seen is at the far ends:
 *
 *   10.1.0.10 ── edge0 [ fw 10.0.0.2 ] mesh0 ── 10.0.0.1 edge · .3 ids · .4 gw
 *                  fn0 ──┘ │ │ └── tap0
 *                     fn1 ─┘ └── way0 ── 10.3.0.9, a router
 */
import { execFileSync } from 'node:child_process';
import test from 'ava';
import { formatAddress, parseAddress } from '../../src/address.js';
import { commandEnvironment } from '../../src/command-environment.js';
import type { Mesh } from '../../src/mesh.js';
import { headerAt } from '../../src/path.js';
import { renderMesh } from '../../src/render.js';
import { functionReasons } from '../helpers/function-reasons.js';
import {
  address,
  ethernet,
  type Ipv4,
  icmpError,
  ipv4,
  options,
  recordRoute,
  udp,
} from '../helpers/packet.js';
import {
  applyMesh,
  changeRoutes,
  countAll,
  exchangeFrame,
  ip,
  macOf,
  openTestbed,
  runPacket,
  type Testbed,
} from '../helpers/testbed.js';

const nodes = {
  edge: { address: '10.0.0.1' },
  fw: { address: '10.0.0.2' },
  ids: { address: '10.0.0.3' },
  gw: { address: '10.0.0.4' },
  ...Object.fromEntries([...'abcdefghij'].map((name, i) => [name, { address: `10.4.0.${i + 1}` }])),
};

const mesh: Mesh = {
  version: 1,
  nodes,
  services: {
    stack: { nodes: ['fw'], function: 'stack' },
    bump: { nodes: ['fw'], function: 'inline', device: 'fn0', returnDevice: 'fn1' },
    router: { nodes: ['fw'], function: 'inline', device: 'way0', via: '10.3.0.9' },
    tap: { nodes: ['fw'], function: 'tap', device: 'tap0' },
    snapTap: { nodes: ['fw'], function: 'tap', device: 'tap0', snap: 24 },
    rareTap: { nodes: ['fw'], function: 'tap', device: 'tap0', sample: 4 },
    lostTap: { nodes: ['fw'], function: 'tap', device: 'away0' },
    lost: { nodes: ['fw'], function: 'inline', device: 'away0', via: '10.3.0.9' },
    misplaced: { nodes: ['fw'], function: 'inline', device: 'edge0', via: '10.1.0.9' },
    proxy: { nodes: ['fw'], function: 'terminate' },
    lossy: { nodes: ['fw'], function: 'inline', device: 'fn0', returnDevice: 'fn1', options: 'stripped' },
  },
  chains: {
    stack: { hops: ['stack', 'ids', 'gw'], record: 2 },
    stackStrict: { hops: ['stack', 'ids', 'gw'], mode: 'strict' },
    stackLast: { hops: ['edge', 'stack'] },
    bump: { hops: ['bump', 'ids', 'gw'], record: 1 },
    bumpLast: { hops: ['edge', 'bump'], record: 2 },
    router: { hops: ['router', 'ids', 'gw'], record: 3 },
    tap: { hops: ['tap', 'ids', 'gw'] },
    tapLast: { hops: ['edge', 'tap'], record: 1 },
    snapTap: { hops: ['snapTap', 'ids'] },
    rareTap: { hops: ['rareTap', 'gw'] },
    lostTap: { hops: ['lostTap', 'gw', 'ids'] },
    lost: { hops: ['lost', 'gw', 'ids'], record: 1 },
    misplaced: { hops: ['misplaced', 'gw', 'ids'], record: 2 },
    proxy: { hops: ['edge', 'ids', 'proxy'] },
    onward: { hops: ['gw'], record: 1 },
    long: { hops: ['a', 'b', 'c', 'd', 'e', 'fw', 'ids', 'f', 'g', 'h', 'i', 'j'] },
    lossy: { hops: ['edge', 'lossy', 'ids', 'gw'], record: 3 },
  },
  rules: [
    ...['stack', 'stackStrict', 'bump', 'router', 'tap', 'snapTap', 'rareTap'].map(toServer),
    ...['lostTap', 'lost', 'misplaced', 'stackLast', 'bumpLast', 'tapLast', 'proxy'].map(toServer),
    toServer('long', 20),
    { name: 'lossy', at: ['edge'], match: { destination: '10.9.0.77/32' }, chain: 'lossy', priority: 21 },
    {
      name: 'onward',
      at: ['fw'],
      from: ['function'],
      match: { destination: '10.9.0.0/24', protocol: 'tcp' },
      chain: 'onward',
    },
  ],
};

function toServer(chain: string, index: number): Mesh['rules'][number] {
  return { name: chain, at: ['edge'], priority: index, match: { destination: '10.9.0.0/24' }, chain };
}

const client = '10.1.0.10';
const server = '10.9.0.10';

/** The packet of a chain as it arrives at a hop, with Record Route as routers leave it. */
function chained(name: string, position: number, fields: Partial<Ipv4> = {}): Ipv4 {
  const chain = renderMesh(mesh).chains.find((candidate) => candidate.name === name);
  if (!chain) throw new Error(`no chain ${name}`);
  const header = headerAt(chain.path, position, parseAddress(server) ?? 0);
  const sent = { source: client, destination: formatAddress(header.destination), options: header.options };
  return { ...sent, ...fields };
}

/** The same while a function has it: destination and hop have changed places, types are masked. */
function masked(name: string, position: number, fields: Partial<Ipv4> = {}): Ipv4 {
  const packet = chained(name, position, fields);
  const bytes = Buffer.from(packet.options ?? []);
  const [type = 0, length = 0, pointer = 0] = bytes;
  bytes.set([222, length, pointer + (type === 137 ? 1 : 0)]);
  address(packet.destination).copy(bytes, length - 4);
  if (bytes[length] === 7) bytes[length] = 30;
  return { ...packet, destination: server, options: bytes };
}

let bed: Testbed;

test.before(async () => {
  bed = await openTestbed([
    { name: 'fn0', role: 'function' },
    { name: 'fn1', role: 'function' },
    { name: 'way0', role: 'function', address: '10.3.0.1/24' },
    { name: 'tap0', role: 'tap' },
  ]);
  ip('neigh', 'replace', '10.3.0.9', 'lladdr', '02:00:00:00:03:09', 'dev', 'way0', 'nud', 'permanent');
  ip('route', 'add', '10.4.0.0/24', 'via', '10.0.0.1');
  for (const scope of ['all', 'mesh0']) sysctl(`net.ipv4.conf.${scope}.send_redirects=0`);
  for (const scope of ['all', 'default', 'mesh0', 'fn1']) sysctl(`net.ipv4.conf.${scope}.rp_filter=0`);
  applyMesh(bed, mesh, 'fw');
});

test.after.always(() => bed?.close());

const sysctl = (setting: string): Buffer => execFileSync('sysctl', ['-qw', setting]);
/** The one of nftables: ava's path has a program of the same name. */
const nft = (words: string[], input = ''): string =>
  execFileSync('nft', words, { input, encoding: 'utf8', env: commandEnvironment });

type Counts = Record<string, Record<string, number>>;

const covered = new Set<string>();

/** What the counters of ports move by meanwhile, as `port direction`; those that did not move are left out. */
function watchCounters<Result>(run: () => Result): { result: Result; counted: Counts } {
  const read = (): Counts =>
    Object.fromEntries(
      bed.ports.flatMap(({ name }) =>
        ['ingress', 'egress'].map((direction) => [`${name} ${direction}`, countAll(bed, name, direction)]),
      ),
    );
  const before = read();
  const result = run();
  const moved = Object.entries(read()).map(([port, counts]): [string, Record<string, number>] => [
    port,
    Object.fromEntries(
      Object.entries(counts)
        .map(([name, count]): [string, number] => [name, count - (before[port]?.[name] ?? 0)])
        .filter(([, count]) => count !== 0),
    ),
  ]);
  for (const [, counts] of moved) for (const reason of Object.keys(counts)) covered.add(reason);
  return {
    result,
    counted: Object.fromEntries(moved.filter(([, counts]) => Object.keys(counts).length > 0)),
  };
}

/** Sends a packet in at a port, and tells what came out where, as hex without Ethernet. */
function exchange(port: string, packet: Ipv4, expected: Record<string, number>, options = {}) {
  const { result, counted } = watchCounters(() =>
    exchangeFrame(`${port}p`, ethernet(macOf(port), ipv4(packet)), withPeers(expected), options),
  );
  const seen = Object.fromEntries(
    Object.entries(result).map(([device, frames]) => [device.replace(/p$/, ''), frames]),
  );
  return { seen, counted };
}

const withPeers = (expected: Record<string, number>): Record<string, number> =>
  Object.fromEntries(Object.entries(expected).map(([port, count]) => [`${port}p`, count]));

const hex = (frame: Buffer | undefined): string | undefined => frame?.subarray(14).toString('hex');
const bytesOf = (packet: Ipv4): string => ipv4(packet).toString('hex');
const toMac = (frame: Buffer | undefined): string | undefined =>
  frame
    ?.subarray(0, 6)
    .toString('hex')
    .replace(/..(?!$)/g, '$&:');

const viaIds = '02:00:00:00:00:03';
/** What fw sends on; `record` is the egress interface's address, which here is the node's. */
const onward = (name: string, fields: Partial<Ipv4> = {}): string =>
  bytesOf(chained(name, 2, { ttl: 63, ...fields }));

for (const name of ['stack', 'stackStrict']) {
  test.serial(`${name}: the stack forwards the packet, and at egress it goes on to the next hop`, (t) => {
    const { seen, counted } = exchange('mesh0', chained(name, 1), { mesh0: 1 });
    t.is(hex(seen.mesh0?.[0]), onward(name));
    t.is(toMac(seen.mesh0?.[0]), viaIds);
    t.deepEqual(counted, {
      'mesh0 ingress': { received: 1, to_stack: 1 },
      'mesh0 egress': { received: 2, advanced: 1, own: 1 },
    });
  });
}

test.serial('stack: what has a TTL of 1 after the stack goes on, as the stack has seen to it', (t) => {
  const { seen } = exchange('mesh0', chained('stack', 1, { ttl: 2 }), { mesh0: 1 });
  t.is(hex(seen.mesh0?.[0]), onward('stack', { ttl: 1 }));
});

test.serial('stack: nftables sees the true flow, and what it drops is dropped', (t) => {
  const rule = `ip saddr ${client} ip daddr ${server} udp dport`;
  nft(
    ['-f', '-'],
    `table ip seen { counter true_flow { }
    chain forward { type filter hook forward priority 0; ${rule} 53 counter name true_flow; ${rule} 81 drop; }
    }`,
  );
  const send = (destinationPort: number, expected: number) =>
    exchange('mesh0', chained('stack', 1, { payload: udp({ destinationPort }) }), { mesh0: expected });
  const passed = send(53, 1);
  t.is(passed.seen.mesh0?.length, 1);
  t.regex(nft(['list', 'counter', 'ip', 'seen', 'true_flow']), /packets 1 /);
  const { seen, counted } = send(81, 0);
  t.deepEqual(seen.mesh0, []);
  t.deepEqual(counted, { 'mesh0 ingress': { received: 1, to_stack: 1 } });
  nft(['delete', 'table', 'ip', 'seen']);
});

test.serial('stack: what the function changes of DSCP and destination goes along', (t) => {
  nft(
    ['-f', '-'],
    `table ip change {
    chain forward { type filter hook forward priority 0; ip dscp set 10; }
    chain prerouting { type nat hook prerouting priority -100; ip daddr ${server} dnat to 10.9.0.99; }
    }`,
  );
  const { seen } = exchange('mesh0', chained('stack', 1, { payload: udp({ sourcePort: 4001 }) }), {
    mesh0: 1,
  });
  const frame = seen.mesh0?.[0];
  t.is((frame?.[15] ?? 0) >> 2, 10);
  const entries = Buffer.from(chained('stack', 2).options ?? []);
  address('10.9.0.99').copy(entries, (entries[1] ?? 0) - 4);
  t.is(frame?.subarray(34, 34 + entries.length).toString('hex'), entries.toString('hex'));
  nft(['delete', 'table', 'ip', 'change']);
});

test.serial(
  'stack: a mark for policy routing does not lead a packet past a next hop that is to be found yet',
  (t) => {
    nft(
      ['-f', '-'],
      'table ip change {\n chain choose { type filter hook prerouting priority 0; meta mark set 7\n }\n }',
    );
    ip('rule', 'add', 'fwmark', '7', 'lookup', '77');
    ip('route', 'add', 'default', 'via', '10.0.0.4', 'table', '77');
    changeRoutes('neigh', 'del', '10.0.0.3', 'dev', 'mesh0');
    const { seen, counted } = exchange('mesh0', chained('stack', 1), { mesh0: 0 });
    t.deepEqual(seen.mesh0, [], 'it waits for ids');
    t.like(counted['mesh0 egress'], { advanced: 1, neighbour_pending: 1 });
    changeRoutes('neigh', 'replace', '10.0.0.3', 'lladdr', viaIds, 'dev', 'mesh0', 'nud', 'permanent');
    ip('rule', 'del', 'fwmark', '7');
    changeRoutes('route', 'del', 'default', 'table', '77');
    nft(['delete', 'table', 'ip', 'change']);
  },
);

test.serial('stack: a packet that is also for this host itself is not handed to it', (t) => {
  const bytes = Buffer.from(chained('stack', 1).options ?? []);
  address('10.1.0.1').copy(bytes, (bytes[1] ?? 0) - 4);
  const { counted } = exchange('mesh0', chained('stack', 1, { options: bytes }), { mesh0: 0 });
  t.deepEqual(counted, { 'mesh0 ingress': { received: 1, destination: 1 } });
});

test.serial('stack: a packet that the stack would send past our programs is dropped before', (t) => {
  ip('link', 'add', 'aside0', 'type', 'veth', 'peer', 'name', 'aside0p');
  ip('link', 'set', 'aside0', 'up');
  changeRoutes('route', 'add', `${server}/32`, 'dev', 'aside0');
  const { counted } = exchange('mesh0', chained('stack', 1), { mesh0: 0 });
  changeRoutes('link', 'del', 'aside0');
  t.deepEqual(counted, { 'mesh0 ingress': { received: 1, not_mesh: 1 } });
});

test.serial('stack: at the last hop the chain ends and the stack gets the plain packet', (t) => {
  const { seen, counted } = exchange('mesh0', chained('stackLast', 2), { mesh0: 1 });
  t.is(hex(seen.mesh0?.[0]), bytesOf({ source: client, destination: server, ttl: 63 }));
  t.deepEqual(counted['mesh0 ingress'], { received: 1, ended: 1 });
});

test.serial(
  'bump in the wire: the function gets the true flow, and the packet goes on when it comes back',
  (t) => {
    const out = exchange('mesh0', chained('bump', 1), { fn0: 1 });
    const given = out.seen.fn0?.[0];
    t.is(hex(given), bytesOf(masked('bump', 1)));
    t.is(toMac(given), macOf('fn1'));
    t.deepEqual(out.counted, {
      'mesh0 ingress': { received: 1, to_device: 1 },
      'fn0 egress': { received: 1, own: 1 },
    });
    const back = exchange('fn1', masked('bump', 1), { mesh0: 1 });
    t.is(hex(back.seen.mesh0?.[0]), onward('bump'));
    t.is(toMac(back.seen.mesh0?.[0]), viaIds);
    t.deepEqual(back.counted, {
      'fn1 ingress': { received: 1, advanced: 1 },
      'mesh0 egress': { received: 1, own: 1 },
    });
  },
);

test.serial('bump in the wire at the last hop: the chain ends when the packet comes back', (t) => {
  const out = exchange('mesh0', chained('bumpLast', 2), { fn0: 1 });
  t.is(hex(out.seen.fn0?.[0]), bytesOf(masked('bumpLast', 2)));
  const back = exchange('fn1', masked('bumpLast', 2), { mesh0: 1 });
  t.is(hex(back.seen.mesh0?.[0]), bytesOf({ source: client, destination: server, ttl: 63 }));
  t.deepEqual(back.counted['fn1 ingress'], { received: 1, ended: 1 });
});

test.serial('router on one device: its MAC address is that of its neighbour, and its TTL stays', (t) => {
  const out = exchange('mesh0', chained('router', 1), { way0: 1 });
  t.is(hex(out.seen.way0?.[0]), bytesOf(masked('router', 1)));
  t.is(toMac(out.seen.way0?.[0]), '02:00:00:00:03:09');
  const back = exchange('way0', masked('router', 1, { ttl: 63 }), { mesh0: 1 });
  t.is(hex(back.seen.mesh0?.[0]), onward('router', { ttl: 62 }));
});

test.serial('a tap gets the plain packet, and the original goes on at once', (t) => {
  const { seen, counted } = exchange('mesh0', chained('tap', 1), { mesh0: 1, tap0: 1 });
  t.is(hex(seen.mesh0?.[0]), onward('tap'));
  t.is(hex(seen.tap0?.[0]), bytesOf({ source: client, destination: server }));
  t.deepEqual(counted, {
    'mesh0 ingress': { received: 1, advanced: 1, copied: 1 },
    'tap0 egress': { received: 1, tapped: 1 },
    'mesh0 egress': { received: 1, own: 1 },
  });
});

test.serial('a tap at the last hop gets its copy too', (t) => {
  const { seen, counted } = exchange('mesh0', chained('tapLast', 2), { mesh0: 1, tap0: 1 });
  t.is(hex(seen.tap0?.[0]), bytesOf({ source: client, destination: server }));
  t.is(hex(seen.mesh0?.[0]), bytesOf({ source: client, destination: server, ttl: 63 }));
  t.deepEqual(counted['mesh0 ingress'], { received: 1, ended: 1, copied: 1 });
});

test.serial('a tap gets at most `snap` bytes, and the original stays whole', (t) => {
  const { seen } = exchange('mesh0', chained('snapTap', 1), { mesh0: 1, tap0: 1 });
  t.is(hex(seen.tap0?.[0]), bytesOf({ source: client, destination: server }).slice(0, 48));
  t.is(hex(seen.mesh0?.[0]), onward('snapTap'));
});

for (const [length, kept] of [
  [48, 48],
  [228, 128],
] as const) {
  test.serial(`a copy of ${length} bytes whose checksum is still to be made keeps ${kept}`, (t) => {
    const sent = chained('snapTap', 1, { payload: udp({ data: 'x'.repeat(length - 28) }) });
    const { seen, counted } = exchange('mesh0', sent, { mesh0: 1, tap0: 1 }, { partial: true });
    t.is(seen.tap0?.[0]?.length, 14 + kept);
    t.is(seen.mesh0?.[0]?.length, 14 + ipv4(sent).length);
    t.like(counted['mesh0 ingress'], { advanced: 1, copied: 1 });
  });
}

test.serial('of 400 packets a tap with `sample: 4` gets about 100, and all go on', (t) => {
  const data = ethernet(macOf('mesh0'), ipv4(chained('rareTap', 1)));
  const { counted } = watchCounters(() => {
    for (let i = 0; i < 400; i++) runPacket(bed, 'mesh0', 'ingress', data);
  });
  const { copied = 0, advanced = 0 } = counted['mesh0 ingress'] ?? {};
  t.is(advanced, 400);
  t.is(counted['tap0 egress']?.tapped, copied);
  t.true(copied > 50 && copied < 160, `${copied} copies`); // 5.7 standard deviations to either side
});

test.serial('a tap that is away is counted and keeps nobody up', (t) => {
  const { seen, counted } = exchange('mesh0', chained('lostTap', 1), { mesh0: 1 });
  t.is(seen.mesh0?.length, 1);
  t.deepEqual(counted['mesh0 ingress'], { received: 1, advanced: 1, copy_failed: 1 });
});

test.serial('terminate: the chain ends as at any last hop', (t) => {
  const { counted } = exchange('mesh0', chained('proxy', 3), { mesh0: 1 });
  t.deepEqual(counted['mesh0 ingress'], { received: 1, ended: 1 });
});

test.serial('what a function sends plainly is classified by rules for functions', (t) => {
  const { seen, counted } = exchange(
    'fn1',
    { source: client, destination: server, protocol: 6, payload: Buffer.alloc(20, 0x50) },
    { mesh0: 1 },
  );
  t.is(hex(seen.mesh0?.[0])?.slice(0, 2), '49');
  t.deepEqual(counted['fn1 ingress'], { received: 1, passed: 1 });
  t.deepEqual(counted['mesh0 egress'], { received: 2, imposed: 1, own: 1 });
});

test.serial("a router's error about a packet that a function had is translated, its MTU too", (t) => {
  const quoted = masked('stack', 1, { ttl: 60 });
  const error = (packet: Ipv4, mtu: number): Ipv4 => ({
    source: '10.0.0.77',
    destination: client,
    protocol: 1,
    payload: icmpError(3, 4, mtu, ipv4(packet)),
  });
  const { counted, frame } = runPacket(
    bed,
    'mesh0',
    'ingress',
    ethernet(macOf('mesh0'), ipv4(error(quoted, 1400))),
  );
  t.deepEqual(counted, { received: 1, passed: 1, icmp_translated: 1 });
  const length = Buffer.from(quoted.options ?? []).length;
  t.is(hex(frame), bytesOf(error({ source: client, destination: server, ttl: 60 }, 1400 - length)));
});

test.serial('a segment of a long chain ends, and the next begins at once', (t) => {
  const { seen, counted } = exchange('mesh0', chained('long', 6), { mesh0: 1 });
  t.is(hex(seen.mesh0?.[0]), bytesOf(chained('long/2', 1, { ttl: 63 })));
  t.is(toMac(seen.mesh0?.[0]), viaIds);
  t.deepEqual(counted, {
    'mesh0 ingress': { received: 1, imposed: 1, segment: 1 },
    'mesh0 egress': { received: 1, own: 1 },
  });
});

test.serial('dropped: a packet whose next segment is in no table', (t) => {
  const { chains } = bed.datapath.maps;
  const { keys, values } = chains.entries();
  chains.deleteBatch(keys);
  const { counted } = exchange('mesh0', chained('long', 6), { mesh0: 0 });
  chains.putBatch(keys, values);
  t.deepEqual(counted, { 'mesh0 ingress': { received: 1, no_chain: 1 } });
});

test.serial(
  'a function that would lose options gets none, and what comes back takes the rest of the chain',
  (t) => {
    const to77 = (packet: Ipv4): Ipv4 => {
      const bytes = Buffer.from(packet.options ?? []);
      address('10.9.0.77').copy(bytes, (bytes[1] ?? 0) - 4);
      return { ...packet, options: bytes };
    };
    const plain = { source: client, destination: '10.9.0.77' };
    const out = exchange('mesh0', to77(chained('lossy', 2)), { fn0: 1 });
    t.is(hex(out.seen.fn0?.[0]), bytesOf(plain));
    t.is(toMac(out.seen.fn0?.[0]), macOf('fn1'));
    t.deepEqual(out.counted['mesh0 ingress'], { received: 1, to_device: 1 });
    const back = exchange('fn1', plain, { mesh0: 1 });
    t.is(hex(back.seen.mesh0?.[0]), bytesOf(to77(chained('lossy/2', 1, { ttl: 63 }))));
    t.deepEqual(back.counted, {
      'fn1 ingress': { received: 1, passed: 1 },
      'mesh0 egress': { received: 2, imposed: 1, own: 1 },
    });
  },
);

interface Refusal {
  title: string;
  port: string;
  packet: Ipv4;
  counted: string;
}

const refusals: Refusal[] = [
  {
    title: 'a function whose device is away',
    port: 'mesh0',
    packet: chained('lost', 1),
    counted: 'no_function',
  },
  {
    title: 'a function whose device has another role',
    port: 'mesh0',
    packet: chained('misplaced', 1),
    counted: 'no_function',
  },
  {
    title: 'a packet that comes back from another function',
    port: 'way0',
    packet: masked('bump', 1),
    counted: 'wrong_function',
  },
  {
    title: 'a packet that comes back at the device that it went out of',
    port: 'fn0',
    packet: masked('bump', 1),
    counted: 'wrong_function',
  },
  {
    title: 'a packet of a function for the stack that comes back from a device',
    port: 'fn1',
    packet: masked('stack', 1),
    counted: 'wrong_function',
  },
  {
    title: 'a packet that claims to be at another hop',
    port: 'fn1',
    packet: masked('bump', 2),
    counted: 'unknown_path',
  },
  {
    title: 'a packet of a path that is in no table',
    port: 'fn1',
    packet: { ...masked('bump', 1), options: Buffer.from('de0b04' + '0a000009' + '0a000002' + '00', 'hex') },
    counted: 'unknown_path',
  },
  {
    title: 'a source route that a function sends unmasked',
    port: 'fn1',
    packet: chained('bump', 1),
    counted: 'layout',
  },
  {
    title: 'Record Route of a function',
    port: 'fn1',
    packet: { source: client, destination: server, options: options(recordRoute(2)) },
    counted: 'layout',
  },
  {
    title: 'a packet that a function has spoilt',
    port: 'fn1',
    packet: masked('bump', 1, { checksum: 1 }),
    counted: 'checksum',
  },
  {
    title: 'a packet from an address of no host',
    port: 'fn1',
    packet: masked('bump', 1, { source: '127.0.0.1' }),
    counted: 'source_martian',
  },
  {
    title: 'what a tap sends',
    port: 'tap0',
    packet: { source: client, destination: server },
    counted: 'tap_input',
  },
  {
    title: 'a masked packet from the mesh network',
    port: 'mesh0',
    packet: masked('stack', 1),
    counted: 'forbidden_option',
  },
  {
    title: 'a masked packet from outside',
    port: 'edge0',
    packet: masked('stack', 1),
    counted: 'edge_option',
  },
];

for (const { title, port, packet, counted: reason } of refusals) {
  test.serial(`dropped: ${title}`, (t) => {
    const { seen, counted } = exchange(port, packet, { mesh0: 0, fn0: 0, way0: 0 });
    t.deepEqual(counted, { [`${port} ingress`]: { received: 1, [reason]: 1 } });
    t.deepEqual(seen, { mesh0: [], fn0: [], way0: [] });
  });
}

test.serial('dropped: a masked packet that a program of this host sends', (t) => {
  const { counted } = runPacket(bed, 'mesh0', 'egress', ethernet(macOf('mesh0'), ipv4(masked('stack', 1))));
  t.deepEqual(counted, { received: 1, local_route: 1 });
});

test.serial('every reason of functions has a row', (t) => {
  t.deepEqual(
    functionReasons.filter((reason) => !covered.has(reason)),
    ['unavailable', 'probed', 'traffic_lost', 'unwell'], // replicas, probes and traffic.test.ts
  );
});
