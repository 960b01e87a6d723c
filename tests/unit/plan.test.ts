import { readFileSync } from 'node:fs';
import test from 'ava';
import { parseAddress } from '../../src/address.js';
import { readMesh } from '../../src/document.js';
import { matchRule, type Packet, parsePorts } from '../../src/match.js';
import type { Mesh, MeshRule } from '../../src/mesh.js';
import { formatPlan, type PlanRequest, planPacket } from '../../src/plan.js';

const lab = readMesh(readFileSync(new URL('../fixtures/mesh/lab.yaml', import.meta.url), 'utf8'), 'lab.yaml')
  .mesh as Mesh;

const address = (text: string): number => parseAddress(text) ?? Number.NaN;

const packet: Packet = {
  source: address('10.1.0.10'),
  destination: address('10.9.0.10'),
  protocol: 6,
  sourcePort: 40000,
  destinationPort: 80,
  dscp: 0,
  mark: 0,
  cgroup: null,
  origin: 'edge',
  at: 'edge',
};

const makeRule = (match: MeshRule['match'], more: Partial<MeshRule> = {}): MeshRule => ({
  name: 'rule',
  at: ['edge'],
  chain: 'web',
  match,
  ...more,
});
const withRules = (...rules: MeshRule[]): Mesh => ({ ...lab, rules });

const matching: [string, MeshRule, Partial<Packet>, boolean][] = [
  ['asks nothing', makeRule({}), {}, true],
  ['is at another node', makeRule({}, { at: ['fw', 'gw'] }), {}, false],
  ['is at several nodes', makeRule({}, { at: ['fw', 'edge'] }), {}, true],
  ['is at any node, which is unknown', makeRule({}, { at: ['fw'] }), { at: null }, true],
  ['is for edge and local by default', makeRule({}), { origin: 'local' }, true],
  ['is not for mesh by default', makeRule({}), { origin: 'mesh' }, false],
  ['is for mesh alone', makeRule({}, { from: ['mesh'] }), {}, false],
  ['has the source in its prefix', makeRule({ source: '10.1.0.0/16' }), {}, true],
  ['has the source beside its prefix', makeRule({ source: '10.1.1.0/24' }), {}, false],
  ['has the destination as an address', makeRule({ destination: '10.9.0.10' }), {}, true],
  ['has the destination beside its prefix', makeRule({ destination: '10.9.0.0/29' }), {}, false],
  ['has the protocol by name', makeRule({ protocol: 'tcp' }), {}, true],
  ['has the protocol by number', makeRule({ protocol: 6 }), {}, true],
  ['has another protocol', makeRule({ protocol: 'udp' }), {}, false],
  ['asks for a protocol that is unknown', makeRule({ protocol: 'tcp' }), { protocol: null }, false],
  ['has protocol 0', makeRule({ protocol: 0 }), {}, false],
  ['has protocol 0 and so the packet', makeRule({ protocol: 0 }), { protocol: 0 }, true],
  ['has the port', makeRule({ protocol: 'tcp', destinationPorts: [443, 80] }), {}, true],
  ['has the port first in a range', makeRule({ protocol: 'tcp', destinationPorts: ['80-90'] }), {}, true],
  ['has the port last in a range', makeRule({ protocol: 'tcp', destinationPorts: ['70-80'] }), {}, true],
  ['has the port before a range', makeRule({ protocol: 'tcp', destinationPorts: ['81-90'] }), {}, false],
  ['has the source port', makeRule({ protocol: 'tcp', sourcePorts: [40000] }), {}, true],
  ['has another source port', makeRule({ protocol: 'tcp', sourcePorts: [80] }), {}, false],
  [
    'asks for a port that is unknown',
    makeRule({ protocol: 'tcp', destinationPorts: [80] }),
    { destinationPort: null },
    false,
  ],
  ['has port 0', makeRule({ protocol: 'tcp', destinationPorts: [0] }), { destinationPort: 0 }, true],
  ['asks icmp for ports', makeRule({ destinationPorts: ['0-65535'] }), { protocol: 1 }, false],
  ['has the dscp', makeRule({ dscp: 0 }), {}, true],
  ['has another dscp', makeRule({ dscp: 46 }), {}, false],
  ['has the mark', makeRule({ mark: 0xffffffff }), { mark: 0xffffffff }, true],
  ['has another mark', makeRule({ mark: 1 }), {}, false],
  ['is sent within the cgroup', makeRule({ cgroup: 'a' }), { origin: 'local', cgroup: 'a/b' }, true],
  ['is sent from a cgroup outside', makeRule({ cgroup: 'a/b' }), { origin: 'local', cgroup: 'a' }, false],
  ['is sent from a cgroup called alike', makeRule({ cgroup: 'a' }), { origin: 'local', cgroup: 'ab' }, false],
  ['is asked about a multicast packet', makeRule({}), { destination: address('224.0.0.5') }, false],
];
for (const [what, rule, changes, expected] of matching) {
  test(`a rule that ${what} ${expected ? 'matches' : 'does not match'}`, (t) => {
    t.is(matchRule(withRules(rule), { ...packet, ...changes }), expected ? rule : null);
  });
}

