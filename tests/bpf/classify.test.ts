/** The kernel finds the rule that the pure matcher finds, for rules and packets made at random. */

import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { formatAddress, parseAddress } from '../../src/address.js';
import { findCgroupRoot } from '../../src/cgroups.js';
import { LsrError } from '../../src/errors.js';
import { matchRule } from '../../src/match.js';
import type { Mesh } from '../../src/mesh.js';
import { ethernet, ipv4, udp } from '../helpers/packet.js';
import { applyMesh, macOf, openTestbed, runPacket, type Testbed } from '../helpers/testbed.js';

let bed: Testbed;
let generation = 0;

test.before(async () => {
  for (const path of cgroups) mkdirSync(join(cgroupRoot, path));
  bed = await openTestbed();
});

test.after.always(() => {
  enterCgroup(null);
  for (const path of cgroups.toReversed()) rmdirSync(join(cgroupRoot, path));
  bed?.close();
});

/** Packets of test runs belong to the cgroup that the process is in. */
const cgroupRoot = findCgroupRoot() ?? '';
const before = /^0::\/(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '';
const outer = `lsr-test-${process.pid}`;
const cgroups = [outer, `${outer}/inner`, `${outer}/inner/most`, `${outer}-other`];
const enterCgroup = (path: string | null): void =>
  writeFileSync(join(cgroupRoot, path ?? before, 'cgroup.procs'), String(process.pid));

/** Where a packet of this origin came in, before the stack sent it out of mesh0. */
const places = { edge: 'edge0', local: undefined } as const;

const nodes = { fw: { address: '10.0.0.2' }, ids: { address: '10.0.0.3' }, gw: { address: '10.0.0.4' } };
const chains = { one: { hops: ['ids'] }, two: { hops: ['gw'] }, three: { hops: ['ids', 'gw'] } };
const firstHop = { one: '10.0.0.3', two: '10.0.0.4', three: '10.0.0.3' };
const headerLength = { one: 28, two: 28, three: 32 };

const prefix = fc
  .tuple(fc.integer({ min: 0, max: 15 }), fc.constantFrom(0, 8, 24, 28, 28, 32))
  .map(([low, length]) => {
    const address = (parseAddress('10.9.0.0') ?? 0) + low;
    const mask = length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0;
    return `${formatAddress((address & mask) >>> 0)}/${length}`;
  });
const port = fc.integer({ min: 0, max: 40 });
const ports = fc.oneof(
  port,
  fc.tuple(port, port).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
);
const match = fc.record(
  {
    destination: prefix,
    protocol: fc.constantFrom<'udp' | 17 | 'tcp'>('udp', 17, 'udp', 17, 'tcp'),
    sourcePorts: fc.array(ports, { minLength: 1, maxLength: 2 }),
    destinationPorts: fc.array(ports, { minLength: 1, maxLength: 2 }),
    dscp: fc.integer({ min: 0, max: 1 }),
    mark: fc.integer({ min: 0, max: 1 }),
    cgroup: fc.constantFrom(...cgroups),
  },
  { requiredKeys: [] },
);
const rules = fc.array(
  fc.record({
    match,
    chain: fc.constantFrom('one', 'two', 'three'),
    from: fc.constantFrom<('edge' | 'local')[]>(['edge'], ['local'], ['edge', 'local']),
  }),
  { minLength: 1, maxLength: 8 },
);
const packets = fc.array(
  fc.record({
    low: fc.integer({ min: 0, max: 16 }),
    sourcePort: port,
    destinationPort: port,
    dscp: fc.integer({ min: 0, max: 1 }),
    mark: fc.integer({ min: 0, max: 1 }),
    fragment: fc.boolean(),
    origin: fc.constantFrom<'edge' | 'local'>('edge', 'local'),
  }),
  { minLength: 20, maxLength: 20 },
);

test('200 tables of rules, 20 packets each', (t) => {
  const mac = macOf('edge0');
  let matched = 0;
  fc.assert(
    fc.property(rules, packets, fc.constantFrom(null, ...cgroups), (drawn, sent, cgroup) => {
      enterCgroup(cgroup);
      const mesh: Mesh = {
        version: 1,
        nodes,
        chains,
        rules: drawn.map((rule, index) => ({ ...rule, name: `r${index}`, at: ['fw'], priority: index })),
      };
      try {
        applyMesh(bed, mesh, 'fw', ++generation);
      } catch (error) {
        fc.pre(!(error instanceof LsrError && error.code === 'CAPACITY')); // more than 64 combinations: drawn anew
        throw error;
      }
      for (const { low, sourcePort, destinationPort, dscp, mark, fragment, origin } of sent) {
        const destination = (parseAddress('10.9.0.0') ?? 0) + low;
        const expected = matchRule(mesh, {
          at: 'fw',
          origin,
          source: parseAddress('10.1.0.10') ?? 0,
          destination,
          protocol: 17,
          sourcePort,
          destinationPort,
          fragment,
          dscp,
          mark,
          cgroup: origin === 'local' ? cgroup : null,
        });
        const packet = ipv4({
          source: '10.1.0.10',
          destination: formatAddress(destination),
          tos: dscp << 2,
          fragment: fragment ? 0x2000 : 0,
          payload: udp({ sourcePort, destinationPort }),
        });
        const from = places[origin];
        const { frame, counted } = runPacket(bed, 'mesh0', 'egress', ethernet(mac, packet), {
          mark,
          ...(from && { from }),
        });
        const outcome = counted.imposed
          ? `${formatAddress(frame.readUInt32BE(14 + 16))} ${((frame[14] ?? 0) & 15) * 4}`
          : Object.keys(counted).join();
        const chain = expected?.chain as keyof typeof firstHop | undefined;
        if (chain) matched++;
        t.is(
          outcome,
          chain ? `${firstHop[chain]} ${headerLength[chain]}` : 'received,passed',
          JSON.stringify({
            rules: mesh.rules,
            low,
            sourcePort,
            destinationPort,
            dscp,
            mark,
            cgroup,
            fragment,
          }),
        );
      }
    }),
    { numRuns: 200 },
  );
  t.log(`${matched} packets were matched`);
  t.true(matched > 150);
});
