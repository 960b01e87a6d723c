import test from 'ava';
import type { Mesh } from '../../src/mesh.js';
import { type RenderedChain, renderMesh } from '../../src/render.js';
import { type PathSummary, summarize } from '../../src/summary.js';
import type { Traffic } from '../../src/traffic.js';

const mesh: Mesh = {
  version: 1,
  nodes: {
    edge: { address: '10.0.0.1' },
    fw: { address: '10.0.0.2' },
    ids: { address: '10.0.0.3' },
    gw: { address: '10.0.0.4' },
  },
  services: { firewall: { nodes: ['fw'], function: 'stack' } },
  chains: { web: { hops: ['firewall', 'ids', 'gw'] }, dns: { hops: ['firewall', 'ids', 'gw'] } },
  rules: [
    { name: 'web', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'web' },
    { name: 'dns', at: ['edge'], match: { destination: '10.8.0.0/24' }, chain: 'dns' },
  ],
};
const { chains } = renderMesh(mesh);
const [web, dns] = chains as [RenderedChain, RenderedChain];

const counted = (reason: string, packets: number, chain = 0, path = web.path.id): Traffic => ({
  path,
  chain,
  reason,
  packets,
  bytes: packets * 100,
});
const amount = (packets: number) => ({ packets, bytes: packets * 100 });
const at = (node: string, traffic: Traffic[]): PathSummary | undefined =>
  summarize('web', chains, node, traffic, {}).paths[0];

const cases: [
  title: string,
  node: string,
  traffic: Traffic[],
  position: number,
  into: number,
  out: number,
  drops: number,
][] = [
  ['nothing was counted', 'edge', [], 0, 0, 0, 0],
  ['where it begins', 'edge', [counted('imposed', 8, web.id), counted('too_big', 2, web.id)], 0, 10, 8, 2],
  [
    'with another chain on the path',
    'edge',
    [counted('imposed', 8, web.id), counted('imposed', 1, dns.id)],
    0,
    9,
    9,
    0,
  ],
  [
    'a function that keeps some',
    'fw',
    [counted('to_stack', 9), counted('advanced', 7), counted('ttl', 1)],
    1,
    10,
    7,
    1,
  ],
  ['a hop without a function', 'ids', [counted('advanced', 7), counted('ttl', 1)], 2, 8, 7, 1],
  ['where it ends', 'gw', [counted('ended', 6, web.id), counted('destination', 1)], 3, 7, 6, 1],
  [
    'where it ends before a function',
    'gw',
    [counted('ended', 6, web.id), counted('to_device', 6)],
    3,
    6,
    6,
    0,
  ],
  ['packets of other paths', 'ids', [counted('advanced', 7, 0, 1)], 2, 0, 0, 0],
];

for (const [title, node, traffic, position, into, out, dropped] of cases) {
  test(`counted by path: ${title}`, (t) => {
    const path = at(node, traffic);
    t.like(path, { position, in: amount(into), out: amount(out), nodes: ['fw', 'ids', 'gw'] });
    t.deepEqual(path?.chains, ['web', 'dns']);
    t.is(
      Object.values(path?.drops ?? {}).reduce((sum, { packets }) => sum + packets, 0),
      dropped,
    );
  });
}

test('what found no path counts for the chain alone', (t) => {
  const traffic = [counted('unavailable', 3, web.id, 0), counted('unavailable', 5, dns.id, 0)];
  const summary = summarize('web', chains, 'edge', traffic, { complete: amount(1) });
  t.deepEqual(summary.unrouted, { unavailable: amount(3) });
  t.deepEqual(summary.verdicts, { complete: amount(1) });
});

test('a chain that is not there is refused', (t) => {
  t.throws(() => summarize('wbe', chains, 'edge', [], {}), { message: /no chain "wbe".*"web"/ });
});
