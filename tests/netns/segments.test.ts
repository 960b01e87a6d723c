/**
 * A chain that one IPv4 header does not hold: with seven Record Route slots each of its hops is a segment.
 *
 *   client ── edge ── fw │ ids │ gw ── server
 */
import test from 'ava';
import { putInForce } from '../helpers/chains.js';
import { carryStream, sendDatagrams, server } from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { capture, findUnbalanced, readDrops, readPaths, sumCounts } from '../helpers/wire.js';

let lab: TestLab;

test.before(async () => {
  lab = await createLab();
  await putInForce(lab, { there: { hops: ['fw', 'ids', 'gw'], record: 7 } });
});

test.after.always(() => lab?.remove());

test.serial(
  'each segment begins where the one before ends, and nobody sees the packet plain in between',
  async (t) => {
    const seen = await capture(lab, 'ids', 'mesh0', 'src 10.1.0.10', ['ip.hdr_len'], async () => {
      t.regex(await lab.on('client', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
    });
    t.true(seen.length >= 8, 'in and out');
    t.true(seen.every(([length]) => length === '60'));
  },
);

test.serial('each segment has its record where it ends', async (t) => {
  for (const [host, chain] of Object.entries({ fw: 'there', ids: 'there/2', gw: 'there/3' })) {
    const [record] = await readPaths(lab, host);
    t.like(record, { chain, verdict: 'complete' });
    t.deepEqual(
      record?.recorded.map(({ node }) => node),
      [host],
    );
  }
});

test.serial('streams, large datagrams and what is too big fare as in any chain', async (t) => {
  t.true(await carryStream(lab, 5_000_000));
  t.like(await sendDatagrams(lab, { size: 4000, count: 5, discover: 'dont' }), { received: 5, same: true });
  for (const host of ['fw', 'ids']) t.true(sumCounts(await readDrops(lab, host), 'segment') > 100, host);
  for (const host of ['edge', 'fw', 'ids', 'gw'])
    t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});
