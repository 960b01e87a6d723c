import type { Agent, AppliedMesh } from '../../src/agent.js';
import type { DropsView, Status } from '../../src/api-schemas.js';
import { describeKeys } from '../../src/keys.js';
import type { FlowRow } from '../../src/record.js';
import type { Summary } from '../../src/summary.js';
import type { Trace } from '../../src/trace.js';
import type { Watch } from '../../src/watch.js';

export const meshText = `version: 1
nodes:
  edge: { address: 10.0.0.1 }
  fw: { address: 10.0.0.2 }
  ids: { address: 10.0.0.3 }
  gw: { address: 10.0.0.4 }
chains:
  web: { hops: [fw, ids, gw], record: 2 }
rules:
  - { name: web-in, at: [edge], match: { destination: 10.9.0.0/24 }, chain: web }
`;

export interface FakeAgent extends Agent {
  flushes: number;
  current: AppliedMesh | null;
}

/** Answers the routes with fixed data; it applies a mesh by remembering it. It stands for the daemon, not for the kernel. */
export function fakeAgent(overrides: Partial<Agent> = {}): FakeAgent {
  const agent: FakeAgent = {
    flushes: 0,
    current: null,
    status: async () => statusFixture,
    mesh: () => agent.current,
    applyMesh: async (document, text) => {
      const generation = (agent.current?.generation ?? 0) + 1;
      agent.current = { generation, text, document, source: 'API' };
      return { generation, changed: { paths: { added: 2, removed: 0, updated: 1 } }, durationMs: 1.5 };
    },
    keys: () => keysFixture,
    applyKeys: () => keysFixture,
    trace: async () => traceFixture,
    watch: () => watchFixture,
    summary: () => summaryFixture,
    drains: () => [],
    applyDrains: () => [],
    chains: () => [chainFixture],
    drops: async () => dropsFixture,
    flush: async () => {
      agent.flushes += 1;
    },
    metrics: async () => '# TYPE lsr_packets counter\nlsr_packets 1\n',
    ...overrides,
  };
  return agent;
}

/** A record row as the daemon hands it over; `changes` are what the case is about. */
export function flowRow(
  changes: Partial<Omit<FlowRow, 'flow'>> & { flow?: Partial<FlowRow['flow']> } = {},
): FlowRow {
  const way = [
    { node: 'fw', address: '10.0.0.2' },
    { node: 'ids', address: '10.0.0.3' },
    { node: 'gw', address: '10.0.0.4' },
  ];
  return {
    chain: 'web',
    generation: 1,
    expected: way,
    recorded: way,
    recordRoute: ['10.0.0.2', '10.0.0.3'],
    verdict: 'complete',
    reasons: [],
    packets: 3,
    bytes: 300,
    firstSeen: '2025-01-31T12:00:00.000Z',
    lastSeen: '2025-01-31T12:00:01.000Z',
    integrity: 'none',
    arrivedFrom: null,
    ...changes,
    flow: {
      source: '10.1.0.10',
      destination: '10.9.0.10',
      protocol: 6,
      sourcePort: 40000,
      destinationPort: 80,
      ...changes.flow,
    },
  };
}

const keysFixture = describeKeys({ slots: [null, null, null, null], sending: null });

export const statusFixture: Status = {
  node: 'gw',
  version: '0.1.0',
  state: 'ready',
  generation: 1,
  mesh: { source: '/etc/lsr-agent/mesh.yaml', appliedAt: '2025-01-31T12:00:00.000Z', error: null },
  keys: { sending: null, error: null },
  backstop: { chains: [], error: null },
  store: { bytes: 4096, error: null },
  functions: [],
  interfaces: [{ name: 'mesh0', role: 'mesh', ifindex: 2, attached: 'tcx', mtu: 1500, address: '10.0.0.4' }],
  maps: [{ name: 'paths', entries: 3, capacity: 1024 }],
  uptimeSeconds: 75,
  pid: 1234,
};

export const chainFixture = {
  name: 'web',
  id: 7,
  mode: 'loose' as const,
  hops: [{ name: 'fw', nodes: [{ node: 'fw', address: '10.0.0.2' }] }],
  paths: [{ id: 9, nodes: ['fw'], absent: [], state: 'up' as const, share: 1 }],
  record: 2,
  overhead: 28,
  destinations: ['10.9.0.0/24'],
  rules: ['web-in'],
  packets: 5,
};

export const dropsFixture: DropsView = {
  interfaces: [
    {
      interface: 'mesh0',
      direction: 'ingress',
      received: 10,
      outcomes: { passed: 7 },
      drops: { 'route-unknown': 3, 'ttl-expired': 0 },
      notes: {},
    },
  ],
  backstop: {},
  samples: [
    {
      time: '2025-01-31T12:00:00.000Z',
      interface: 'mesh0',
      direction: 'ingress',
      reason: 'route-unknown',
      source: '10.1.0.10',
      destination: '10.0.0.4',
      protocol: 17,
      options: '8307040a00000100',
    },
  ],
  explanations: {
    'route-unknown': {
      meaning: 'The source route is none of this mesh.',
      advice: 'Compare the generations of the hosts.',
    },
  },
};

export const traceFixture: Trace = {
  chain: 'web',
  path: 7,
  from: 'edge',
  hops: [
    {
      node: 'fw',
      address: '10.0.0.2',
      service: 'firewall',
      arrived: [0.4, null, 0.3],
      behind: [0.5, 0.6, 0.5],
    },
    { node: 'gw', address: '10.0.0.4', service: null, arrived: [0.9, 0.8, 0.7], behind: null },
  ],
  reached: true,
  explanation: 'all 2 hops answer, but 1 of 9 probes were lost',
  next: { chain: 'web/2', at: ['gw'] },
};

export const watchFixture: Watch = {
  node: 'fw',
  since: '2025-01-31T12:00:00.000Z',
  seen: [
    { reason: 'advanced', packets: 12, lastSeen: '2025-01-31T12:00:03.000Z' },
    { reason: 'ttl', packets: 1, lastSeen: '2025-01-31T12:00:04.000Z' },
  ],
};

export const summaryFixture: Summary = {
  chain: 'web',
  node: 'edge',
  verdicts: { complete: { packets: 10, bytes: 1000 } },
  unrouted: { unavailable: { packets: 1, bytes: 60 } },
  paths: [
    {
      id: 7,
      nodes: ['fw', 'gw'],
      chains: ['web'],
      position: 0,
      in: { packets: 12, bytes: 1200 },
      out: { packets: 11, bytes: 1140 },
      drops: { ttl: { packets: 1, bytes: 60 } },
    },
  ],
};
