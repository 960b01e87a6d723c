/**
 * A function that no packet with IPv4 options passes: a router behind fw (tests/helpers/function-lab.ts) that drops them,
 * as many appliances do. With `options: stripped` each chain ends before it, and what comes back takes the rest of the
 * chain that it came from, though both come back on one device.
 */
import test from 'ava';
import { agentHosts } from '../../src/lab-standing.js';
import type { Mesh, MeshService } from '../../src/mesh.js';
import { nodes, putMesh } from '../helpers/chains.js';
import { carryStream, sendDatagrams, server } from '../helpers/delivery.js';
import { createFunctionLab, fetchPage, greeting, services, unanswered } from '../helpers/function-lab.js';
import type { TestLab } from '../helpers/namespaces.js';
import { readCounter, withTable } from '../helpers/nftables.js';
import { capture, findUnbalanced, readDrops, readPaths } from '../helpers/wire.js';

let lab: TestLab;

test.before(async () => {
  lab = await createFunctionLab();
});

test.after.always(() => lab?.remove());

test.afterEach.always(async (t) => {
  for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});

const match = { destination: '10.9.0.0/24' } as const;
const meshWith = (options: NonNullable<MeshService['options']>): Mesh => ({
  version: 1,
  nodes,
  services: { strict: { ...services.router, options } },
  chains: {
    web: { hops: ['strict', 'ids', 'gw'], record: 2 },
    data: { hops: ['strict', 'gw'], record: 1 },
  },
  rules: [
    { name: 'web', at: ['edge'], match: { ...match, protocol: 'tcp' }, chain: 'web' },
    { name: 'data', at: ['edge'], match: { ...match, protocol: 'udp' }, chain: 'data' },
  ],
});

const table = 'ip function';
const refusing = `counter refused { }
  counter passed { }
  chain forward {
    type filter hook forward priority 0
    ip hdrlength > 5 counter name refused drop
    ip daddr ${server} counter name passed
  }`;
const counted = (name: string): Promise<number> => readCounter(lab, 'router', table, name);

/** Nodes that the newest record of a chain names where it ends. */
async function nodesOf(host: string, chain: string): Promise<(string | null)[] | undefined> {
  const [record] = await readPaths(lab, host, `?chain=${encodeURIComponent(chain)}&verdict=complete&limit=1`);
  return record?.recorded.map(({ node }) => node);
}

test.serial('with options kept nothing passes such a function', async (t) => {
  await putMesh(lab, meshWith('kept'));
  await withTable(lab, 'router', table, refusing, async () => {
    t.regex(await fetchPage(lab, server), unanswered);
    t.true((await counted('refused')) > 0);
    t.is(await counted('passed'), 0);
  });
});

test.serial('with options stripped two chains pass it, and each goes on its own way', async (t) => {
  await putMesh(lab, meshWith('stripped'));
  await withTable(lab, 'router', table, refusing, async () => {
    const lengths = await capture(lab, 'router', 'eth0', 'ip', ['ip.hdr_len'], async () => {
      t.regex(await fetchPage(lab, server), greeting);
      t.true(await carryStream(lab, 5_000_000));
      t.like(await sendDatagrams(lab, { size: 500, count: 5, discover: 'want' }), {
        received: 5,
        same: true,
      });
      t.like(await sendDatagrams(lab, { size: 4000, count: 5, discover: 'dont' }), {
        received: 5,
        same: true,
      });
    });
    t.true(lengths.length > 100);
    t.true(lengths.every(([length]) => length === '20'));
    t.is(await counted('refused'), 0);
    t.true((await counted('passed')) > 100);
  });
  t.deepEqual(await nodesOf('fw', 'web'), ['fw']);
  t.deepEqual(await nodesOf('gw', 'web/2'), ['ids', 'gw']);
  t.deepEqual(await nodesOf('fw', 'data'), ['fw']);
  t.deepEqual(await nodesOf('gw', 'data/2'), ['gw']);
});
