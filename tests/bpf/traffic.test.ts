/** What is counted by chain and path, as host fw of tests/helpers/testbed.ts. */
import test from 'ava';
import { allAvailable } from '../../src/availability.js';
import { encode } from '../../src/codec.js';
import { loadNative } from '../../src/native.js';
import { forgetTraffic, readTraffic } from '../../src/traffic.js';
import { arriveAt, chain, mesh, optionsOf, sendOut, server, source } from '../helpers/hop-packets.js';
import { tcp, udp } from '../helpers/packet.js';
import { applyMesh, openTestbed, type Testbed } from '../helpers/testbed.js';

let bed: Testbed;

test.before(async () => {
  bed = await openTestbed();
  applyMesh(bed, mesh, 'fw');
});

test.after.always(() => bed?.close());

test.beforeEach(() => forgetTraffic(bed.datapath.maps.traffic, () => false));

const counted = () => readTraffic(bed.datapath.maps.traffic);
const one = (name: string, reason: string, known: 'chain' | 'path', packets = 1) => ({
  path: chain(name).path.id,
  chain: known === 'chain' ? chain(name).id : 0,
  reason,
  packets,
});

test.serial(
  'where a chain begins, each packet counts for chain and path, with the bytes of its sender',
  (t) => {
    sendOut(bed, { payload: udp() });
    sendOut(bed, { payload: udp() });
    t.deepEqual(counted(), [{ ...one('begins', 'imposed', 'chain', 2), bytes: 2 * (20 + udp().length) }]);
  },
);

test.serial('a GSO packet counts as its segments', (t) => {
  const ends = { source, destination: server };
  sendOut(
    bed,
    { protocol: 6, payload: tcp(ends, { data: 'x'.repeat(2900) }) },
    { from: 'edge0', gsoSize: 1000 },
  );
  t.like(counted(), [one('begins', 'resize', 'chain', 3)]); // test runs have no gso_type
});

test.serial('a packet that no rule speaks of counts for no chain', (t) => {
  t.deepEqual(sendOut(bed, { destination: '10.77.0.1' }), { received: 1, passed: 1 });
  t.deepEqual(counted(), []);
});

test.serial('a packet that is dropped where its chain begins counts for chain and path', (t) => {
  t.like(sendOut(bed, { payload: Buffer.alloc(1480), fragment: 0x4000 }), { too_big: 1 });
  t.like(counted(), [one('begins', 'too_big', 'chain')]);
});

test.serial('without a path that is up, it counts for the chain alone', (t) => {
  const down = new Set([chain('begins').path.id]);
  applyMesh(bed, mesh, 'fw', 2, { ...allAvailable, down });
  t.deepEqual(sendOut(bed, { payload: udp() }), { received: 1, unavailable: 1 });
  t.like(counted(), [{ path: 0, chain: chain('begins').id, reason: 'unavailable', packets: 1 }]);
  applyMesh(bed, mesh, 'fw', 3);
});

test.serial('at a hop in between it counts for the path', (t) => {
  t.deepEqual(arriveAt(bed, 'over', 1), { received: 1, advanced: 1 });
  t.like(arriveAt(bed, 'over', 1, { ttl: 1 }), { received: 1, ttl: 1 });
  t.deepEqual(
    counted()
      .map(({ reason }) => reason)
      .sort(),
    ['advanced', 'ttl'],
  );
  for (const row of counted()) t.like(row, one('over', row.reason, 'path'));
});

test.serial('at a hop out of turn it counts for the path that it claims', (t) => {
  t.deepEqual(arriveAt(bed, 'over', 1, { destination: '10.0.0.2', options: optionsOf('through', 2) }), {
    received: 1,
    position: 1,
  });
  t.like(counted(), [one('through', 'position', 'path')]);
});

test.serial('a function of the stack counts when it gets a packet', (t) => {
  t.deepEqual(arriveAt(bed, 'through', 1), { received: 1, to_stack: 1 });
  t.like(counted(), [one('through', 'to_stack', 'path')]);
});

test.serial('where a chain ends, it counts for chain and path, with the bytes of its sender', (t) => {
  t.deepEqual(arriveAt(bed, 'ends', 2, { payload: udp() }, '10.8.0.1'), { received: 1, ended: 1 });
  t.deepEqual(counted(), [{ ...one('ends', 'ended', 'chain'), bytes: 20 + udp().length }]);
});

test.serial('to a destination that the chain has not, it counts for the path', (t) => {
  t.deepEqual(arriveAt(bed, 'ends', 2, {}, '10.77.0.1'), { received: 1, destination: 1 });
  t.like(counted(), [one('ends', 'destination', 'path')]);
});

test.serial('when the table is full, packets go on and are noted', (t) => {
  const { traffic } = bed.datapath.maps;
  const whole = Buffer.alloc(traffic.info.valueSize * loadNative().possibleCpus());
  for (let i = 0; i < traffic.info.maxEntries; i++)
    traffic.put(encode('lsr_traffic_key', { path: i + 1, chain: 1, reason: 1 }), whole);
  t.deepEqual(arriveAt(bed, 'over', 1), { received: 1, advanced: 1, traffic_lost: 1 });
  forgetTraffic(traffic, () => false);
  t.deepEqual(arriveAt(bed, 'over', 1), { received: 1, advanced: 1 });
});
