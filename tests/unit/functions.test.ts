import test from 'ava';
import type { AgentConfig } from '../../src/agent-config.js';
import { diagnoseFunctions } from '../../src/diagnose-functions.js';
import { describeFunctions } from '../../src/functions.js';
import type { Link } from '../../src/interfaces.js';
import type { Mesh, MeshService } from '../../src/mesh.js';
import type { PortRole } from '../../src/role.js';

const nodes = { edge: { address: '10.0.0.1' }, fw: { address: '10.0.0.2' }, gw: { address: '10.0.0.4' } };
const stack: MeshService = { nodes: ['fw'], function: 'stack' };
const bump: MeshService = { nodes: ['fw'], function: 'inline', device: 'fn0', returnDevice: 'fn1' };
const router: MeshService = { nodes: ['fw'], function: 'inline', device: 'way0', via: '10.3.0.9' };
const tap: MeshService = { nodes: ['fw'], function: 'tap', device: 'tap0' };
const proxy: MeshService = { nodes: ['fw'], function: 'terminate' };

/** A mesh where fw has one service, and a chain that ends at it or goes on. */
const makeMesh = (service: MeshService, hops = ['service', 'gw']): Mesh => ({
  version: 1,
  nodes,
  services: { service },
  chains: { web: { hops } },
  rules: [],
});

type Ports = Record<string, PortRole>;
const allPorts: Ports = { mesh0: 'mesh', fn0: 'function', fn1: 'function', way0: 'function', tap0: 'tap' };
const list = (ports: Ports) => Object.entries(ports).map(([name, role]) => ({ name, role }));
const without = (name: string): Ports => {
  const { [name]: _, ...others } = allPorts;
  return others;
};

interface Row {
  title: string;
  service: MeshService;
  configured?: Ports;
  present?: Ports;
  error?: RegExp;
  advice?: RegExp;
}

const rows: Row[] = [
  { title: 'the stack needs no device', service: stack, configured: { mesh0: 'mesh' } },
  { title: 'a bump in the wire has both', service: bump },
  { title: 'a router has its device', service: router },
  { title: 'a tap has its device', service: tap },
  {
    title: 'a device that agent.yaml does not list',
    service: bump,
    configured: without('fn0'),
    error: /^service "service" has the device "fn0", which is not in agent\.yaml: its packets are dropped$/,
    advice: /^write "fn0: function" under "interfaces" in agent\.yaml/,
  },
  {
    title: 'a returnDevice that agent.yaml does not list',
    service: bump,
    configured: without('fn1'),
    error: /has the returnDevice "fn1", which is not in agent\.yaml/,
    advice: /^write "fn1: function"/,
  },
  {
    title: 'a device with another role',
    service: router,
    configured: { ...allPorts, way0: 'mesh' },
    error: /has the device "way0", which is "mesh" in agent\.yaml/,
    advice: /^write "way0: function"/,
  },
  {
    title: 'a tap with the role of a function',
    service: tap,
    configured: { ...allPorts, tap0: 'function' },
    error: /which is "function" in agent\.yaml: it gets no copies$/,
    advice: /^write "tap0: tap"/,
  },
  {
    title: 'a device that is away',
    service: tap,
    present: without('tap0'),
    error: /has the device "tap0", which this host has not: it gets no copies$/,
    advice: /^make that interface, or correct "device" of the service$/,
  },
];

for (const { title, service, configured = allPorts, present = allPorts, error, advice } of rows) {
  test(`functions of a node: ${title}`, (t) => {
    const [view, ...others] = describeFunctions(
      makeMesh(service),
      'fw',
      list(configured),
      Object.keys(present),
    );
    t.deepEqual(others, []);
    t.like(view, { service: 'service', function: service.function });
    if (error) t.regex(view?.error ?? '', error);
    else t.is(view?.error, undefined);
    if (advice) t.regex(view?.advice ?? '', advice);
  });
}

test('functions of other nodes, and those that only forward or end the chain, need nothing here', (t) => {
  t.deepEqual(describeFunctions(makeMesh(bump), 'gw', [], []), []);
  t.deepEqual(describeFunctions(makeMesh({ nodes: ['fw'], function: 'transit' }), 'fw', [], []), []);
  t.deepEqual(describeFunctions(makeMesh(proxy), 'fw', [], []), []);
});

