/**
 * Fourteen hops, more than one IPv4 header holds: two segments of seven, and one path record of both.
 *
 *   client ── edge ── h1 │ h2 │ … │ h13 │ gw ── server
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { apiSocket, program } from '../../src/lab-standing.js';
import { labTopology, type Topology } from '../../src/lab-topology.js';
import type { Mesh } from '../../src/mesh.js';
import type { PathsPage } from '../../src/record.js';
import { carryStream, server } from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { capture, findUnbalanced, readDrops, readPaths } from '../helpers/wire.js';

const between = Array.from({ length: 13 }, (_, index) => `h${index + 1}`);
const hops = [...between, 'gw'];
const agents = ['edge', ...hops];
const addressOf = (host: string): string =>
  ({ edge: '10.0.0.1', gw: '10.0.0.4' })[host] ?? `10.0.0.${100 + Number(host.slice(1))}`;

const { fw: hop, ids: _, ...others } = labTopology.hosts;
const topology: Topology = {
  hosts: {
    ...others,
    ...Object.fromEntries(
      between.map((host) => [host, { ...hop, addresses: { mesh0: `${addressOf(host)}/24` } }]),
    ),
  },
  cables: [
    ...labTopology.cables.filter((cable) => !cable.some((end) => /^(fw|ids):/.test(end))),
    ...between.map((host): [string, string] => [`${host}:mesh0`, `switch:${host}`]),
  ],
};

const mesh: Mesh = {
  version: 1,
  nodes: Object.fromEntries(agents.map((host) => [host, { address: addressOf(host) }])),
  chains: { long: { hops } },
  rules: [{ name: 'long', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'long' }],
};

let lab: TestLab;

test.before(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'lsr-long-'));
  writeFileSync(join(folder, 'mesh.yaml'), JSON.stringify(mesh));
  lab = await createLab({ topology, agents, mesh: join(folder, 'mesh.yaml') });
  rmSync(folder, { recursive: true });
});

test.after.always(() => lab?.remove());

test.serial('a request passes all fourteen, and nobody sees it plain in between', async (t) => {
  const seen = await capture(lab, 'h7', 'mesh0', 'src 10.1.0.10', ['ip.hdr_len'], async () => {
    t.regex(await lab.on('client', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  });
  t.true(seen.length >= 8, 'in and out');
  t.true(seen.every(([length]) => Number(length) === 20 + 4 + 7 * 4));
});

test.serial('paths joins what both ends recorded into one record of fourteen hops', async (t) => {
  const words = [program, '--api', apiSocket(lab, 'gw'), '--json', 'paths', '--chain', 'long'];
  const output = await lab.on('client', process.execPath, ...words, '--join', apiSocket(lab, 'h7'));
  const { records } = JSON.parse(output) as PathsPage;
  t.is(records.length, 1);
  t.like(records[0], { chain: 'long', verdict: 'complete' });
  for (const route of [records[0]?.recorded, records[0]?.expected])
    t.deepEqual(
      route?.map(({ node }) => node),
      hops,
    );
  const [end] = await readPaths(lab, 'gw');
  t.is(records[0]?.packets, end?.packets);
});

test.serial('a stream gets through both segments, and on every host it adds up', async (t) => {
  t.true(await carryStream(lab, 5_000_000));
  for (const host of agents) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});
