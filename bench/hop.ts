/**
 * What each step costs: BPF_PROG_TEST_RUN, one packet a run because a run changes the packet, median
 * of many runs, as a ratio to a tc program that does nothing. `npm run bench -- hop`
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatAddress, parseAddress } from '../src/address.js';
import type { Mesh } from '../src/mesh.js';
import { type BpfProgram, loadNative } from '../src/native.js';
import { headerAt, renderMesh } from '../src/render.js';
import { formatTable } from '../src/table.js';
import { compileBpf } from '../tests/helpers/bpf-object.js';
import { ethernet, ipv4 } from '../tests/helpers/packet.js';
import { applyMesh, macOf, openTestbed, type PortName, skbContext } from '../tests/helpers/testbed.js';

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
  const base = measure(empty.program('empty'), plain, 'edge0');
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
    const { ingress, egress } = bed.programs;
    const suffix = record > 0 ? `, Record Route of ${record}` : '';
    const missed = ethernet(macOf('edge0'), ipv4({ source: client, destination: '10.8.0.1' }));
    rows.push([`classify at ingress, no rule${suffix}`, measure(ingress, missed, 'edge0')]);
    rows.push([`classify at ingress, for the host's stack${suffix}`, measure(ingress, plain, 'edge0')]);
    rows.push([`classify at egress and impose${suffix}`, measure(egress, plain, 'mesh0', 'edge0')]);
    rows.push([`advance${suffix}`, measure(ingress, chained('through', 1), 'mesh0')]);
    rows.push([`end${suffix}`, measure(ingress, chained('in', 2), 'mesh0')]);
  }
  const table = rows.map(([step, ns]) => [step, ns, (ns / base).toFixed(1)]);
  console.log(formatTable(['step', 'ns/packet', 'x empty'], table));
} finally {
  empty.close();
  bed.close();
}

/** Nanoseconds of one run at `port`; at egress, of a packet that came in from another. */
function measure(program: BpfProgram, data: Buffer, port: PortName, from?: PortName): number {
  const [index = 0, origin = 0] = [port, from].map(
    (wanted) => bed.ports.find(({ name }) => name === wanted)?.link.index,
  );
  const context = skbContext(index, {}, origin);
  const times = Array.from({ length: runs }, () => program.testRun({ data, context }).durationNs);
  return times.sort((a, b) => a - b)[runs / 2] ?? 0;
}
