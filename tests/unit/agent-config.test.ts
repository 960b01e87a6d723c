import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { type AgentConfig, readAgentConfig } from '../../src/agent-config.js';

let folder: string;

test.before(() => {
  folder = mkdtempSync(join(tmpdir(), 'lsr-config-'));
});

test.after.always(() => rmSync(folder, { recursive: true }));

function read(name: string, lines: readonly string[]): AgentConfig {
  const file = join(folder, `${name}.yaml`);
  writeFileSync(file, `${lines.join('\n')}\n`);
  return readAgentConfig(file);
}

test('what is not given has its default, and paths begin at the file', (t) => {
  const config = read('least', ['node: fw', 'mesh: mesh.yaml', 'interfaces: { eth1: mesh, eth2: edge }']);
  t.like(config, {
    node: 'fw',
    mesh: join(folder, 'mesh.yaml'),
    api: { socket: '/run/lsr-agent/api.sock', listen: null },
    store: '/var/lib/lsr-agent/audit.db',
  });
  const common = { icmp: 'pmtu', previousHop: 'interface', infrastructure: null, bypass: false } as const;
  t.deepEqual(config.interfaces, [
    { name: 'eth1', role: 'mesh', options: meshOptions, ...common },
    { name: 'eth2', role: 'edge', options: edgeOptions, ...common },
  ]);
});

const edgeOptions = {
  sourceRoute: 'drop',
  recordRoute: 'drop',
  timestamp: 'drop',
  routerAlert: 'drop',
  security: 'drop',
  streamId: 'drop',
  other: 'drop',
} as const;
const meshOptions = {
  ...edgeOptions,
  recordRoute: 'pass',
  routerAlert: 'pass',
  security: 'pass',
  other: 'pass',
};

test('the policies of the agent hold for all ports, those of a port for it alone', (t) => {
  const interfaces =
    'interfaces: { eth1: mesh, eth2: { role: edge, options: strip, infrastructure: [icmp, tcp/22], stack: bypass } }';
  const config = read('policies', ['node: fw', 'icmp: off', 'previousHop: neighbour', interfaces]);
  const common = { icmp: 'off', previousHop: 'neighbour' } as const;
  t.deepEqual(config.interfaces, [
    { name: 'eth1', role: 'mesh', options: meshOptions, infrastructure: null, bypass: false, ...common },
    {
      name: 'eth2',
      role: 'edge',
      options: {
        ...Object.fromEntries(Object.keys(edgeOptions).map((name) => [name, 'strip'])),
        security: 'drop',
      },
      infrastructure: [
        { protocol: 1, port: 0 },
        { protocol: 6, port: 22 },
      ],
      bypass: true,
      ...common,
    },
  ]);
});

const policies: [role: 'edge' | 'mesh', options: string, filled: Record<string, string>][] = [
  ['edge', '{ routerAlert: pass }', { ...edgeOptions, routerAlert: 'pass' }],
  ['edge', '{ default: strip, security: pass }', { ...allOf('strip'), security: 'pass' }],
  [
    'edge',
    '{ default: pass, timestamp: strip }',
    { ...allOf('pass'), sourceRoute: 'drop', timestamp: 'strip' },
  ],
  ['mesh', '{ recordRoute: drop }', { ...meshOptions, recordRoute: 'drop' }],
  ['mesh', 'drop', edgeOptions],
  ['mesh', '{ default: pass }', { ...allOf('pass'), sourceRoute: 'drop' }],
];

function allOf(policy: string): Record<string, string> {
  return Object.fromEntries(Object.keys(edgeOptions).map((name) => [name, policy]));
}

policies.forEach(([role, options, filled], index) => {
  test(`on a port of role ${role}: options: ${options}`, (t) => {
    const line = `interfaces: { eth1: { role: ${role}, options: ${options} } }`;
    const [port] = read(`filled-${index}`, ['node: fw', line]).interfaces;
    t.deepEqual(port?.options as Record<string, string>, filled);
  });
});

const refused: [title: string, lines: string[], message: RegExp][] = [
  ['an ICMP policy that there is not', ['icmp: some', 'interfaces: { eth1: mesh }'], /2:7: .*off.*pmtu.*all/],
  ['an interface name that is too long', ['interfaces: { a-name-of-16-char: mesh }'], /2:15: /],
  [
    'a label that is stripped',
    ['interfaces: { a: { role: edge, options: { security: strip } } }'],
    /2:\d+: .*label/,
  ],
  [
    'a source route that passes',
    ['interfaces: { a: { role: edge, options: { sourceRoute: pass } } }'],
    /2:\d+: .*drop or strip/,
  ],
  ['a mesh port that strips', ['interfaces: { a: { role: mesh, options: strip } }'], /2:\d+: .*pass or drop/],
  [
    'an option without a policy',
    ['interfaces: { a: { role: edge, options: { flow: drop } } }'],
    /2:\d+: .*flow/,
  ],
  [
    'a function port past the stack',
    ['interfaces: { a: { role: function, stack: bypass } }'],
    /2:\d+: .*function ports/,
  ],
  [
    'a mesh port that keeps infrastructure',
    ['interfaces: { a: { role: mesh, infrastructure: [icmp] } }'],
    /2:\d+: /,
  ],
  [
    'a port without a protocol',
    ['interfaces: { a: { role: edge, infrastructure: [icmp/22] } }'],
    /2:\d+: .*icmp\/22.*tcp\/22/,
  ],
  [
    'a check of hops that there is not',
    ['previousHop: mac', 'interfaces: { eth1: mesh }'],
    /2:14: .*off.*interface.*neighbour/,
  ],
  ['no interface at all', ['interfaces: {}'], /2:13: /],
];

refused.forEach(([title, lines, message], index) => {
  test(`refused with its place: ${title}`, (t) => {
    t.throws(() => read(`refused-${index}`, ['node: fw', ...lines]), { message });
  });
});
