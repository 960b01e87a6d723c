/** Flows that end on host `fw` of the testbed, carried into a store while packets arrive, and what is told of what is missing. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { formatAddress, parseAddress } from '../../src/address.js';
import { Audit } from '../../src/audit.js';
import type { Capacities } from '../../src/datapath.js';
import { readMesh } from '../../src/document.js';
import { readCounters, sumNote } from '../../src/drops.js';
import type { BpfMap } from '../../src/native.js';
import { headerAt } from '../../src/path.js';
import { renderMesh } from '../../src/render.js';
import { openStore, type Store } from '../../src/store.js';
import { ethernet, type Ipv4, ipv4, udp } from '../helpers/packet.js';
import {
  applyMesh,
  countAll,
  macOf,
  openBeside,
  openTestbed,
  runPacket,
  type Testbed,
} from '../helpers/testbed.js';

const { mesh } = readMesh(
  `version: 1
nodes: { edge: { address: 10.0.0.1 }, fw: { address: 10.0.0.2 }, ids: { address: 10.0.0.3 } }
chains: { in: { hops: [ids, fw], record: 2 } }
rules: [{ name: in, at: [edge], match: { destination: 10.9.0.0/24 }, chain: in }]
`,
  'mesh.yaml',
);
if (!mesh) throw new Error('the mesh of this test is not right');
const rendered = renderMesh(mesh);
const [chain] = rendered.chains;
const [path] = rendered.paths;
if (!chain || !path) throw new Error('the mesh of this test has no chain');
const arriving = headerAt(path, 2, parseAddress('10.9.0.10') ?? 0);

let bed: Testbed;
const folder = mkdtempSync(join(tmpdir(), 'lsr-audit-'));
let stores = 0;

test.before(async () => {
  bed = await openTestbed();
  applyMesh(bed, mesh, 'fw');
});

test.after.always(() => {
  bed?.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Of tests/helpers/packet.ts. */
const senderMac = '02:00:00:00:00:99';

const frameOf = (packet: Partial<Ipv4>): Buffer =>
  ethernet(
    macOf('mesh0'),
    ipv4({
      source: '10.1.0.10',
      destination: formatAddress(arriving.destination),
      options: arriving.options,
      ...packet,
    }),
  );
const arrive = (at: Testbed, sourcePort: number, packet: Partial<Ipv4> = {}) =>
  runPacket(at, 'mesh0', 'ingress', frameOf({ payload: udp({ sourcePort }), ...packet }));

type AuditMaps = ConstructorParameters<typeof Audit>[0]['maps'];

function makeAudit(store: Store, at: Testbed = bed, maps: AuditMaps = at.datapath.maps): Audit {
  return new Audit({
    maps,
    store,
    listIntents: () => (mesh ? [{ mesh, rendered }] : []),
    listNeighbours: async () => new Map([[senderMac, parseAddress('10.0.0.1') ?? 0]]),
    readLost: () => sumNote(readCounters(at.datapath.maps), 'flow_lost'),
  });
}

function newStore(t: ExecutionContext): Store {
  stores += 1;
  const store = openStore(join(folder, `${stores}.db`));
  t.teardown(() => store.close());
  return store;
}

function beside(t: ExecutionContext, capacities: Capacities = {}): Testbed {
  const other = openBeside(bed, capacities);
  t.teardown(() => other.close());
  if (mesh) applyMesh(other, mesh, 'fw');
  return other;
}

const packetsOf = (store: Store): number[] =>
  store
    .queryPaths({ limit: 1000 })
    .records.map(({ packets }) => packets)
    .sort((a, b) => a - b);
const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);

test.serial('what arrives while tables take turns is counted to the last packet', async (t) => {
  const store = newStore(t);
  const audit = makeAudit(store);
  const before = countAll(bed, 'mesh0', 'ingress');
  const sent = 100_000;
  const program = `
import socket, sys
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); out.bind(("mesh0p", 0))
frame, port = bytearray.fromhex(sys.argv[1]), int(sys.argv[2])
for i in range(${sent}):
    frame[port:port + 2] = (i % 500 + 1).to_bytes(2, "big")
    out.send(frame)`;
  const frame = frameOf({ payload: udp({}) });
  const words = ['-c', program, frame.toString('hex'), String(14 + 20 + arriving.options.length)];
  let rounds = 0;
  let isSending = true;
  const sending = promisify(execFile)('python3', words).finally(() => {
    isSending = false;
  });
  for (; isSending; rounds++) await audit.carry();
  await sending;
  await audit.carry();
  const after = countAll(bed, 'mesh0', 'ingress');
  t.is((after.ended ?? 0) - (before.ended ?? 0), sent);
  t.is(sum(packetsOf(store)), sent, `${rounds} rounds`);
  t.is(packetsOf(store).length, 500);
  t.true(rounds > 3, `${rounds} rounds`);
  t.log(`${rounds} rounds`);
});