test('the lowest priority number wins, and 100 is the default', (t) => {
  const low = makeRule({}, { name: 'low', priority: 101 });
  const usual = makeRule({}, { name: 'usual' });
  const high = makeRule({}, { name: 'high', priority: 99 });
  const missing = makeRule({ dscp: 9 }, { name: 'missing', priority: 0 });
  t.is(matchRule(withRules(low, usual, high, missing), packet), high);
  t.is(matchRule(withRules(usual, low), packet), usual);
  t.is(matchRule(withRules(low, usual), packet), usual);
  t.is(matchRule(withRules(), packet), null);
  const elsewhere = makeRule({}, { name: 'elsewhere', at: ['gw'] });
  t.is(
    matchRule(withRules(elsewhere, usual), { ...packet, at: null }),
    elsewhere,
    'the first of equals at two nodes',
  );
});

test('port ranges are sorted and merged', (t) => {
  t.deepEqual(parsePorts([443, '80-90', 85, '91-100', 0, 65535]), [
    { first: 0, last: 0 },
    { first: 80, last: 100 },
    { first: 443, last: 443 },
    { first: 65535, last: 65535 },
  ]);
});

test('the plan of the lab’s HTTP request tells rule, way, sizes and every leg', (t) => {
  const request = { from: '10.1.0.10', to: '10.9.0.10', protocol: 'tcp', destinationPort: 80 };
  t.deepEqual(planPacket(lab, request), {
    packet: {
      from: '10.1.0.10',
      to: '10.9.0.10',
      protocol: 'tcp',
      sourcePort: null,
      destinationPort: 80,
      dscp: 0,
      mark: 0,
      cgroup: null,
      origin: 'edge',
    },
    at: 'edge',
    rule: 'web-tcp',
    chain: 'web',
    mode: 'loose',
    reason: null,
    nearest: null,
    overhead: 28,
    headerBytes: 48,
    mtu: 1500,
    mss: 1432,
    record: 2,
    number: null,
    paths: 1,
    slot: null,
    legs: [
      {
        from: 'edge',
        to: 'fw',
        destination: '10.0.0.2',
        pointer: 4,
        options: '830f040a0000030a0000040a09000a070b0400000000000000000000',
        route: ['10.0.0.3', '10.0.0.4', '10.9.0.10'],
        recordRoute: [],
      },
      {
        from: 'fw',
        to: 'ids',
        destination: '10.0.0.3',
        pointer: 8,
        options: '830f080a0000020a0000040a09000a070b080a000002000000000000',
        route: ['10.0.0.2', '10.0.0.4', '10.9.0.10'],
        recordRoute: ['10.0.0.2'],
      },
      {
        from: 'ids',
        to: 'gw',
        destination: '10.0.0.4',
        pointer: 12,
        options: '830f0c0a0000020a0000030a09000a070b0c0a0000020a0000030000',
        route: ['10.0.0.2', '10.0.0.3', '10.9.0.10'],
        recordRoute: ['10.0.0.2', '10.0.0.3'],
      },
    ],
  });
});

