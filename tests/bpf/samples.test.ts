/** Which drops become events: few of a flood, and the first of each reason. */
import test from 'ava';
import { enums } from '../../src/layout.js';
import { loadNative, type RingBuffer } from '../../src/native.js';
import { reasons } from '../../src/reasons.js';
import { ethernet, type Ipv4, ipv4 } from '../helpers/packet.js';
import { countAll, macOf, openTestbed, skbContext, type Testbed } from '../helpers/testbed.js';

const { LSR_SAMPLES_PER_SECOND, LSR_SAMPLES_BURST } = enums.lsr_limits;

let bed: Testbed;
let ring: RingBuffer;
const events: string[] = [];

test.before(async () => {
  bed = await openTestbed();
  ring = loadNative().openRingBuffer(bed.datapath.maps.events, (record) => {
    events.push(reasons[record[17] ?? 0]?.name ?? '');
  });
});

test.after.always(() => {
  ring?.close();
  bed?.close();
});

/** Runs a packet over a port so many times; returns the reasons of the events. */
function drop(port: 'edge0' | 'mesh0', fields: Partial<Ipv4>, repeat: number): string[] {
  const packet = ipv4({ source: '10.1.0.10', destination: '10.9.0.10', ...fields });
  const index = bed.ports.find(({ name }) => name === port)?.link.index ?? 0;
  ring.consume();
  events.length = 0;
  const data = ethernet(macOf(port), packet);
  bed.programs.ingress.testRun({ data, context: skbContext(index), repeat });
  ring.consume();
  return [...events];
}

test.serial('of a flood, as many drops are sampled as the bucket holds, and all are counted', (t) => {
  const start = performance.now();
  const repeat = 200_000;
  const sampled = drop('edge0', { version: 6 }, repeat);
  const seconds = (performance.now() - start) / 1000;
  t.is(countAll(bed, 'edge0', 'ingress').version, repeat);
  t.deepEqual([...new Set(sampled)], ['version']);
  // The test run may move to another processor, and each has a bucket.
  const most =
    loadNative().possibleCpus() * (LSR_SAMPLES_BURST + Math.ceil(seconds * (LSR_SAMPLES_PER_SECOND + 1)) + 1);
  t.log(`${sampled.length} events of ${repeat} drops in ${seconds.toFixed(2)} s`);
  t.true(sampled.length > LSR_SAMPLES_BURST && sampled.length <= most, `${sampled.length} events, ${most}`);
  t.is(countAll(bed, 'edge0', 'ingress').event_lost, undefined);
});

test.serial('a flood hides neither another reason nor another port', (t) => {
  const others: [string, Partial<Ipv4>][] = [
    ['ihl', { ihl: 4 }],
    ['total_length', { totalLength: 19 }],
    ['edge_option', { options: [1, 1, 1, 1] }],
  ];
  for (const [reason, fields] of others) {
    drop('edge0', { version: 6 }, 100_000);
    t.is(drop('edge0', fields, 1).join(), reason);
  }
  drop('edge0', { version: 6 }, 100_000);
  t.is(drop('mesh0', { version: 6 }, 1).join(), 'version');
});

test.serial('each second a flood is sampled anew', async (t) => {
  drop('edge0', { version: 6 }, 100_000);
  const deadline = Date.now() + 5000;
  let sampled = 0;
  while (sampled < LSR_SAMPLES_BURST && Date.now() < deadline) {
    sampled += drop('edge0', { version: 6 }, 10_000).length;
  }
  t.true(sampled >= LSR_SAMPLES_BURST);
});