/** Fails when it is asked to remove what was stored: as if the daemon died just then. */
function dyingAt(map: BpfMap): BpfMap {
  return new Proxy(map, {
    get: (target, name) => {
      if (name === 'deleteBatch') throw new Error('died');
      const value = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

test.serial('who dies between storing and removing repeats no packet afterwards', async (t) => {
  const store = newStore(t);
  const other = beside(t);
  const { maps } = other.datapath;
  for (const port of [1, 2, 3, 1]) arrive(other, port);
  const dying = { ...maps, flows_even: dyingAt(maps.flows_even) };
  await t.throwsAsync(makeAudit(store, other, dying).carry(), { message: 'died' });
  t.deepEqual(packetsOf(store), [1, 1, 2], 'stored');
  arrive(other, 1);
  await makeAudit(store, other).carry();
  t.deepEqual(packetsOf(store), [1, 1, 3], 'and only what came since was added');
  for (const port of [1, 2]) arrive(other, port);
  await makeAudit(store, other).carry();
  t.deepEqual(packetsOf(store), [1, 2, 4]);
  t.deepEqual(store.queryGaps({ limit: 10 }), []);
});

test.serial('what a full disk refuses stays in the kernel until there is room', async (t) => {
  const file = join(folder, 'full.db');
  const other = beside(t);
  const small = openStore(file, { maxBytes: 128 * 1024 });
  const audit = makeAudit(small, other);
  for (let port = 1; port <= 600; port++) arrive(other, port);
  await t.throwsAsync(audit.carry(), { message: /the disk is full/ });
  for (let port = 301; port <= 900; port++) arrive(other, port);
  await t.throwsAsync(audit.carry(), { message: /the disk is full/ });
  small.close();
  const store = openStore(file);
  await makeAudit(store, other).carry();
  t.is(packetsOf(store).length, 900);
  t.is(sum(packetsOf(store)), 1200);
  t.deepEqual(store.queryGaps({ limit: 10 }), []);
  store.close();
});

test.serial('flows that find no room make a gap with their packets and its time', async (t) => {
  const store = newStore(t);
  const other = beside(t, { flows_even: 20, flows_odd: 20 });
  const audit = makeAudit(store, other);
  const begun = new Date().toISOString();
  for (let port = 1; port <= 20; port++) arrive(other, port);
  await audit.carry();
  t.deepEqual(store.queryGaps({ limit: 10 }), []);
  for (let port = 1; port <= 30; port++) arrive(other, port);
  await audit.carry();
  const [gap, ...others] = store.queryGaps({ limit: 10 });
  t.deepEqual(others, []);
  t.like(gap, { cause: 'table_full', packets: 10 });
  t.true((gap?.since ?? '') >= begun && (gap?.since ?? '') <= (gap?.until ?? ''));
  t.is(sum(packetsOf(store)) + 10, 50);
  await audit.carry();
  await makeAudit(store, other).carry();
  t.is(store.queryGaps({ limit: 10 }).length, 1, 'it is told once');
});

test.serial(
  'what went with the tables is a gap: a reboot, an unload, a store that was begun anew',
  async (t) => {
    const store = newStore(t);
    const first = beside(t);
    arrive(first, 1);
    await makeAudit(store, first).carry();
    makeAudit(store, beside(t));
    const causes = (): string[] => store.queryGaps({ limit: 10 }).map(({ cause }) => cause);
    t.deepEqual(causes(), ['unloaded']);
    const mark = store.readMark();
    if (mark) store.write({ mark: { ...mark, boot: 'another' } });
    makeAudit(store, first);
    t.deepEqual(causes().sort(), ['reboot', 'unloaded']);
    makeAudit(store, first);
    t.is(causes().length, 2);
  },
);

test.serial('flows and deviations are apart, and both are carried', async (t) => {
  const store = newStore(t);
  const other = beside(t);
  const audit = makeAudit(store, other);
  arrive(other, 1);
  arrive(other, 1, { destination: '10.0.0.3' });
  const wrong = Buffer.from(arriving.options);
  wrong[2] = 4;
  arrive(other, 1, { options: wrong });
  await audit.carry();
  const verdicts = store.queryPaths({ limit: 10 }).records.map(({ verdict }) => verdict);
  t.deepEqual(verdicts.sort(), ['complete', 'forged']);
  t.deepEqual(
    audit.fill.map(({ name, entries }) => [name, entries]),
    [
      ['flows', 1],
      ['deviations', 1],
    ],
  );
});
