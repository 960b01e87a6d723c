/**
 * What the audit costs with very many flows: in the kernel, on their way into the store, and when they are asked for.
 * `npm run bench -- audit [--flows N]`. Ends with 1 where a packet is in no record.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { formatAddress, parseAddress, parsePrefix } from '../src/address.js';
import { Audit } from '../src/audit.js';
import { readCounters, sumNote } from '../src/drops.js';
import type { Mesh } from '../src/mesh.js';
import { headerAt } from '../src/path.js';
import { type PathFilter, sortKeys } from '../src/path-query.js';
import { renderMesh } from '../src/render.js';
import { openStore, type Store } from '../src/store.js';
import { formatTable } from '../src/table.js';
import { ethernet, ipv4, udp } from '../tests/helpers/packet.js';
import { applyMesh, macOf, openTestbed, skbContext, type Testbed } from '../tests/helpers/testbed.js';

const mesh: Mesh = {
  version: 1,
  nodes: { edge: { address: '10.0.0.1' }, fw: { address: '10.0.0.2' }, ids: { address: '10.0.0.3' } },
  chains: { in: { hops: ['ids', 'fw'], record: 2 }, other: { hops: ['ids', 'fw'], record: 1 } },
  rules: ['in', 'other'].map((chain) => ({
    name: chain,
    at: ['edge'],
    match: { destination: chain === 'in' ? '10.9.0.0/24' : '10.8.0.0/24' },
    chain,
  })),
};

const { values } = parseArgs({ options: { flows: { type: 'string', default: '1000000' } } });
const flows = Number(values.flows);
const bed = await openTestbed();
const folder = mkdtempSync(join(tmpdir(), 'lsr-bench-'));
const store = openStore(join(folder, 'audit.db'));
try {
  process.exitCode = await measureAll();
} finally {
  store.close();
  bed.close();
  rmSync(folder, { recursive: true });
}

async function measureAll(): Promise<number> {
  applyMesh(bed, mesh, 'fw');
  const rendered = renderMesh(mesh);
  const readLost = (): number => sumNote(readCounters(bed.datapath.maps), 'flow_lost');
  const audit = new Audit({
    maps: bed.datapath.maps,
    store,
    listIntents: () => [{ mesh, rendered }],
    listNeighbours: async () => new Map(),
    readLost,
  });
  const costs = sendAll(bed);
  const begun = { at: performance.now(), bytes: process.memoryUsage().rss };
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  await audit.carry();
  delay.disable();
  const seconds = (performance.now() - begun.at) / 1000;
  const recorded = [...store.sumTraffic().values()]
    .flatMap((sums) => Object.values(sums))
    .reduce((sum, { packets }) => sum + packets, 0);
  const grown = (process.memoryUsage().rss - begun.bytes) / 2 ** 20;
  const size = statSync(store.file).size / 1e6;
  console.log(
    formatTable(
      [`audit of ${flows} flows`, 'value'],
      [
        ['packet of a new flow, median', `${costs.fresh} ns`],
        ['packet of a known flow, median', `${costs.known} ns`],
        ['packets that found no room in the kernel', readLost()],
        ['carried into the store', `${Math.round(flows / seconds)} flows/s, ${seconds.toFixed(1)} s`],
        ['longest that nothing else was answered', `${Math.round(delay.max / 1e6)} ms`],
        ['memory of the process', `${grown.toFixed(0)} MiB more`],
        ['size of the store', `${size.toFixed(0)} MB`],
        ['packets sent, and in records', `${costs.sent}, ${recorded}`],
      ],
    ),
  );
  console.log(
    formatTable(['a page of', 'pages', 'records', 'median ms', 'p99 ms', 'max ms'], measurePages(store)),
  );
  return recorded + readLost() === costs.sent ? 0 : 1;
}

/** A packet of each flow, and some more of those that are known by then. Nanoseconds in the program. */
function sendAll({ programs, ports }: Testbed): { fresh: number; known: number; sent: number } {
  const context = skbContext(ports.find(({ name }) => name === 'mesh0')?.link.index ?? 0);
  const mac = macOf('mesh0');
  const frames = ['10.9.0.10', '10.8.0.10'].map((server, index) => {
    const path = renderMesh(mesh).chains[index]?.path;
    if (!path) throw new Error('the mesh of this benchmark has too few chains');
    const { destination, options } = headerAt(path, 2, parseAddress(server) ?? 0);
    return ethernet(
      mac,
      ipv4({ source: '10.64.0.0', destination: formatAddress(destination), options, payload: udp({}) }),
    );
  });
  const send = (flow: number): number => {
    const frame = frames[flow % 2] as Buffer;
    setFlow(frame, flow);
    return programs.ingress.testRun({ data: frame, context }).durationNs;
  };
  const median = (times: number[]): number => times.sort((a, b) => a - b)[times.length >> 1] ?? 0;
  const fresh: number[] = [];
  for (let flow = 0; flow < flows; flow++) {
    const cost = send(flow);
    if (flow % 50 === 0) fresh.push(cost);
  }
  const again = Math.min(flows, 20_000);
  const known = Array.from({ length: again }, (_, i) => send((i * 7919) % flows));
  return { fresh: median(fresh), known: median(known), sent: flows + again };
}

/** The low bytes of the source, and the source port; the header's checksum again (RFC 1071). */
function setFlow(frame: Buffer, flow: number): void {
  const header = ((frame[14] ?? 0) & 15) * 4;
  frame.writeUInt16BE(flow % 65_521, 14 + 14);
  frame.writeUInt16BE(1 + (flow % 65_519), 14 + header);
  frame.writeUInt16BE(0, 14 + 10);
  let sum = 0;
  for (let at = 14; at < 14 + header; at += 2) sum += frame.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  frame.writeUInt16BE(~sum & 0xffff, 14 + 10);
}

/** Up to twenty pages of each query, in each order. */
function measurePages(asked: Store): (string | number)[][] {
  const prefix = (text: string) => parsePrefix(text) ?? undefined;
  const now = Date.now();
  const filters: Record<string, Omit<PathFilter, 'limit'>> = {
    everything: {},
    'a chain': { chain: 'in' },
    'a verdict that no record has': { verdict: 'forged' },
    'a node': { node: 'ids' },
    'a node that no record has': { node: 'spare' },
    'one source': { source: prefix('10.64.0.7') },
    'sources of a /24': { source: prefix('10.64.7.0/24') },
    'sources of a /17': { source: prefix('10.64.128.0/17') },
    'one of two destinations': { destination: prefix('10.8.0.10') },
    'the last minute': { since: new Date(now - 60_000) },
    'chain, /17, and a destination that has none of it': {
      chain: 'in',
      source: prefix('10.64.0.0/17'),
      destination: prefix('10.8.0.0/24'),
    },
  };
  return Object.entries(filters).map(([name, filter]) => {
    const times: number[] = [];
    let records = 0;
    for (const sort of sortKeys)
      for (const limit of [100, 1000]) {
        let cursor: string | undefined;
        for (let page = 0; page < 20 && (page === 0 || cursor); page++) {
          const begun = performance.now();
          const found = asked.queryPaths({ ...filter, sort, limit, cursor });
          times.push(performance.now() - begun);
          records += found.records.length;
          cursor = found.nextCursor ?? undefined;
        }
      }
    times.sort((a, b) => a - b);
    const at = (share: number): string => (times[Math.floor(share * (times.length - 1))] ?? 0).toFixed(1);
    return [name, times.length, records, at(0.5), at(0.99), at(1)];
  });
}
