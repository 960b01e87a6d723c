/**
 * What each step costs: BPF_PROG_TEST_RUN, one packet a run because a run changes the packet, median
 * of many runs, as a ratio to a tc program that does nothing. `npm run bench`
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatAddress, parseAddress } from '../src/address.js';
import type { Mesh } from '../src/mesh.js';
import { loadNative } from '../src/native.js';
import { headerAt, renderMesh } from '../src/render.js';
import { formatTable } from '../src/table.js';
import { compileBpf } from '../tests/helpers/bpf-object.js';
import { ethernet, ipv4 } from '../tests/helpers/packet.js';
import { applyMesh, macOf, openTestbed, skbContext } from '../tests/helpers/testbed.js';

const runs = 20_000;
const server = '10.9.0.10';
const client = '10.1.0.10';

const makeMesh = (record: number): Mesh => ({
  version: 1,
  nodes: {
    edge: { address: '10.0.0.1' },
    fw: { address: '10.0.0.2' },
    ids: { address: '10.0.0.3' },
    gw: { address: '10.0.0.4' },
  },
  chains: {
    out: { hops: ['ids', 'gw'], record },
    through: { hops: ['fw', 'ids', 'gw'], record },
    in: { hops: ['ids', 'fw'], record },
  },
  rules: [
    { name: 'out', at: ['fw'], match: { destination: '10.9.0.0/24', protocol: 'udp' }, chain: 'out' },
    { name: 'through', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'through' },
    { name: 'in', at: ['edge'], match: { destination: '10.9.0.0/24' }, chain: 'in', priority: 101 },
  ],
});

const bed = await openTestbed();
const empty = loadNative().openObject(compileBpf('empty.bpf.c', mkdtempSync(join(tmpdir(), 'lsr-bench-'))));
empty.load();

try {
  const plain = ethernet(macOf('edge0'), ipv4({ source: client, destination: server }));
  const base = measure(empty.program('empty'), 'edge0', plain);
  const rows: [string, number][] = [['empty program', base]];
  for (const record of [0, 2]) {
    const mesh = makeMesh(record);
    const chains = renderMesh(mesh).chains;
    const chained = (name: string, position: number): Buffer => {
      const path = chains.find((chain) => chain.name === name)?.path;
      if (!path) throw new Error(`no chain ${name}`);
      const header = headerAt(path, position, parseAddress(server) ?? 0);
      const packet = {
        source: client,
        destination: formatAddress(header.destination),
        options: header.options,
      };
      return ethernet(macOf('mesh0'), ipv4(packet));
    };
    applyMesh(bed, mesh, 'fw', record + 1);
    const suffix = record > 0 ? `, Record Route of ${record}` : '';
    const missed = ethernet(macOf('edge0'), ipv4({ source: client, destination: '10.8.0.1' }));
    rows.push([`classify, no rule${suffix}`, measure(bed.programs.ingress, 'edge0', missed)]);
    rows.push([`impose${suffix}`, measure(bed.programs.ingress, 'edge0', plain)]);
    rows.push([`advance${suffix}`, measure(bed.programs.ingress, 'mesh0', chained('through', 1))]);
    rows.push([`end${suffix}`, measure(bed.programs.ingress, 'mesh0', chained('in', 2))]);
  }
  const table = rows.map(([step, ns]) => [step, ns, (ns / base).toFixed(1)]);
  console.log(formatTable(['step', 'ns/packet', 'x empty'], table));
} finally {
  empty.close();
  bed.close();
}

function measure(program: ReturnType<typeof empty.program>, port: string, data: Buffer): number {
  const index = bed.ports.find(({ name }) => name === port)?.link.index ?? 0;
  const context = skbContext(index);
  const times = Array.from({ length: runs }, () => program.testRun({ data, context }).durationNs);
  return times.sort((a, b) => a - b)[runs / 2] ?? 0;
}
