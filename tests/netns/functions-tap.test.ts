/**
 * A tap of hop ids (tests/helpers/function-lab.ts): what a capture behind it sees of a chain's packets.
 */
import test from 'ava';
import { agentHosts } from '../../src/lab-standing.js';
import type { MeshService } from '../../src/mesh.js';
import { putInForce } from '../helpers/chains.js';
import { carryStream, sendDatagrams, server } from '../helpers/delivery.js';
import { createFunctionLab, services } from '../helpers/function-lab.js';
import type { TestLab } from '../helpers/namespaces.js';
import { capture, findUnbalanced, readDrops, sumCounts } from '../helpers/wire.js';

const client = '10.1.0.10';
const ethernet = 14;
const streamBytes = 5_000_000;
let lab: TestLab;

test.before(async () => {
  lab = await createFunctionLab();
});

test.after.always(() => lab?.remove());

test.afterEach.always(async (t) => {
  for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});

/** Everything from client to server passes ids with a tap that is like this; without, ids is only transit. */
const toTap = (tap: Partial<MeshService> | null) =>
  putInForce(
    lab,
    { there: { hops: ['fw', tap === null ? 'ids' : 'watch', 'gw'], record: 2 } },
    { ...services, watch: { ...services.watch, ...tap } },
  );

const fields = [
  'ip.src',
  'ip.dst',
  'ip.hdr_len',
  'ip.checksum.status',
  'ip.len',
  'frame.len',
  'tcp.seq',
  'tcp.len',
  'tcp.checksum.status',
  'udp.checksum.status',
] as const;
type Seen = Record<(typeof fields)[number], string>;

interface Tapped {
  seen: Seen[];
  copied: number;
  failed: number;
}

/** What the function behind the tap sees of an action, and what ids counts of it meanwhile. */
async function watch(action: () => Promise<unknown>): Promise<Tapped> {
  const before = await readDrops(lab, 'ids');
  const rows = await capture(lab, 'watch', 'eth0', 'ip or arp', fields, action, 'bulk');
  const after = await readDrops(lab, 'ids');
  const moved = (name: string): number => sumCounts(after, name) - sumCounts(before, name);
  return {
    seen: rows.map((row) => Object.fromEntries(fields.map((field, i) => [field, row[i] ?? ''])) as Seen),
    copied: moved('copied'),
    failed: moved('copy_failed'),
  };
}

const plain = { 'ip.src': client, 'ip.dst': server, 'ip.hdr_len': '20', 'ip.checksum.status': '1' };
/** Bytes of the stream, each once: a long packet may be sent again in parts. */
function sumPayload(seen: Seen[]): number {
  const spans = seen
    .map((row): [number, number] => [Number(row['tcp.seq']), Number(row['tcp.seq']) + Number(row['tcp.len'])])
    .sort(([a], [b]) => a - b);
  let sum = 0;
  let reached = 0;
  for (const [start, end] of spans) {
    sum += Math.max(0, end - Math.max(start, reached));
    reached = Math.max(reached, end);
  }
  return sum;
}

test.serial('with a hop that is only transit nothing comes to the tap', async (t) => {
  await toTap(null);
  const { seen, copied } = await watch(async () => {
    t.like(await sendDatagrams(lab, { size: 500, count: 5, discover: 'want' }), { received: 5 });
  });
  t.deepEqual({ seen, copied }, { seen: [], copied: 0 });
});

interface Offload {
  title: string;
  client: 'on' | 'off';
  tap: 'on' | 'off';
  /** Whether packets come as the host has them: longer than a frame, and with checksums still to be made. */
  whole: boolean;
}

const offloads: Offload[] = [
  { title: 'without offloads each segment, with its checksum', client: 'off', tap: 'on', whole: false },
  { title: 'with GSO the host’s own long packets', client: 'on', tap: 'on', whole: true },
  { title: 'with GSO, and a port without offloads, each segment', client: 'on', tap: 'off', whole: false },
];

