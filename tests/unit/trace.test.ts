import test from 'ava';
import { allAvailable } from '../../src/availability.js';
import type { Mesh } from '../../src/mesh.js';
import { pathsOf, renderMesh } from '../../src/render.js';
import { explainTrace, hasReached, type TracedHop, type TraceQuery } from '../../src/trace.js';
import { findTarget } from '../../src/trace-target.js';

const hop = (
  node: string,
  arrived: (number | null)[],
  behind: (number | null)[] | null = null,
): TracedHop => ({
  node,
  address: '10.0.0.1',
  service: behind && 'firewall',
  arrived,
  behind,
});

const ways: [title: string, hops: TracedHop[], explanation: RegExp, reached: boolean][] = [
  ['all answer', [hop('fw', [1, 1], [2, 2]), hop('gw', [3, 3])], /^all 2 hops answer$/, true],
  [
    'some probes are lost',
    [hop('fw', [1, null]), hop('gw', [3, 3])],
    /^all 2 hops answer, but 1 of 4 /,
    true,
  ],
  ['nothing comes back', [hop('fw', [null]), hop('gw', [null])], /^lost between edge and fw/, false],
  ['a leg is broken', [hop('fw', [1]), hop('gw', [null])], /^lost between fw and gw/, false],
  ['a function keeps all', [hop('fw', [1], [null]), hop('gw', [null])], /^lost in firewall of fw/, false],
  [
    'a hop does not answer, but the end',
    [hop('fw', [null]), hop('gw', [1])],
    /^lost between edge and fw/,
    true,
  ],
];

for (const [title, hops, explanation, reached] of ways) {
  test(`explained: ${title}`, (t) => {
    t.regex(explainTrace('edge', hops), explanation);
    t.is(hasReached(hops), reached);
  });
}

const mesh: Mesh = {
  version: 1,
  nodes: {
    edge: { address: '10.0.0.1' },
    fw: { address: '10.0.0.2' },
    ids1: { address: '10.0.0.3' },
    ids2: { address: '10.0.0.5' },
    gw: { address: '10.0.0.4' },
  },
  services: {
    firewall: { nodes: ['fw'], function: 'stack' },
    ids: { nodes: ['ids1', 'ids2'], function: 'tap', device: 'tap0' },
  },
  chains: { web: { hops: ['firewall', 'ids', 'gw'] }, plain: { hops: ['gw'] } },
  rules: [
    { name: 'web', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'web' },
    { name: 'plain', at: ['fw'], match: { destination: '10.9.0.0/24' }, chain: 'plain' },
  ],
};
const [web] = renderMesh(mesh).chains;
if (!web) throw new Error('the mesh has a chain');
const over = (node: string): number =>
  pathsOf(web).find(({ hops }) => hops.some((place) => place.node === node))?.id ?? 0;

const find = (query: TraceQuery, available = allAvailable) => findTarget(mesh, 'edge', query, available);

test('a chain is traced on a path that is up, with the functions that keep packets', (t) => {
  const { path, keeping, next } = find({ chain: 'web' });
  t.true([over('ids1'), over('ids2')].includes(path.id));
  t.deepEqual([...keeping], ['firewall']);
  t.is(next, null);
  const down = new Set([path.id]);
  t.not(find({ chain: 'web' }, { ...allAvailable, down }).path.id, path.id);
});

test('a path is traced by its id, also one that is down', (t) => {
  for (const node of ['ids1', 'ids2']) {
    const down = new Set([over('ids1'), over('ids2')]);
    t.is(find({ chain: 'web', path: over(node) }, { ...allAvailable, down }).path.id, over(node));
  }
});

test('a flow is traced on the path of its slot', (t) => {
  const flow = { source: '10.1.0.10', destination: '10.9.0.10', protocol: 'tcp', destinationPort: 80 };
  const taken = new Set(
    Array.from({ length: 40 }, (_, i) => find({ ...flow, sourcePort: 40_000 + i }).path.id),
  );
  t.deepEqual(taken, new Set([over('ids1'), over('ids2')]));
});

const refused: [query: TraceQuery, message: RegExp][] = [
  [{}, /name a chain, or the source and destination/],
  [{ source: '10.1.0.10' }, /name a chain, or/],
  [{ chain: 'wen' }, /there is no chain "wen".*did you mean "web"/],
  [{ chain: 'plain' }, /chain "plain" begins at fw, not at edge/],
  [{ chain: 'web', path: 1 }, /chain "web" has no path 1; its paths are \d+, \d+/],
  [{ source: '10.1.0.10', destination: '10.8.0.1' }, /the flow takes no chain here/],
  [{ source: '10.1.0.10', destination: '10.9.0.10', protocol: 'tcp' }, /which of the 2 paths of "web"/],
  [{ source: 'x', destination: '10.9.0.10' }, /from is "x"/],
];

for (const [query, message] of refused) {
  test(`refused: ${JSON.stringify(query)}`, (t) => {
    t.throws(() => find(query), { message });
  });
}
