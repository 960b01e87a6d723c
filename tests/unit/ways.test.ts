import test from 'ava';
import { parseAddress } from '../../src/address.js';
import { chooseSlot } from '../../src/flow-hash.js';
import type { Mesh } from '../../src/mesh.js';
import type { RenderedPath } from '../../src/path.js';
import { pathsOf, type RenderedChain, renderMesh } from '../../src/render.js';
import { choosePaths } from '../../src/ways.js';

const slotCount = 512;
const flowCount = 100_000;

/** The slots of flows as a server meets them: many clients, their ports in sequence. */
const flows = Array.from({ length: flowCount }, (_, i) => {
  const client = { address: (parseAddress('10.1.0.0') ?? 0) + (i % 250), port: 32768 + Math.floor(i / 250) };
  return chooseSlot(client, { address: parseAddress('10.9.0.10') ?? 0, port: 80 }, 6);
});

const name = (service: string, i: number): string => `${service}${i}`;

/** A chain over services with so many nodes each. */
function meshOf(
  services: Record<
    string,
    Partial<NonNullable<Mesh['services']>[string]> & { count: number; weights?: number[] }
  >,
  chain: Partial<Mesh['chains'][string]> = {},
): Mesh {
  const nodes: Mesh['nodes'] = { edge: { address: '10.0.0.1' } };
  const built: NonNullable<Mesh['services']> = {};
  let next = 2;
  for (const [service, { count, weights = [], ...more }] of Object.entries(services)) {
    const names = Array.from({ length: count }, (_, i) => name(service, i));
    for (const node of names) nodes[node] = { address: `10.0.${next >> 8}.${next++ & 255}` };
    const replicas = names.map((node, i) => ({ node, weight: weights[i] ?? 1 }));
    built[service] = { nodes: replicas, function: 'transit', ...more };
  }
  return {
    version: 1,
    nodes,
    services: built,
    chains: { web: { hops: Object.keys(services), ...chain } },
    rules: [
      {
        name: 'web',
        at: ['edge'],
        match: { source: '10.1.0.0/16', destination: '10.9.0.0/24' },
        chain: 'web',
      },
    ],
  };
}

function chainOf(mesh: Mesh, wanted = 'web'): RenderedChain {
  const chain = renderMesh(mesh).chains.find(({ name }) => name === wanted);
  if (!chain) throw new Error(`no chain ${wanted}`);
  return chain;
}

const always = (): boolean => true;
const nodesOf = (path: RenderedPath | null): string => path?.hops.map(({ node }) => node).join(' ') ?? '-';
const avoid =
  (...nodes: string[]) =>
  (path: RenderedPath) =>
    !path.hops.some(({ node }) => nodes.includes(node));

/** For each flow the nodes of its path. */
const spread = (chain: RenderedChain, isUp: (path: RenderedPath) => boolean = always): string[] => {
  const chosen = choosePaths(chain.ways, isUp).map(nodesOf);
  return flows.map((slot) => chosen[chosen.length === 1 ? 0 : slot] ?? '-');
};

const shareOf = (ways: readonly string[], node: string): number =>
  ways.filter((way) => way.split(' ').includes(node)).length / ways.length;
const countMoved = (before: readonly string[], after: readonly string[]): number =>
  before.filter((way, i) => way !== after[i]).length / before.length;

test('a flow has one slot, whichever of its ends is named first', (t) => {
  const one = { address: 0x0a010001, port: 4000 };
  const other = { address: 0x0a090001, port: 80 };
  t.is(chooseSlot(one, other, 6), chooseSlot(other, one, 6));
  t.not(chooseSlot(one, other, 6), chooseSlot(one, other, 17));
});

for (const [title, ends] of Object.entries({
  'many ports of one client': (i: number) => ({ address: 0x0a010001, port: i & 0xffff }),
  'many clients with one port': (i: number) => ({ address: 0x0a010000 + i, port: 4000 }),
  'many addresses far apart': (i: number) => ({ address: (i * 65_536) >>> 0, port: 4000 }),
})) {
  test(`flows of ${title} fall into all slots alike`, (t) => {
    const counts = Array<number>(slotCount).fill(0);
    const total = 60_000;
    for (let i = 0; i < total; i++) {
      const slot = chooseSlot(ends(i), { address: 0x0a09000a, port: 80 }, 6);
      counts[slot] = (counts[slot] ?? 0) + 1;
    }
    const expected = total / slotCount;
    const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    t.true(Math.abs(chiSquare - (slotCount - 1)) < 6 * Math.sqrt(2 * (slotCount - 1)), String(chiSquare));
  });
}

