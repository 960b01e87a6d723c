/**
 * What each step costs: BPF_PROG_TEST_RUN, one packet a run because a run changes the packet, median
 * of many runs, as a ratio to a tc program that does nothing. `npm run bench -- hop [--runs N]`
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatAddress, parseAddress } from '../src/address.js';
import type { PreviousHop } from '../src/agent-config.js';
import { KeyRing } from '../src/key-ring.js';
import { readKeys } from '../src/keys.js';
import type { Mesh } from '../src/mesh.js';
import { type BpfProgram, loadNative } from '../src/native.js';
import { headerAt } from '../src/path.js';
import { renderMesh } from '../src/render.js';
import { formatTable } from '../src/table.js';
import { compileBpf } from '../tests/helpers/bpf-object.js';
import { ethernet, type Ipv4, ipv4 } from '../tests/helpers/packet.js';
import { epochNow, seal } from '../tests/helpers/tag.js';
import { applyMesh, macOf, openTestbed, type PortName, skbContext } from '../tests/helpers/testbed.js';

interface Variant {
  name: string;
  record: number;
  integrity: 'off' | 'require';
  previousHop: PreviousHop;
}

const variants: Variant[] = [
  { name: '', record: 0, integrity: 'off', previousHop: 'off' },
  { name: ', hop before checked', record: 0, integrity: 'off', previousHop: 'interface' },
  { name: ', Record Route of 2', record: 2, integrity: 'off', previousHop: 'off' },
  { name: ', integrity', record: 0, integrity: 'require', previousHop: 'off' },
];

/** TC_ACT_UNSPEC and TC_ACT_REDIRECT (linux/pkt_cls.h), which tell that a step was taken. */
const next = -1;
const redirect = 7;

const { values } = parseArgs({ options: { runs: { type: 'string', default: '20000' } } });
const runs = Number(values.runs);
const secret = Buffer.alloc(16, 0x5a);
const server = '10.9.0.10';
const client = '10.1.0.10';

const makeMesh = ({ record, integrity }: Variant): Mesh => ({
  version: 1,
  integrity,
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
const folder = mkdtempSync(join(tmpdir(), 'lsr-bench-'));
const empty = loadNative().openObject(compileBpf('empty.bpf.c', folder));
empty.load();

try {
  const { ingress, egress } = bed.programs;
  const plain = ethernet(macOf('edge0'), ipv4({ source: client, destination: server }));
  const missed = ethernet(macOf('edge0'), ipv4({ source: client, destination: '10.8.0.1' }));
  const base = measure(empty.program('empty'), plain, next, 'edge0');
  const rows: [string, number][] = [['empty program', base]];
  new KeyRing(bed.datapath.maps).write(
    readKeys(JSON.stringify({ sending: 0, keys: [{ slot: 0, key: secret.toString('hex') }] }), 'keys'),
  );
  variants.forEach((variant, generation) => {
    applyMesh(bed, makeMesh(variant), 'fw', generation + 1);
    bed.datapath.setPorts(bed.ports.map((port) => ({ ...port, previousHop: variant.previousHop })));
    if (generation === 0) {
      rows.push(['classify at ingress, no rule', measure(ingress, missed, next, 'edge0')]);
      rows.push(["classify at ingress, for the host's stack", measure(ingress, plain, next, 'edge0')]);
    }
    const { name } = variant;
    rows.push([`classify at egress and impose${name}`, measure(egress, plain, redirect, 'mesh0', 'edge0')]);
    rows.push([`advance${name}`, measure(ingress, chained(variant, 'through', 1), redirect, 'mesh0')]);
    rows.push([`end${name}`, measure(ingress, chained(variant, 'in', 2), next, 'mesh0')]);
  });
  const table = rows.map(([step, ns]) => [step, ns, (ns / base).toFixed(1)]);
  console.log(formatTable(['step', 'ns/packet', 'x empty'], table));
  const sizesOf = ({ info }: BpfProgram) => [
    info.name,
    info.verifiedInstructions,
    info.translatedBytes / 8,
    info.jitedBytes,
  ];
  const programs = [empty.program('empty'), ingress, egress].map(sizesOf);
  console.log(
    formatTable(['program', 'instructions verified', 'in the kernel', 'bytes of machine code'], programs),
  );
} finally {
  empty.close();
  rmSync(folder, { recursive: true });
  bed.close();
}

/** The packet of a chain as it arrives at a hop, signed where that is asked for. */
function chained(variant: Variant, name: string, position: number): Buffer {
  const chain = renderMesh(makeMesh(variant)).chains.find((candidate) => candidate.name === name);
  if (!chain) throw new Error(`no chain ${name}`);
  const { path, number } = chain;
  const header = headerAt(path, position, parseAddress(server) ?? 0);
  const destination = formatAddress(header.destination);
  const packet: Ipv4 = { source: client, destination, options: header.options };
  if (path.binding === 'none') return ethernet(macOf('mesh0'), ipv4(packet));
  const signature = { key: secret, slot: 0, chain: number, path: path.id, binding: path.binding };
  return ethernet(
    macOf('mesh0'),
    ipv4(seal(packet, { ...signature, destination: server, epoch: epochNow() })),
  );
}

/** Nanoseconds of one run at `port`, which must return `action`; at egress, of a packet that came in from another. */
function measure(program: BpfProgram, data: Buffer, action: number, port: PortName, from?: PortName): number {
  const [index = 0, origin = 0] = [port, from].map(
    (wanted) => bed.ports.find(({ name }) => name === wanted)?.link.index,
  );
  const context = skbContext(index, {}, origin);
  const ran = Array.from({ length: runs }, () => program.testRun({ data, context }));
  const wrong = ran.find(({ returnValue }) => (returnValue | 0) !== action);
  if (wrong) throw new Error(`the program returned ${wrong.returnValue | 0} instead of ${action}`);
  return ran.map(({ durationNs }) => durationNs).sort((a, b) => a - b)[runs >> 1] ?? 0;
}
