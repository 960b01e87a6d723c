/** The text that nftables gets, and that nftables takes it. */
import { execFileSync } from 'node:child_process';
import test from 'ava';
import fc from 'fast-check';
import type { PortConfig } from '../../src/agent-config.js';
import { type Guarded, renderBackstop, renderPrograms } from '../../src/backstop.js';
import { commandEnvironment } from '../../src/command-environment.js';
import { readMesh } from '../../src/document.js';
import { type Mesh, onMissing } from '../../src/mesh.js';
import { fillPolicies } from '../../src/option-policy.js';

const makePort = (name: string, role: 'edge' | 'mesh'): PortConfig => ({
  name,
  role,
  options: fillPolicies(role),
  icmp: 'pmtu',
  previousHop: 'interface',
  infrastructure: null,
  bypass: false,
});
const guarded: Guarded = {
  node: 'edge',
  ports: [makePort('mesh0', 'mesh'), makePort('edge0', 'edge'), makePort('edge0.7', 'edge')],
  mtu: 1500,
};
const chains: Mesh['chains'] = {
  safe: { hops: ['fw'], security: true },
  strict: { hops: ['fw', 'gw'], onMissing: 'drop' },
  plain: { hops: ['gw'] },
  asked: { hops: ['gw', 'fw'], security: true, onMissing: 'bypass' },
};
type Rules = Mesh['rules'];
const makeMesh = (rules: Rules): Mesh => ({
  version: 1,
  nodes: { edge: { address: '10.0.0.1' }, fw: { address: '10.0.0.2' }, gw: { address: '10.0.0.4' } },
  chains,
  rules,
});
const rule = (name: string, chain: string, more: Partial<Rules[number]> = {}): Rules[number] => ({
  name,
  at: ['edge'],
  match: {},
  chain,
  ...more,
});

/** What stands in one chain of the table. */
function rulesOf(chain: string, ...meshes: Mesh[]): string[] {
  const start = `add rule ip lsr-agent ${chain} `;
  return (renderBackstop(meshes, guarded)?.text ?? '')
    .split('\n')
    .filter((line) => line.startsWith(start))
    .map((line) => line.slice(start.length));
}

const defaults: [chain: Mesh['chains'][string], expected: 'drop' | 'bypass'][] = [
  [{ hops: ['fw'] }, 'bypass'],
  [{ hops: ['fw'], security: false }, 'bypass'],
  [{ hops: ['fw'], security: true }, 'drop'],
  [{ hops: ['fw'], onMissing: 'drop' }, 'drop'],
  [{ hops: ['fw'], security: true, onMissing: 'bypass' }, 'bypass'],
];
for (const [chain, expected] of defaults) {
  test(`onMissing of ${JSON.stringify(chain)} is ${expected}`, (t) => t.is(onMissing(chain), expected));
}

test('both words are read from a document without a complaint', (t) => {
  const text = JSON.stringify(makeMesh([rule('one', 'asked')]));
  t.deepEqual(readMesh(text, 'mesh.json').problems, []);
});

test('where no chain of this node asks for it there is no backstop', (t) => {
  t.is(
    renderBackstop([makeMesh([rule('one', 'plain'), rule('two', 'asked', { priority: 2 })])], guarded),
    null,
  );
  t.is(renderBackstop([makeMesh([rule('one', 'safe', { at: ['gw'] })])], guarded), null);
});