test('each replica has its share of the slots, to one', (t) => {
  const { ways } = chainOf(meshOf({ ids: { count: 3, weights: [1, 2, 5] }, gw: { count: 1 } }));
  const slots = ways[0]?.slots ?? [];
  t.is(slots.length, slotCount);
  for (const [i, share] of [1 / 8, 2 / 8, 5 / 8].entries()) {
    const count = slots.filter(({ hops }) => hops[0]?.node === name('ids', i)).length;
    t.true(Math.abs(count - share * slotCount) <= 1, `${count}`);
  }
});

test('services are independent of each other: all combinations take about as many flows', (t) => {
  const ways = spread(chainOf(meshOf({ fw: { count: 2 }, ids: { count: 2 }, gw: { count: 2 } })));
  const counts = new Map<string, number>();
  for (const way of ways) counts.set(way, (counts.get(way) ?? 0) + 1);
  t.is(counts.size, 8);
  for (const [way, count] of counts) t.true(Math.abs(count / flowCount - 1 / 8) < 0.05, `${way}: ${count}`);
});

for (const count of [2, 3, 4, 8, 16]) {
  test(`of ${count} replicas one may leave or join: at most its share and 5 % of the flows move`, (t) => {
    const all = meshOf({ ids: { count }, gw: { count: 1 } });
    const before = spread(chainOf(all));
    for (let gone = 0; gone < count; gone++) {
      const services = structuredClone(all.services) ?? {};
      services.ids?.nodes.splice(gone, 1);
      const moved = countMoved(before, spread(chainOf({ ...all, services })));
      t.true(moved <= 1 / count + 0.05, `without ${gone}: ${moved}`);
      t.true(moved >= shareOf(before, name('ids', gone)));
    }
  });
}

test('a replica that is down gives its flows to the others, and no other flow moves', (t) => {
  const chain = chainOf(meshOf({ fw: { count: 2 }, ids: { count: 4 }, gw: { count: 1 } }));
  const before = spread(chain);
  const after = spread(chain, avoid('ids1'));
  for (const [i, way] of before.entries()) {
    t.is(after[i]?.split(' ')[0], way.split(' ')[0], 'the other hops stay');
    if (way.includes('ids1')) t.false(after[i]?.includes('ids1'));
    else t.is(after[i], way);
  }
  for (const node of ['ids0', 'ids2', 'ids3'])
    t.true(Math.abs(shareOf(after, node) - 1 / 3) < 0.05, `${node}: ${shareOf(after, node)}`);
});

test('where more nodes could be combined than paths are wanted, each still has its share', (t) => {
  const chain = chainOf(meshOf({ fw: { count: 8 }, ids: { count: 16 }, gw: { count: 1 } }));
  t.true(pathsOf(chain).length <= 64);
  const ways = spread(chain);
  for (let i = 0; i < 16; i++) t.true(Math.abs(shareOf(ways, name('ids', i)) - 1 / 16) < 0.01);
});

test('a slot means the same node of a service in each chain, and on the way back', (t) => {
  const mesh = meshOf({ fw: { count: 2 }, ids: { count: 3 }, gw: { count: 1 } }, { return: 'symmetric' });
  const there = chainOf(mesh).ways[0]?.slots.map(({ hops }) => hops.slice(0, 2).map(({ node }) => node));
  const back = chainOf(mesh, 'web/return').ways[0]?.slots;
  t.deepEqual(
    back?.map(({ hops }) => hops.map(({ node }) => node)),
    there?.map(([fw = '', ids = '']) => [ids, fw, 'edge']),
  );
});

test('a service that is away is skipped or replaced, or the packets are dropped', (t) => {
  const mesh = meshOf({
    fw: { count: 1 },
    cache: { count: 2, unavailable: 'skip' },
    ids: { count: 1, unavailable: 'alternate', alternate: 'spare' },
    spare: { count: 1 },
    gw: { count: 1 },
  });
  const [web] = Object.values(mesh.chains);
  if (web) web.hops = ['fw', 'cache', 'ids', 'gw'];
  const chain = chainOf(mesh);
  const choose = (...down: string[]): string[] =>
    [...new Set(choosePaths(chain.ways, avoid(...down)).map(nodesOf))].sort();
  t.deepEqual(choose(), ['fw0 cache0 ids0 gw0', 'fw0 cache1 ids0 gw0']);
  t.deepEqual(choose('cache0'), ['fw0 cache1 ids0 gw0']);
  t.deepEqual(choose('cache0', 'cache1'), ['fw0 ids0 gw0']);
  t.deepEqual(choose('ids0'), ['fw0 cache0 spare0 gw0', 'fw0 cache1 spare0 gw0']);
  t.deepEqual(choose('cache0', 'cache1', 'ids0'), ['fw0 spare0 gw0']);
  t.deepEqual(choose('fw0'), ['-']);
  t.deepEqual(choose('ids0', 'spare0'), ['-']);
});
