/** Flows that somebody follows, at host fw of tests/helpers/testbed.ts. */
import test from 'ava';
import type { WatchQuery } from '../../src/watch.js';
import { Watches } from '../../src/watches.js';
import { arriveAt, mesh, optionsOf, sendOut, server, source } from '../helpers/hop-packets.js';
import { tcp, udp } from '../helpers/packet.js';
import { applyMesh, openTestbed, type Testbed } from '../helpers/testbed.js';

const ends = { source, destination: server };
const payload = udp({ sourcePort: 4000, destinationPort: 53 });
let bed: Testbed;
let watches: Watches;

test.before(async () => {
  bed = await openTestbed();
  applyMesh(bed, mesh, 'fw');
});

test.after.always(() => bed?.close());

test.beforeEach(() => {
  watches = new Watches('fw', bed.datapath.maps);
});

test.afterEach.always(() => watches.close());

const seen = (query: WatchQuery) =>
  Object.fromEntries(watches.look(query).seen.map(({ reason, packets }) => [reason, packets]));

const places: [place: string, run: () => unknown, seen: Record<string, number>][] = [
  ['where its chain begins', () => sendOut(bed, { payload }), { imposed: 1 }],
  ['at a hop in between', () => arriveAt(bed, 'over', 1, { payload }), { advanced: 1 }],
  ['on its way to a function', () => arriveAt(bed, 'through', 1, { payload }), { to_stack: 1 }],
  [
    'at the end of a chain that does not lead there',
    () => arriveAt(bed, 'ends', 2, { payload }),
    { destination: 1 },
  ],
  ['dropped', () => arriveAt(bed, 'over', 1, { payload, ttl: 1 }), { ttl: 1 }],
  [
    'out of turn',
    () => arriveAt(bed, 'over', 1, { payload, destination: '10.0.0.2', options: optionsOf('through', 2) }),
    { position: 1 },
  ],
  [
    'twice',
    () => {
      sendOut(bed, { payload });
      sendOut(bed, { payload });
    },
    { imposed: 2 },
  ],
  [
    'as a GSO packet, by its segments',
    () => {
      const stream = tcp(ends, { data: 'x'.repeat(2900) });
      sendOut(bed, { protocol: 6, payload: stream }, { from: 'edge0', gsoSize: 1000 });
    },
    { resize: 3 }, // test runs have no gso_type
  ],
];
for (const [place, run, expected] of places) {
  test.serial(`a flow is seen ${place}`, (t) => {
    run();
    t.deepEqual(seen(ends), {}, 'before it is marked, nothing is');
    run();
    t.deepEqual(seen(ends), expected);
  });
}

test.serial('a flow to a destination that is stripped back is seen where its chain ends', (t) => {
  const flow = { source, destination: '10.8.0.1' };
  seen(flow);
  t.deepEqual(arriveAt(bed, 'ends', 2, { payload }, '10.8.0.1'), { received: 1, ended: 1 });
  t.deepEqual(seen(flow), { ended: 1 });
});

const matches: [query: Partial<WatchQuery>, isSeen: boolean][] = [
  [{ protocol: 'udp', sourcePort: 4000, destinationPort: 53 }, true],
  [{ protocol: '17' }, true],
  [{ destinationPort: 53 }, true],
  [{ protocol: 'tcp' }, false],
  [{ destinationPort: 54 }, false],
  [{ sourcePort: 53 }, false],
  [{ source: '10.1.0.11' }, false],
  [{ destination: '10.0.0.3' }, false], // the next hop: where packets go is the end
];
for (const [query, isSeen] of matches) {
  const what = JSON.stringify(query);
  test.serial(`${what} ${isSeen ? 'is' : 'is not'} what is followed`, (t) => {
    seen({ ...ends, ...query });
    sendOut(bed, { payload });
    t.deepEqual(seen({ ...ends, ...query }), isSeen ? { imposed: 1 } : {});
  });
}

test.serial('several are told apart, and beyond eight a flow is refused until one is let go', (t) => {
  const flow = (n: number) => ({ ...ends, sourcePort: n });
  for (let n = 1; n <= 8; n++) seen(flow(n));
  t.throws(() => seen(flow(9)), { code: 'TOO_MANY_REQUESTS' });
  for (let n = 1; n <= 9; n++) sendOut(bed, { payload: udp({ sourcePort: n }) });
  for (let n = 1; n <= 8; n++) t.deepEqual(seen(flow(n)), { imposed: 1 });
  watches.close();
  t.deepEqual(seen(flow(9)), {});
  sendOut(bed, { payload: udp({ sourcePort: 9 }) });
  sendOut(bed, { payload: udp({ sourcePort: 1 }) });
  t.deepEqual(seen(flow(9)), { imposed: 1 });
});

test.serial('an agent that begins lets go what one before it marked', (t) => {
  seen(ends);
  const later = new Watches('fw', bed.datapath.maps);
  sendOut(bed, { payload });
  t.deepEqual(seen(ends), {});
  t.deepEqual(later.look(ends).seen, []);
  later.close();
});