test('the whole table for one rule', (t) => {
  const mesh = makeMesh([rule('all', 'safe', { match: { destination: '10.9.0.0/24' } })]);
  const backstop = renderBackstop([mesh], guarded);
  t.deepEqual(backstop?.chains, ['safe']);
  const table = `add table ip lsr-agent
add set ip lsr-agent programs { type iface_index; comment "ports whose programs and tables are in force"; }
add counter ip lsr-agent chain-safe
add chain ip lsr-agent from-edge
add chain ip lsr-agent from-local
add chain ip lsr-agent from-mesh
add chain ip lsr-agent from-function
add chain ip lsr-agent arriving { type filter hook prerouting priority -450; policy accept; }
add chain ip lsr-agent leaving { type filter hook postrouting priority 1000; policy accept; }
flush table ip lsr-agent
add rule ip lsr-agent from-edge ip daddr 10.9.0.0/24 counter name chain-safe drop comment "all"
add rule ip lsr-agent from-local ip daddr 10.9.0.0/24 counter name chain-safe drop comment "all"
add rule ip lsr-agent arriving iif @programs return
add rule ip lsr-agent arriving ip daddr { 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3 } return
add rule ip lsr-agent arriving fib daddr type local return
add rule ip lsr-agent arriving iifname { "edge0", "edge0.7" } goto from-edge
add rule ip lsr-agent arriving iifname { "mesh0" } goto from-mesh
add rule ip lsr-agent leaving iif @programs oif @programs return
add rule ip lsr-agent leaving iif 0 oif @programs return
add rule ip lsr-agent leaving oif lo return
add rule ip lsr-agent leaving ip daddr { 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3 } return
add rule ip lsr-agent leaving fib daddr type local return
add rule ip lsr-agent leaving iifname { "edge0", "edge0.7" } goto from-edge
add rule ip lsr-agent leaving iifname { "mesh0" } goto from-mesh
add rule ip lsr-agent leaving oif @programs return
add rule ip lsr-agent leaving iif 0 goto from-local
add rule ip lsr-agent leaving fib saddr type local goto from-local
`;
  t.is(backstop?.text, table);
});

const matches: [title: string, match: Rules[number]['match'], expected: string[]][] = [
  ['everything', {}, ['']],
  ['prefixes', { source: '10.1.0.10', destination: '0.0.0.0/0' }, ['ip saddr 10.1.0.10/32 ']],
  [
    'protocol, DSCP and mark',
    { protocol: 'icmp', dscp: 46, mark: 0xffffffff },
    ['ip protocol 1 ip dscp 46 meta mark 4294967295 '],
  ],
  ['a protocol without ports by its number', { protocol: 47 }, ['ip protocol 47 ']],
  [
    'TCP ports, and the fragments',
    { protocol: 'tcp', destinationPorts: [443, 80, '8000-8999', '8999-9001'] },
    [
      'ip protocol 6 th dport 80 ',
      'ip protocol 6 th dport 443 ',
      'ip protocol 6 th dport 8000-9001 ',
      'ip protocol 6 ip frag-off & 0x3fff != 0 ',
    ],
  ],
  [
    'UDP ports, the fragments, and what will be cut',
    { protocol: 'udp', sourcePorts: ['0-1023'], destinationPorts: [53] },
    [
      'ip protocol 17 th sport 0-1023 th dport 53 ',
      'ip protocol 17 ip frag-off & 0x3fff != 0 ',
      'ip protocol 17 ip length > 1500 ',
    ],
  ],
];
for (const [title, match, expected] of matches) {
  test(`a match is translated: ${title}`, (t) => {
    t.deepEqual(
      rulesOf('from-edge', makeMesh([rule('one', 'safe', { match })])),
      expected.map((fields) => `${fields}counter name chain-safe drop comment "one"`),
    );
  });
}

test('rules come in the order of their priority, up to the last that drops, each where its packets come from', (t) => {
  const icmp = { match: { protocol: 'icmp' as const } };
  const mesh = makeMesh([
    rule('last', 'plain', { priority: 300 }),
    rule('sockets', 'strict', { priority: 250, from: ['local'] }),
    rule('drops', 'safe', { priority: 200 }),
    rule('wins', 'plain', { ...icmp, priority: 100 }),
    rule('fabric', 'asked', { priority: 50, from: ['mesh'] }),
    rule('elsewhere', 'safe', { priority: 1, at: ['gw'] }),
  ]);
  const [won, dropped] = [
    'ip protocol 1 return comment "wins"',
    'counter name chain-safe drop comment "drops"',
  ];
  t.deepEqual(rulesOf('from-edge', mesh), [won, dropped]);
  t.deepEqual(rulesOf('from-local', mesh), [
    won,
    dropped,
    'counter name chain-strict drop comment "sockets"',
  ]);
  t.deepEqual(rulesOf('from-mesh', mesh), []);
});

test('a fragment that two rules of one priority match is dropped if one of them says so', (t) => {
  const ports = (port: number): Rules[number]['match'] => ({ protocol: 'tcp', destinationPorts: [port] });
  const mesh = makeMesh([
    rule('a', 'plain', { match: ports(80), from: ['edge'] }),
    rule('b', 'safe', { match: ports(22), from: ['edge'] }),
  ]);
  t.deepEqual(
    rulesOf('from-edge', mesh).map((line) => line.split('comment ')[1]),
    ['"b"', '"b"'],
  );
});

