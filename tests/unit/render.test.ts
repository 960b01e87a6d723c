import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import test from 'ava';
import fc from 'fast-check';
import { type Address, formatAddress, parseAddress } from '../../src/address.js';
import { checkMesh, readMesh } from '../../src/document.js';
import { enums } from '../../src/layout.js';
import { OPTION_BYTES_MAX, RECORD_SLOTS_MAX, ROUTE_ENTRIES_MAX } from '../../src/limits.js';
import type { Mesh } from '../../src/mesh.js';
import { headerAt, type RenderedPath } from '../../src/path.js';
import { planPacket } from '../../src/plan.js';
import { renderMesh } from '../../src/render.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const lab = readMesh(readFileSync(new URL('../fixtures/mesh/lab.yaml', import.meta.url), 'utf8'), 'lab.yaml')
  .mesh as Mesh;

/** A mesh with one chain over nodes 10.0.0.1, 10.0.0.2, … */
function chainOf(count: number, record: number, mode: 'loose' | 'strict'): Mesh {
  const names = Array.from({ length: count }, (_, index) => `n${index + 1}`);
  return {
    version: 1,
    nodes: {
      edge: { address: '10.0.0.254' },
      ...Object.fromEntries(names.map((name, index) => [name, { address: `10.0.0.${index + 1}` }])),
    },
    chains: { only: { hops: names, record, mode } },
    rules: [{ name: 'all', at: ['edge'], match: {}, chain: 'only' }],
  };
}

const pathOf = (mesh: Mesh): RenderedPath => renderMesh(mesh).chains[0]?.path as RenderedPath;

interface Header {
  destination: Address;
  options: Buffer;
}

/** The bytes an edge sends for a packet to `destination`, written from RFC 791 alone. */
function impose(mesh: Mesh, destination: Address): Header {
  const chain = mesh.chains.only;
  const [first = 0, ...rest] = (chain?.hops ?? []).map(
    (hop) => parseAddress(mesh.nodes[hop]?.address ?? '') ?? 0,
  );
  const word = (address: Address): number[] => [24, 16, 8, 0].map((shift) => (address >>> shift) & 255);
  const route = [...rest, destination].flatMap(word);
  const slots = chain?.record ?? 0;
  const bytes = [chain?.mode === 'strict' ? 137 : 131, route.length + 3, 4, ...route];
  if (slots > 0) bytes.push(7, 3 + 4 * slots, 4, ...Array<number>(4 * slots).fill(0));
  while (bytes.length % 4 !== 0) bytes.push(0);
  return { destination: first, options: Buffer.from(bytes) };
}

/** What RFC 791 §3.1 has a host do that the packet is addressed to: advance the source route, record, send on. */
function visit({ destination, options }: Header): Header {
  const next = Buffer.from(options);
  const [, length = 0, pointer = 0] = next;
  const to = next.readUInt32BE(pointer - 1);
  next.writeUInt32BE(destination, pointer - 1);
  next[2] = pointer + 4;
  if (next[length] === 7) {
    const [slots = 0, free = 0] = next.subarray(length + 1);
    if (free <= slots) {
      next.writeUInt32BE(destination, length + free - 1);
      next[length + 2] = free + 4;
    }
  }
  return { destination: to, options: next };
}

const shapes = fc
  .record({
    hops: fc.integer({ min: 1, max: 9 }),
    record: fc.integer({ min: 0, max: 7 }),
    mode: fc.constantFrom('loose' as const, 'strict' as const),
    destination: fc.integer({ min: 0x0a090000, max: 0x0a09ffff }),
  })
  .filter(({ hops, record }) => record === 0 || hops + record <= 8);

test('the lab’s chain is on the wire what the drawing in the design says', (t) => {
  const path = pathOf(lab);
  t.is(hex(path.options), '830f040a0000030a00000400000000070b04000000000000000000' + '00');
  t.is(path.destinationOffset, 11);
  const rows: [string, string][] = [
    ['10.0.0.2', '830f04 0a000003 0a000004 0a09000a 070b04 00000000 00000000 0000'],
    ['10.0.0.3', '830f08 0a000002 0a000004 0a09000a 070b08 0a000002 00000000 0000'],
    ['10.0.0.4', '830f0c 0a000002 0a000003 0a09000a 070b0c 0a000002 0a000003 0000'],
  ];
  rows.forEach(([address, options], index) => {
    const header = headerAt(path, index + 1, 0x0a09000a);
    t.is(formatAddress(header.destination), address);
    t.is(hex(header.options), options.replaceAll(' ', ''));
  });
});

test('hops carry the node, the service they were named by, and the address', (t) => {
  t.deepEqual(pathOf(lab).hops, [
    { node: 'fw', service: 'firewall', address: 0x0a000002, function: null, mtu: null },
    { node: 'ids', service: 'inspection', address: 0x0a000003, function: null, mtu: null },
    { node: 'gw', service: null, address: 0x0a000004, function: null, mtu: null },
  ]);
});

test('a path’s MTU is the smallest that the document knows on the way', (t) => {
  t.is(pathOf(lab).mtu, null);
  const narrow = structuredClone(lab);
  Object.assign(narrow.nodes.fw ?? {}, { mtu: 9000 });
  Object.assign(narrow.nodes.ids ?? {}, { mtu: 1400 });
  t.is(pathOf(narrow).mtu, 1400);
});