test('a plan reads well', (t) => {
  const request = { from: '10.1.0.10', to: '10.9.0.10', protocol: 'tcp', destinationPort: 80 };
  t.deepEqual(formatPlan(planPacket(lab, request)).split('\n'), [
    'tcp 10.1.0.10 → 10.9.0.10:80 matches rule web-tcp: chain web (loose), written at edge',
    'IPv4 header 48 bytes: 20 + 28 of options; TCP MSS 1432 at MTU 1500 (1460 without a chain)',
    '',
    '1  edge → fw   destination 10.0.0.2',
    '   source route  pointer 4, [10.0.0.3] 10.0.0.4 10.9.0.10',
    '   record route  0 of 2 slots used: nothing',
    '   options       830f040a 0000030a 0000040a 09000a07 0b040000 00000000 00000000',
    '',
    '2  fw → ids   destination 10.0.0.3',
    '   source route  pointer 8, 10.0.0.2 [10.0.0.4] 10.9.0.10',
    '   record route  1 of 2 slots used: 10.0.0.2',
    '   options       830f080a 0000020a 0000040a 09000a07 0b080a00 00020000 00000000',
    '',
    '3  ids → gw   destination 10.0.0.4',
    '   source route  pointer 12, 10.0.0.2 10.0.0.3 [10.9.0.10]',
    '   record route  2 of 2 slots used: 10.0.0.2 10.0.0.3',
    '   options       830f0c0a 0000020a 0000030a 09000a07 0b0c0a00 00020a00 00030000',
    '',
    'gw strips the options and sends it to 10.9.0.10 as it was',
  ]);
});

const unchained: [string, Mesh, PlanRequest, string[]][] = [
  [
    'differs in one field',
    lab,
    { from: '10.1.0.10', to: '10.8.0.10', protocol: 'udp' },
    [
      'udp 10.1.0.10 → 10.8.0.10 passes unchained: none of 3 rules matches',
      'nearest is rule web-udp:',
      '  destination is 10.8.0.10, it wants 10.9.0.0/24',
    ],
  ],
  [
    'enters elsewhere, with a protocol that no rule has',
    lab,
    { from: '10.1.0.10', to: '10.9.0.10', protocol: 47, at: 'gw' },
    [
      'gre 10.1.0.10 → 10.9.0.10 passes unchained: none of 3 rules matches',
      'nearest is rule web-tcp:',
      '  at is gw, it wants edge',
      '  protocol is gre, it wants tcp',
    ],
  ],
  [
    'was described without protocol',
    lab,
    { from: '10.1.0.10', to: '10.9.0.10' },
    [
      'packet 10.1.0.10 → 10.9.0.10 passes unchained: none of 3 rules matches',
      'nearest is rule web-tcp:',
      '  protocol is not given, it wants tcp',
    ],
  ],
  [
    'was described without port',
    withRules(makeRule({ protocol: 'tcp', destinationPorts: [80, '8000-8999'] })),
    { from: '10.1.0.10', to: '10.9.0.10', protocol: 'tcp' },
    [
      'tcp 10.1.0.10 → 10.9.0.10 passes unchained: the only rule does not match',
      'nearest is rule rule:',
      '  destinationPorts is not given, it wants 80, 8000-8999',
    ],
  ],
  [
    'meets no rules at all',
    withRules(),
    { from: '10.1.0.10', to: '10.9.0.10' },
    ['packet 10.1.0.10 → 10.9.0.10 passes unchained: the mesh has no rules'],
  ],
  [
    'goes to many hosts',
    lab,
    { from: '10.1.0.10', to: '224.0.0.5' },
    [
      'packet 10.1.0.10 → 224.0.0.5 passes unchained: 224.0.0.5 is no address of one host, and chains lead to one',
    ],
  ],
];
for (const [what, mesh, request, lines] of unchained) {
  test(`a packet that ${what} passes unchained, and the plan says why`, (t) => {
    const plan = planPacket(mesh, request);
    t.like(plan, { rule: null, chain: null, mode: null, overhead: 0, headerBytes: 20, legs: [] });
    t.deepEqual(formatPlan(plan).split('\n'), lines);
  });
}

