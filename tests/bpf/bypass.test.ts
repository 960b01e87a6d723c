/** Ports with `stack: bypass`, at host fw of tests/helpers/testbed.ts: what passes by the host's own stack, and what does not. */
import test from 'ava';
import { headerAt } from '../../src/path.js';
import { chain, mesh, server, source } from '../helpers/hop-packets.js';
import { ethernet, type Ipv4, ipv4, udp } from '../helpers/packet.js';
import { applyMesh, ip, macOf, openTestbed, runPacket, type Testbed } from '../helpers/testbed.js';

const [unspecified, redirect] = [-1, 7]; // TC_ACT_…, linux/pkt_cls.h
/** Where chain `ends` leads to, behind the edge port strip0. */
const behind = '10.2.0.9';
let bed: Testbed;

test.before(async () => {
  bed = await openTestbed();
  const rules = [
    ...mesh.rules,
    { name: 'in', at: ['edge'], match: { destination: '10.2.0.0/24' }, chain: 'ends' },
  ];
  applyMesh(bed, { ...mesh, rules }, 'fw');
  ip('neigh', 'replace', behind, 'lladdr', '02:00:00:00:09:09', 'dev', 'strip0', 'nud', 'permanent');
});

test.after.always(() => bed?.close());

const setBypass = (bypass: boolean): void =>
  bed.datapath.setPorts(bed.ports.map((port) => ({ ...port, bypass })));

const enterEdge = (packet: Partial<Ipv4> = {}) =>
  runPacket(
    bed,
    'edge0',
    'ingress',
    ethernet(macOf('edge0'), ipv4({ source, destination: server, ...packet })),
  );

function arriveAtEnd(packet: Partial<Ipv4> = {}, destination = behind) {
  const [a = 0, b = 0, c = 0, d = 0] = destination.split('.').map(Number);
  const header = headerAt(chain('ends').path, 2, ((a << 24) | (b << 16) | (c << 8) | d) >>> 0);
  const arriving = ipv4({
    source,
    destination: '10.0.0.2',
    options: header.options,
    payload: udp(),
    ...packet,
  });
  return runPacket(bed, 'mesh0', 'ingress', ethernet(macOf('mesh0'), arriving));
}

test.serial('without it a chain begins behind the stack, and ends before it', (t) => {
  setBypass(false);
  t.like(enterEdge(), { action: unspecified, counted: { received: 1, passed: 1 } });
  t.like(arriveAtEnd(), { action: unspecified, counted: { received: 1, ended: 1 } });
});

test.serial('with it a chain begins where the packet comes in', (t) => {
  setBypass(true);
  const { action, counted, frame } = enterEdge({ ttl: 9 });
  t.is(action, redirect);
  t.deepEqual(counted, { received: 1, imposed: 1 });
  t.is(frame[14 + 8], 8, 'TTL');
});

test.serial('a chain that has ended goes on behind the edge port, as the stack would have sent it', (t) => {
  setBypass(true);
  const { action, counted, frame } = arriveAtEnd({ ttl: 9 });
  t.is(action, redirect);
  t.deepEqual(counted, { received: 1, ended: 1 });
  t.deepEqual(frame.subarray(14), ipv4({ source, destination: behind, ttl: 8, payload: udp() }));
});

const forStack: [title: string, packet: Partial<Ipv4>, destination?: string][] = [
  ['whose TTL is used up, for it to answer', { ttl: 1 }],
  ['that is too big for the port, for it to fragment or answer', { payload: Buffer.alloc(1490) }],
  ['whose neighbour is not known yet', {}, '10.2.0.10'],
];
for (const [title, packet, destination] of forStack) {
  test.serial(`the stack gets a packet ${title}`, (t) => {
    setBypass(true);
    t.like(arriveAtEnd(packet, destination), {
      action: unspecified,
      counted: { received: 1, ended: 1 },
    });
  });
}

test.serial('the stack gets a packet that no rule speaks of', (t) => {
  setBypass(true);
  t.like(enterEdge({ destination: '10.77.0.1' }), {
    action: unspecified,
    counted: { received: 1, passed: 1 },
  });
});
