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
  t.deepEqual(config.interfaces, [
    { name: 'eth1', role: 'mesh', options: 'drop', icmp: 'pmtu' },
    { name: 'eth2', role: 'edge', options: 'drop', icmp: 'pmtu' },
  ]);
});

test('the ICMP policy holds for all ports, the options policy for one', (t) => {
  const interfaces = 'interfaces: { eth1: mesh, eth2: { role: edge, options: strip } }';
  const config = read('policies', ['node: fw', 'icmp: off', interfaces]);
  t.deepEqual(config.interfaces, [
    { name: 'eth1', role: 'mesh', options: 'drop', icmp: 'off' },
    { name: 'eth2', role: 'edge', options: 'strip', icmp: 'off' },
  ]);
});

const refused: [title: string, lines: string[], message: RegExp][] = [
  ['an ICMP policy that there is not', ['icmp: some', 'interfaces: { eth1: mesh }'], /2:7: .*off.*pmtu.*all/],
  ['an interface name that is too long', ['interfaces: { a-name-of-16-char: mesh }'], /2:15: /],
  ['no interface at all', ['interfaces: {}'], /2:13: /],
];

refused.forEach(([title, lines, message], index) => {
  test(`refused with its place: ${title}`, (t) => {
    t.throws(() => read(`refused-${index}`, ['node: fw', ...lines]), { message });
  });
});
