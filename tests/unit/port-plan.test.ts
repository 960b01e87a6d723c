import test from 'ava';
import type { PortConfig } from '../../src/agent-config.js';
import type { Link } from '../../src/interfaces.js';
import { fillPolicies } from '../../src/option-policy.js';
import { type PortInForce, type PortPlan, planPorts } from '../../src/port-plan.js';

const policies = {
  options: fillPolicies('edge'),
  icmp: 'pmtu',
  previousHop: 'off',
  infrastructure: null,
  bypass: false,
} as const;
const configured: PortConfig[] = [
  { name: 'mesh0', role: 'mesh', ...policies },
  { name: 'edge0', role: 'edge', ...policies },
];
const makeLink = (name: string, index: number, more: Partial<Link> = {}): Link => ({
  index,
  name,
  mtu: 1500,
  kind: 'ether',
  mac: Buffer.alloc(6),
  master: null,
  addresses: [index],
  ...more,
});
const lo = makeLink('lo', 1, { kind: 'loopback' });
const mesh = makeLink('mesh0', 2);
const edge = makeLink('edge0', 3);
const inForce = (...links: Link[]): PortInForce[] =>
  links.flatMap((link) =>
    configured
      .filter(({ name }) => name === link.name)
      .map((port): PortInForce => ({ ...port, link, attached: 'tcx' })),
  );
const both = inForce(mesh, edge);

const cases: [
  title: string,
  before: PortInForce[],
  links: Link[],
  expected: { ports: Link[] } & Pick<PortPlan, 'changes'> & { faults?: PortPlan['faults'] },
][] = [
  ['what is in force asks for nothing', both, [lo, mesh, edge], { ports: [mesh, edge], changes: [] }],
  [
    'interfaces of others come and go unnoticed',
    both,
    [makeLink('eth7', 7), edge, mesh],
    { ports: [mesh, edge], changes: [] },
  ],
  [
    'at the start all of them appear',
    [],
    [lo, mesh, edge],
    {
      ports: [mesh, edge],
      changes: [
        { interface: 'mesh0', change: 'appeared', ifindex: 2 },
        { interface: 'edge0', change: 'appeared', ifindex: 3 },
      ],
    },
  ],
  [
    'one that is gone is a fault and leaves the other alone',
    both,
    [lo, edge],
    {
      ports: [edge],
      changes: [{ interface: 'mesh0', change: 'vanished', ifindex: 2 }],
      faults: [{ name: 'mesh0', error: 'interface mesh0 does not exist' }],
    },
  ],
  [
    'one that stays away is still a fault and no change',
    inForce(edge),
    [lo, edge],
    {
      ports: [edge],
      changes: [],
      faults: [{ name: 'mesh0', error: 'interface mesh0 does not exist' }],
    },
  ],
  [
    'one that comes back appears',
    inForce(edge),
    [edge, makeLink('mesh0', 9)],
    {
      ports: [makeLink('mesh0', 9), edge],
      changes: [{ interface: 'mesh0', change: 'appeared', ifindex: 9 }],
    },
  ],
  [
    'one that was made anew is replaced',
    both,
    [makeLink('mesh0', 9), edge],
    {
      ports: [makeLink('mesh0', 9), edge],
      changes: [{ interface: 'mesh0', change: 'replaced', ifindex: 9, before: 2 }],
    },
  ],
  [
    'two that swapped names are both replaced',
    both,
    [makeLink('edge0', 2), makeLink('mesh0', 3)],
    {
      ports: [makeLink('mesh0', 3), makeLink('edge0', 2)],
      changes: [
        { interface: 'mesh0', change: 'replaced', ifindex: 3, before: 2 },
        { interface: 'edge0', change: 'replaced', ifindex: 2, before: 3 },
      ],
    },
  ],
  [
    'another MTU is a change',
    both,
    [{ ...mesh, mtu: 1400 }, edge],
    {
      ports: [{ ...mesh, mtu: 1400 }, edge],
      changes: [{ interface: 'mesh0', change: 'changed', ifindex: 2, mtu: 1400 }],
    },
  ],
  [
    'a second address is a change',
    both,
    [mesh, { ...edge, addresses: [3, 4] }],
    {
      ports: [mesh, { ...edge, addresses: [3, 4] }],
      changes: [{ interface: 'edge0', change: 'changed', ifindex: 3, mtu: 1500 }],
    },
  ],
  [
    'a port without its programs is detached',
    [...inForce(mesh), ...inForce(edge).map((port) => ({ ...port, attached: null }))],
    [mesh, edge],
    { ports: [mesh, edge], changes: [{ interface: 'edge0', change: 'detached', ifindex: 3 }] },
  ],
  [
    'one that comes back as another type is gone all the same',
    both,
    [makeLink('mesh0', 9, { kind: 'none' }), edge],
    {
      ports: [edge],
      changes: [{ interface: 'mesh0', change: 'vanished', ifindex: 2 }],
      faults: [
        {
          name: 'mesh0',
          error: 'interface mesh0 is of type none; only Ethernet interfaces can be managed',
          link: makeLink('mesh0', 9, { kind: 'none' }),
        },
      ],
    },
  ],
  [
    'one that is put into a bridge, bond or VRF is gone, and it says what to manage',
    both,
    [makeLink('mesh0', 2, { master: 'bond0' }), edge],
    {
      ports: [edge],
      changes: [{ interface: 'mesh0', change: 'vanished', ifindex: 2 }],
      faults: [
        {
          name: 'mesh0',
          error: 'interface mesh0 belongs to bond0; manage a bridge or bond itself, a VRF cannot be managed',
          link: makeLink('mesh0', 2, { master: 'bond0' }),
        },
      ],
    },
  ],
];
for (const [title, before, links, { ports, changes, faults = [] }] of cases) {
  test(title, (t) => {
    const plan = planPorts(configured, links, before);
    t.deepEqual(
      plan.ports.map(({ link }) => link),
      ports,
    );
    t.deepEqual(plan.changes, changes);
    t.deepEqual(plan.faults, faults);
  });
}

test('a port is what agent.yaml says of it, with its link', (t) => {
  const [, port] = planPorts(configured, [mesh, edge], []).ports;
  t.deepEqual(port, { name: 'edge0', role: 'edge', ...policies, link: edge });
});