for (const { title, client: sending, tap, whole } of offloads) {
  test.serial(`the tap sees the client's packets and no others, plain: ${title}`, async (t) => {
    await toTap({});
    await lab.on('client', 'ethtool', '-K', 'eth0', 'tx', sending);
    await lab.on('ids', 'ethtool', '-K', 'tap0', 'tx', tap);
    const { seen, copied, failed } = await watch(async () => {
      t.true(await carryStream(lab, streamBytes));
      t.like(await sendDatagrams(lab, { size: 500, count: 5, discover: 'want' }), { received: 5 });
    });
    await lab.on('client', 'ethtool', '-K', 'eth0', 'tx', 'on');
    await lab.on('ids', 'ethtool', '-K', 'tap0', 'tx', 'on');
    t.is(failed, 0);
    if (sending === 'on' && tap === 'off') t.true(seen.length > copied, 'a copy becomes several segments');
    else t.is(seen.length, copied);
    for (const row of seen) t.like(row, plain);
    t.is(sumPayload(seen.filter((row) => row['tcp.len'] !== '')), streamBytes);
    const long = seen.filter((row) => Number(row['ip.len']) > 1500).length;
    const unfinished = seen.filter(
      (row) => ![row['tcp.checksum.status'], row['udp.checksum.status']].includes('1'),
    ).length;
    if (whole)
      t.true(long > 20 && unfinished >= long, `${long} of ${seen.length} long, ${unfinished} unfinished`);
    else t.deepEqual({ long, unfinished }, { long: 0, unfinished: 0 });
  });
}

const snaps = [
  { snap: 24, offload: 'off', most: 24 },
  { snap: 24, offload: 'on', most: 128 },
  { snap: 200, offload: 'on', most: 200 },
];

for (const { snap, offload, most } of snaps) {
  test.serial(
    `with \`snap: ${snap}\` and offloads ${offload} no copy is longer than ${most} bytes`,
    async (t) => {
      await toTap({ snap });
      await lab.on('client', 'ethtool', '-K', 'eth0', 'tx', offload);
      const { seen, copied, failed } = await watch(async () => {
        t.true(await carryStream(lab, streamBytes));
        t.like(await sendDatagrams(lab, { size: 500, count: 5, discover: 'want' }), {
          received: 5,
          same: true,
        });
      });
      await lab.on('client', 'ethtool', '-K', 'eth0', 'tx', 'on');
      t.is(seen.length, copied);
      t.is(failed, 0);
      t.is(Math.max(...seen.map((row) => Number(row['frame.len']))), ethernet + most);
    },
  );
}

test.serial('with `sample: 4` the tap gets some of the packets, and all of them go on', async (t) => {
  await toTap({ sample: 4 });
  const { seen, copied } = await watch(async () => {
    t.like(await sendDatagrams(lab, { size: 100, count: 200, discover: 'want' }), {
      received: 200,
      same: true,
    });
  });
  t.is(seen.length, copied);
  t.true(copied > 15 && copied < 100, `${copied} copies`); // 5.7 standard deviations to the lower side
});

const cuts = [
  { host: 'ids', device: 'tap0' },
  { host: 'watch', device: 'eth0' },
];

for (const { host, device } of cuts) {
  test.serial(
    `with ${device} of ${host} down, packets go on, and copies that failed are counted`,
    async (t) => {
      await toTap({});
      await lab.on(host, 'ip', 'link', 'set', device, 'down');
      const before = await readDrops(lab, 'ids');
      t.like(await sendDatagrams(lab, { size: 100, count: 20, discover: 'want' }), {
        received: 20,
        same: true,
      });
      const after = await readDrops(lab, 'ids');
      const moved = (name: string): number => sumCounts(after, name) - sumCounts(before, name);
      t.deepEqual({ copied: moved('copied'), failed: moved('copy_failed') }, { copied: 0, failed: 20 });
      await lab.on(host, 'ip', 'link', 'set', device, 'up');
      const { seen } = await watch(() => sendDatagrams(lab, { size: 100, count: 5, discover: 'want' }));
      t.is(seen.length, 5, 'and it gets copies again');
    },
  );
}