/** Of a kernel that lets everything of functions pass. */
const sound: Record<string, string> = Object.fromEntries([
  ...['all', ...Object.keys(allPorts)].flatMap((scope) => [
    [`net/ipv4/conf/${scope}/forwarding`, '1'],
    [`net/ipv4/conf/${scope}/rp_filter`, '0'],
    [`net/ipv4/conf/${scope}/send_redirects`, '0'],
  ]),
]);

function diagnose(service: MeshService, changed: Record<string, string>, hops?: string[]) {
  const sysctls: Record<string, string> = { ...sound };
  for (const [name, value] of Object.entries(changed)) sysctls[`net/ipv4/conf/${name}`] = value;
  const config = { node: 'fw', interfaces: list(allPorts) } as unknown as AgentConfig;
  const links = Object.keys(allPorts).map((name) => ({ name, kind: 'ether', master: null }) as Link);
  return diagnoseFunctions(makeMesh(service, hops), config, links, (path) => sysctls[path] ?? null)
    .filter(({ status }) => status !== 'ok')
    .map(({ check, status }) => `${status} ${check}`);
}

const last = ['edge', 'service'];
const settings: [
  title: string,
  service: MeshService,
  changed: Record<string, string>,
  hops: string[] | undefined,
  found: string[],
][] = [
  ['a stack hop that may forward', stack, {}, undefined, []],
  [
    'a stack hop whose mesh port may not forward',
    stack,
    { 'mesh0/forwarding': '0' },
    undefined,
    ['error forwarding on mesh0'],
  ],
  [
    'a transit hop',
    { nodes: ['fw'], function: 'transit' },
    { 'mesh0/forwarding': '0', 'mesh0/rp_filter': '1', 'mesh0/send_redirects': '1' },
    undefined,
    [],
  ],
  [
    'a last hop whose mesh port may not forward',
    tap,
    { 'mesh0/forwarding': '0' },
    last,
    ['error forwarding on mesh0'],
  ],
  ['a proxy needs no forwarding', proxy, { 'mesh0/forwarding': '0' }, last, []],
  [
    'a stack hop with a strict filter',
    stack,
    { 'mesh0/rp_filter': '1' },
    undefined,
    ['warning rp_filter on mesh0'],
  ],
  [
    'a stack hop with a strict filter for all',
    stack,
    { 'all/rp_filter': '1' },
    undefined,
    ['warning rp_filter on mesh0'],
  ],
  [
    'a stack hop with a loose filter over a strict one',
    stack,
    { 'all/rp_filter': '1', 'mesh0/rp_filter': '2' },
    undefined,
    [],
  ],
  [
    'a bump with a strict filter where it comes back',
    bump,
    { 'fn1/rp_filter': '1' },
    undefined,
    ['warning rp_filter on fn1'],
  ],
  ['a bump with a strict filter where it goes out', bump, { 'fn0/rp_filter': '1' }, undefined, []],
  [
    'a router with a strict filter',
    router,
    { 'way0/rp_filter': '1' },
    undefined,
    ['warning rp_filter on way0'],
  ],
  [
    'a bump at the last hop with a strict filter',
    bump,
    { 'fn1/rp_filter': '1' },
    last,
    ['error rp_filter on fn1'],
  ],
  [
    'a bump at the last hop that may not forward',
    bump,
    { 'fn1/forwarding': '0' },
    last,
    ['error forwarding on fn1'],
  ],
  [
    'a stack hop that sends redirects',
    stack,
    { 'mesh0/send_redirects': '1' },
    undefined,
    ['warning send_redirects'],
  ],
  [
    'a stack hop where all send redirects',
    stack,
    { 'all/send_redirects': '1' },
    undefined,
    ['warning send_redirects'],
  ],
];

for (const [title, service, changed, hops, found] of settings) {
  test(`settings of a host with functions: ${title}`, (t) =>
    t.deepEqual(diagnose(service, changed, hops), found));
}