test('during a change the drops of both documents hold, whatever wins in each', (t) => {
  const before = makeMesh([
    rule('wins', 'plain', { priority: 1, match: { protocol: 'icmp' } }),
    rule('old', 'safe', { match: { destination: '10.9.0.0/24' } }),
  ]);
  const after = makeMesh([rule('new', 'strict', { match: { protocol: 'icmp' } })]);
  t.deepEqual(rulesOf('from-edge', before, after), [
    'ip daddr 10.9.0.0/24 counter name chain-safe drop comment "old"',
    'ip protocol 1 counter name chain-strict drop comment "new"',
  ]);
  t.deepEqual(renderBackstop([before, after], guarded)?.chains, ['safe', 'strict']);
});

test('ports are known by their names, and those of no role are not asked for', (t) => {
  const mesh = makeMesh([rule('one', 'safe')]);
  t.true(rulesOf('arriving', mesh).includes('iifname { "edge0", "edge0.7" } goto from-edge'));
  const only = renderBackstop([mesh], { ...guarded, ports: [makePort('w*', 'mesh')] })?.text ?? '';
  t.regex(only, /iifname \{ "w\\\*" \} goto from-mesh/);
  t.notRegex(only, /goto from-edge/);
  t.throws(() => renderBackstop([mesh], { ...guarded, ports: [makePort('a"b', 'mesh')] }), {
    code: 'BACKSTOP',
  });
});

test('the ports in force are replaced as a whole', (t) => {
  t.is(renderPrograms([]), 'flush set ip lsr-agent programs\n');
  t.is(
    renderPrograms([3, 12]),
    'flush set ip lsr-agent programs\nadd element ip lsr-agent programs { 3, 12 }\n',
  );
});

const isRoot = process.getuid?.() === 0;

/** In a network namespace of its own; a rule set that is refused says why. */
function feedNft(text: string): string {
  const script = 'nft -c -f - <"$1" && nft -f "$1" && nft -f "$1" && nft list ruleset';
  return execFileSync(
    'unshare',
    ['--net', 'sh', '-ec', `cat >"$1"; ${script}; rm "$1"`, 'sh', `/tmp/${process.pid}.nft`],
    {
      encoding: 'utf8',
      input: text,
      env: { ...process.env, ...commandEnvironment },
    },
  );
}

(isRoot ? test : test.skip)('nftables takes whatever a mesh may say, also over itself', (t) => {
  const port = fc.oneof(fc.integer({ min: 0, max: 65535 }), fc.constantFrom('0-1023', '1000-65535', '80-80'));
  const ports = fc.array(port, { minLength: 1, maxLength: 4 });
  const match = fc.oneof(
    fc.record({
      protocol: fc.constantFrom('tcp', 'udp', 'sctp', 136),
      sourcePorts: ports,
      destinationPorts: ports,
    }),
    fc.record(
      {
        source: fc.constantFrom('10.1.0.0/16', '10.1.0.10', '0.0.0.0/0'),
        destination: fc.constantFrom('10.9.0.0/24', '10.9.0.1/32'),
        protocol: fc.constantFrom('icmp', 'gre', 50, 255),
        dscp: fc.integer({ min: 0, max: 63 }),
        mark: fc.integer({ min: 0, max: 0xffffffff }),
      },
      { requiredKeys: [] },
    ),
  ) as fc.Arbitrary<Rules[number]['match']>;
  const rules = fc
    .array(fc.tuple(match, fc.constantFrom('safe', 'strict', 'plain'), fc.integer({ min: 0, max: 65535 })), {
      minLength: 1,
      maxLength: 20,
    })
    .map((list) =>
      list.map(([fields, chain, priority], n) => rule(`r${n}`, chain, { match: fields, priority })),
    );
  fc.assert(
    fc.property(rules, (list) => {
      const text = renderBackstop([makeMesh([...list, rule('end', 'safe')])], guarded)?.text ?? '';
      const drops = text.split('\n').filter((line) => line.includes(' drop ')).length;
      const listed = feedNft(text + renderPrograms([1, 4711]));
      return listed.split('\n').filter((line) => line.includes(' drop ')).length === drops;
    }),
    { numRuns: 20 },
  );
  t.pass();
});
