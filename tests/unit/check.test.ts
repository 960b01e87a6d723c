import test from 'ava';
import fc from 'fast-check';
import { maskAddress, overlapPrefixes, type Prefix } from '../../src/address.js';
import { checkMeaning } from '../../src/check.js';
import { findDifferences, type Packet } from '../../src/match.js';
import type { Mesh, MeshRule } from '../../src/mesh.js';
import { findOverlaps } from '../../src/overlap.js';

const nodes = { a: { address: '10.0.0.1' }, b: { address: '10.0.0.2' }, c: { address: '10.0.0.3' } };

const makeMesh = (rules: MeshRule[], chains: Mesh['chains'] = { web: { hops: ['c'] } }): Mesh => ({
  version: 1,
  nodes,
  chains,
  rules,
});

// Few values, so that rules meet often.
const smallAddress = fc.integer({ min: 0, max: 3 }).map((bits) => 0x0a000000 + bits);
const prefixText = fc
  .tuple(smallAddress, fc.integer({ min: 29, max: 32 }))
  .map(([address, length]) => ({ address: maskAddress(address, length), length }))
  .map(({ address, length }) => `10.0.0.${address & 0xff}/${length}`);
const smallPort = fc.integer({ min: 0, max: 4 });
const portRange = fc.tuple(smallPort, smallPort).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`);
const ports = fc.array(fc.oneof(smallPort, portRange), { minLength: 1, maxLength: 2 });
const optional = <T, K extends string>(key: K, value: fc.Arbitrary<T>): fc.Arbitrary<{ [P in K]?: T }> =>
  fc.oneof(
    fc.constant({}),
    value.map((one) => ({ [key]: one }) as { [P in K]?: T }),
  );
const matches = fc
  .tuple(
    optional('source', prefixText),
    optional('destination', prefixText),
    optional('protocol', fc.constantFrom('tcp' as const, 17, 'icmp' as const)),
    optional('sourcePorts', ports),
    optional('destinationPorts', ports),
    optional('dscp', fc.integer({ min: 0, max: 1 })),
    optional('mark', fc.integer({ min: 0, max: 1 })),
    fc.oneof(
      { weight: 3, arbitrary: fc.constant({}) },
      optional('cgroup', fc.constantFrom('a', 'a/b', 'ab')),
    ),
  )
  .map((parts): MeshRule['match'] => Object.assign({}, ...parts));
const origin = fc.constantFrom('edge' as const, 'local' as const, 'mesh' as const);
const makeRule = (name: string): fc.Arbitrary<MeshRule> =>
  fc
    .record({
      at: fc.subarray(['a', 'b'], { minLength: 1 }),
      from: fc.subarray(['edge', 'local'] as const, { minLength: 1 }),
      match: matches,
    })
    .map((rule) => ({
      ...rule,
      from: rule.match.cgroup === undefined ? [...rule.from] : ['local'],
      name,
      chain: 'web',
    }));
const packets: fc.Arbitrary<Packet> = fc.record({
  source: smallAddress,
  destination: smallAddress,
  protocol: fc.constantFrom(1, 6, 17, 47),
  sourcePort: smallPort,
  destinationPort: smallPort,
  dscp: fc.integer({ min: 0, max: 1 }),
  mark: fc.integer({ min: 0, max: 1 }),
  cgroup: fc.constantFrom('a', 'a/b', 'ab'),
  origin,
  at: fc.constantFrom('a', 'b'),
});

test('rules of equal priority that are accepted never match the same packet', (t) => {
  let accepted = 0;
  let met = 0;
  fc.assert(
    fc.property(
      makeRule('one'),
      makeRule('two'),
      fc.array(packets, { minLength: 60, maxLength: 60 }),
      (one, two, some) => {
        const findings = checkMeaning(makeMesh([one, two]));
        const both = some.some((packet) =>
          [one, two].every((rule) => findDifferences(rule, packet).length === 0),
        );
        if (findings.length === 0) accepted += 1;
        if (both) met += 1;
        return !both || findings.length > 0;
      },
    ),
    { numRuns: 2000 },
  );
  t.true(accepted > 20 && met > 20, `${accepted} accepted, ${met} met: the cases say too little`);
});

/** Whether there is a packet for both rules, by trying all values that the rules above can tell apart, field by field. */
function findPacket(one: MeshRule, two: MeshRule): boolean {
  const tried = new Set(['at', 'from']);
  const fits = (packet: Packet): boolean =>
    [one, two].every((rule) =>
      findDifferences(rule, packet).every(({ field }) => !tried.has(field.replace(/s$/, ''))),
    );
  let candidates: Packet[] = (['a', 'b'] as const).flatMap((at) =>
    (['edge', 'local'] as const).map((from) => ({ ...blank, at, origin: from })),
  );
  for (const [field, values] of Object.entries(choices)) {
    tried.add(field);
    candidates = candidates
      .flatMap((packet) => values.map((value) => ({ ...packet, [field]: value })))
      .filter(fits);
  }
  return candidates.length > 0;
}

const addresses = [0, 1, 2, 3].map((bits) => 0x0a000000 + bits);
const choices = {
  protocol: [1, 6, 17],
  destination: addresses,
  source: addresses,
  dscp: [0, 1],
  mark: [0, 1],
  cgroup: [null, 'a', 'a/b', 'ab'],
  destinationPort: [0, 1, 2, 3, 4],
  sourcePort: [0, 1, 2, 3, 4],
};
const blank: Packet = {
  source: 0,
  destination: 0,
  protocol: null,
  sourcePort: null,
  destinationPort: null,
  dscp: 0,
  mark: 0,
  cgroup: null,
  origin: 'edge',
  at: null,
};

test('rules of equal priority that are refused for overlapping do match one packet', (t) => {
  let refused = 0;
  fc.assert(
    fc.property(makeRule('one'), makeRule('two'), (one, two) => {
      const overlap = checkMeaning(makeMesh([one, two])).some(({ code }) => code === 'RULES_OVERLAP');
      if (overlap) refused += 1;
      return !overlap || findPacket(one, two);
    }),
    { numRuns: 3000 },
  );
  t.true(refused > 30, `only ${refused} refused: the cases say too little`);
});

test('findOverlaps names for each prefix exactly those before it that overlap', (t) => {
  const prefixes = fc
    .tuple(fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 0, max: 6 }))
    .map(([address, length]) => ({ address: maskAddress(address, length), length }));
  fc.assert(
    fc.property(fc.array(prefixes, { maxLength: 12 }), (list) => {
      const items = list.map((prefix, index) => ({ prefix, index }));
      const pair = (a: number, b: number): string => [a, b].sort((x, y) => x - y).join(' ');
      const found = [...pairsOf(items)].map(([a, b]) => pair(a, b));
      const expected = items.flatMap((a) =>
        items
          .filter((b) => a.index < b.index && overlapPrefixes(a.prefix, b.prefix))
          .map((b) => pair(a.index, b.index)),
      );
      t.deepEqual(found.sort(), expected.sort());
    }),
  );
});

function* pairsOf(items: { prefix: Prefix; index: number }[]): Generator<[number, number]> {
  for (const { item, others } of findOverlaps(items))
    for (const other of others) yield [item.index, other.index];
}

test('two chains on one path are refused exactly when a destination is common', (t) => {
  const chains = { web: { hops: ['c'] }, api: { hops: ['c'], mode: 'loose' as const, record: 0 } };
  const rows: [string | undefined, string | undefined, boolean][] = [
    ['10.9.0.0/24', '10.9.1.0/24', false],
    ['10.9.0.0/24', '10.9.0.0/24', true],
    ['10.9.0.0/16', '10.9.3.0/24', true],
    ['10.9.3.0/24', '10.9.0.0/16', true],
    ['10.9.3.0/24', undefined, true],
  ];
  for (const [web, api, refused] of rows) {
    const rule = (name: string, destination: string | undefined, priority: number): MeshRule => ({
      name,
      at: ['a'],
      priority,
      match: destination === undefined ? {} : { destination },
      chain: name,
    });
    const findings = checkMeaning(makeMesh([rule('web', web, 1), rule('api', api, 2)], chains));
    const expected = refused ? [['/chains/api', 'CHAINS_INDISTINGUISHABLE']] : [];
    t.deepEqual(
      findings.map(({ pointer, code }) => [pointer, code]),
      expected,
      `${web} and ${api}`,
    );
  }
  t.deepEqual(checkMeaning(makeMesh([], chains)), [], 'chains that no rule leads to');
});

const telling: [string, Mesh['chains']][] = [
  ['record', { web: { hops: ['c'] }, api: { hops: ['c'], record: 1 } }],
  ['mode', { web: { hops: ['c'] }, api: { hops: ['c'], mode: 'strict' } }],
  ['hops', { web: { hops: ['b', 'c'] }, api: { hops: ['c', 'b'] } }],
];
for (const [what, chains] of telling) {
  test(`chains to one destination may differ in ${what} alone`, (t) => {
    const rules = Object.keys(chains).map((chain, priority) => ({
      name: chain,
      at: ['a'],
      priority,
      match: {},
      chain,
    }));
    t.deepEqual(checkMeaning(makeMesh(rules, chains)), []);
  });
}