test('a packet from a node’s own address is local there', (t) => {
  const mesh = { ...lab, nodes: { ...lab.nodes, edge: { address: '10.0.0.1', addresses: ['10.1.0.1'] } } };
  const request = { to: '10.9.0.10', protocol: 'tcp' };
  t.like(planPacket(mesh, { ...request, from: '10.1.0.1' }), {
    at: 'edge',
    packet: { origin: 'local' },
    rule: 'web-tcp',
  });
  t.like(planPacket(mesh, { ...request, from: '10.1.0.1', at: 'gw' }), {
    at: 'gw',
    packet: { origin: 'edge' },
    rule: null,
  });
  t.like(planPacket(mesh, { ...request, from: '10.1.0.2', at: 'edge', origin: 'mesh' }), { rule: null });
});

test('only TCP has an MSS', (t) => {
  const request = { from: '10.1.0.10', to: '10.9.0.10' };
  t.is(planPacket(lab, { ...request, protocol: 'udp' }).mss, null);
  t.is(planPacket(lab, { ...request, protocol: 6 }).mss, 1432);
  t.is(planPacket(lab, { from: '10.1.0.10', to: '10.8.0.10', protocol: 'tcp' }).mss, 1460);
});

test('a narrow leg that the document knows lowers MTU and MSS', (t) => {
  const mesh = { ...lab, nodes: { ...lab.nodes, ids: { address: '10.0.0.3', mtu: 1400 } } };
  const plan = planPacket(mesh, { from: '10.1.0.10', to: '10.9.0.10', protocol: 'tcp' });
  t.like(plan, { mtu: 1400, mss: 1400 - 40 - plan.overhead });
});

test('a fragment is matched without ports', (t) => {
  const rules = lab.rules.map((rule) => ({ ...rule, match: { ...rule.match, destinationPorts: [53] } }));
  const request = { from: '10.1.0.10', to: '10.9.0.10', protocol: 'tcp', destinationPort: 80 };
  t.is(planPacket({ ...lab, rules }, request).rule, null);
  t.is(planPacket({ ...lab, rules }, { ...request, fragment: true }).rule, 'web-tcp');
});

const impossible: [Partial<PlanRequest>, RegExp][] = [
  [{ from: 'client' }, /^from is "client"; write an IPv4 address like/],
  [{ to: '10.9.0.0/24' }, /^to is "10\.9\.0\.0\/24"; write an IPv4 address/],
  [{ protocol: 'tpc' }, /^protocol is "tpc"; write tcp, udp, .* or a number from 0 to 255$/],
  [{ protocol: 'constructor' }, /^protocol is "constructor"/],
  [{ protocol: 256 }, /^protocol is 256/],
  [{ destinationPort: 65536 }, /^destinationPort is 65536; write a whole number from 0 to 65535$/],
  [{ sourcePort: 1.5 }, /^sourcePort is 1\.5/],
  [{ dscp: 64 }, /^dscp is 64; .* 63$/],
  [{ mark: -1 }, /^mark is -1/],
  [{ at: 'egde' }, /^at is "egde", which is no node; did you mean "edge"\?$/],
  [{ at: 'constructor' }, /^at is "constructor", which is no node; there are edge, fw, ids, gw$/],
];
for (const [changes, message] of impossible) {
  test(`no plan is made for ${JSON.stringify(changes)}`, (t) => {
    t.throws(() => planPacket(lab, { from: '10.1.0.10', to: '10.9.0.10', ...changes }), {
      code: 'USAGE',
      message,
    });
  });
}