test('what each hop sends on by RFC 791 is what the next one is predicted to receive', (t) => {
  fc.assert(
    fc.property(shapes, ({ hops, record, mode, destination }) => {
      const mesh = chainOf(hops, record, mode);
      const path = pathOf(mesh);
      let header = impose(mesh, destination);
      for (let position = 1; position <= hops; position++) {
        const predicted = headerAt(path, position, destination);
        t.is(formatAddress(predicted.destination), formatAddress(header.destination));
        t.is(hex(predicted.options), hex(header.options));
        header = visit(header);
      }
      t.is(header.destination, destination, 'the last hop finds the destination at the pointer');
    }),
  );
});

test('the edge’s template with the destination filled in is the header at the first hop', (t) => {
  fc.assert(
    fc.property(shapes, ({ hops, record, mode, destination }) => {
      const path = pathOf(chainOf(hops, record, mode));
      const filled = Buffer.from(path.options);
      t.is(filled.readUInt32BE(path.destinationOffset), 0);
      filled.writeUInt32BE(destination, path.destinationOffset);
      t.is(hex(filled), hex(headerAt(path, 1, destination).options));
    }),
  );
});

test('options are a multiple of 4 bytes and at most 40, the same at each position', (t) => {
  fc.assert(
    fc.property(shapes, ({ hops, record, mode, destination }) => {
      const path = pathOf(chainOf(hops, record, mode));
      t.is(path.options.length % 4, 0);
      t.true(path.options.length <= OPTION_BYTES_MAX);
      for (let position = 1; position <= hops; position++) {
        t.is(headerAt(path, position, destination).options.length, path.options.length);
      }
    }),
  );
});

test('what does not fit into 40 bytes is cut into the fewest segments that do, in the order of the hops', (t) => {
  for (let hops = 1; hops <= 11; hops++) {
    for (let record = 0; record <= 7; record++) {
      const mesh = chainOf(hops, record, 'loose');
      const most = Math.floor((40 - 3 - (record > 0 ? 3 + 4 * record : 0)) / 4);
      const { chains } = renderMesh(mesh);
      const title = `${hops} hops and ${record} slots`;
      t.deepEqual(checkMesh(mesh), [], title);
      t.is(chains.length, Math.ceil(hops / most), title);
      t.true(chains.every(({ path }) => path.options.length <= 40 && path.hops.length <= most));
      t.deepEqual(
        chains.flatMap(({ path }) => path.hops.map(({ node }) => node)),
        Object.values(mesh.chains)[0]?.hops,
      );
    }
  }
});

test('a plan has the headers that are predicted, leg for leg', (t) => {
  fc.assert(
    fc.property(shapes, ({ hops, record, mode, destination }) => {
      const mesh = chainOf(hops, record, mode);
      const path = pathOf(mesh);
      const plan = planPacket(mesh, { from: '10.1.0.10', to: formatAddress(destination), protocol: 'tcp' });
      t.is(plan.legs.length, hops);
      t.is(plan.overhead, path.options.length);
      t.is(plan.headerBytes, 20 + path.options.length);
      t.is(plan.mss, 1460 - path.options.length);
      plan.legs.forEach((leg, index) => {
        const header = headerAt(path, index + 1, destination);
        t.is(leg.options, hex(header.options));
        t.is(leg.destination, formatAddress(header.destination));
        t.is(leg.pointer, 4 * (index + 1));
        t.is(leg.route.length, hops);
        t.deepEqual(
          leg.recordRoute,
          path.hops.slice(0, Math.min(index, record)).map(({ address }) => formatAddress(address)),
        );
      });
    }),
  );
});

test('ids come from SHA-256, so that every host computes the same', (t) => {
  const id = (text: string): number => createHash('sha256').update(text).digest().readUInt32BE(0);
  const [chain] = renderMesh(lab).chains;
  t.is(chain?.id, id('web'));
  t.is(chain?.path.id, id('loose 10.0.0.2,10.0.0.3,10.0.0.4 2'));
});

test('chains on the same way share one path, by whatever names they call its hops', (t) => {
  const mesh: Mesh = {
    ...lab,
    chains: { ...lab.chains, twin: { hops: ['fw', 'ids', 'gw'], record: 2 }, other: { hops: ['fw', 'gw'] } },
  };
  const { chains, paths } = renderMesh(mesh);
  t.deepEqual(
    chains.map(({ name, path }) => [name, paths.indexOf(path)]),
    [
      ['web', 0],
      ['twin', 0],
      ['other', 1],
    ],
  );
  t.is(paths.length, 2);
});

test('a chain’s destinations are those of its rules, each once', (t) => {
  const [web] = renderMesh(lab).chains;
  t.deepEqual(web?.destinations, [{ address: 0x0a090000, length: 24 }]);
  const [everywhere] = renderMesh(chainOf(1, 0, 'loose')).chains;
  t.deepEqual(everywhere?.destinations, [{ address: 0, length: 0 }]);
  const [unused] = renderMesh({ ...chainOf(1, 0, 'loose'), rules: [] }).chains;
  t.deepEqual(unused?.destinations, []);
});

test('a position that the path does not have is a defect and no header', (t) => {
  const path = pathOf(lab);
  for (const position of [0, 4, -1, 1.5]) {
    t.throws(() => headerAt(path, position, 0x0a09000a), {
      message: `a path of 3 hops has no position ${position}`,
    });
  }
});

test('the limits are those of the data path', (t) => {
  const { LSR_OPTIONS_MAX, LSR_ROUTE_MAX, LSR_RECORD_MAX } = enums.lsr_limits;
  t.deepEqual(
    [OPTION_BYTES_MAX, ROUTE_ENTRIES_MAX, RECORD_SLOTS_MAX],
    [LSR_OPTIONS_MAX, LSR_ROUTE_MAX, LSR_RECORD_MAX],
  );
});
