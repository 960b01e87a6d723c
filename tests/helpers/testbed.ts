import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeEntries } from '../../src/apply.js';
import { type Availability, allAvailable } from '../../src/availability.js';
import { findCgroups, listCgroups } from '../../src/cgroups.js';
import { type Capacities, type Datapath, openDatapath } from '../../src/datapath.js';
import { readCounters } from '../../src/drops.js';
import { makeEntries } from '../../src/entries.js';
import { findPorts, listLinks, type Port } from '../../src/interfaces.js';
import { enums } from '../../src/layout.js';
import type { Mesh } from '../../src/mesh.js';
import type { BpfProgram } from '../../src/native.js';
import { fillPolicies, type OptionPolicyConfig } from '../../src/option-policy.js';
import { renderMesh } from '../../src/render.js';
import type { PortRole } from '../../src/role.js';

const mixed: OptionPolicyConfig = { default: 'strip', timestamp: 'drop', routerAlert: 'pass' };
/** icmp and tcp/22 */
const infrastructure = [
  { protocol: 1, port: 0 },
  { protocol: 6, port: 22 },
];

/** `unshare --net` has given this process a network namespace of its own. */
export const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });

/** Milliseconds; the programs' clock moves on at each tick, the slowest kernels tick 100 times a second. */
const routesRemembered = enums.lsr_limits.LSR_RECENT_NS / 1e6 + 2 * 10;

/** Runs `ip`, and returns when the programs have forgotten what routes and neighbours were before. */
export function changeRoutes(...args: string[]): void {
  ip(...args);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, routesRemembered);
}

export interface Testbed {
  datapath: Datapath;
  ports: Port[];
  programs: Record<'ingress' | 'egress', BpfProgram>;
  close(): void;
}

export type PortName = 'mesh0' | 'edge0' | 'strip0';

/** A port beside those that every testbed has. */
export interface FurtherPort {
  name: string;
  role: PortRole;
  /** With its length; none where it is not given. */
  address?: string;
}

/**
 * Host `fw` of the lab with two edge ports:
 *   mesh0 10.0.0.2/24 (mesh)   edge0 10.1.0.1/24 (edge, drop)   strip0 10.2.0.1/24 (edge, strip, guarded)
 */
export async function openTestbed(further: readonly FurtherPort[] = []): Promise<Testbed> {
  const folder = mountBpffs();
  const addresses: Record<string, string | undefined> = {
    mesh0: '10.0.0.2/24',
    edge0: '10.1.0.1/24',
    strip0: '10.2.0.1/24',
    ...Object.fromEntries(further.map(({ name, address }) => [name, address])),
  };
  execFileSync('sysctl', ['-qw', 'net.ipv4.ip_forward=1']);
  // The kernel's own router solicitations would be counted between ours.
  execFileSync('sysctl', [
    '-qew',
    'net.ipv6.conf.all.disable_ipv6=1',
    'net.ipv6.conf.default.disable_ipv6=1',
  ]);
  ip('link', 'set', 'lo', 'up');
  for (const [name, prefix] of Object.entries(addresses)) {
    ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}p`);
    if (prefix) ip('addr', 'add', prefix, 'dev', name);
    ip('link', 'set', `${name}p`, 'up');
    ip('link', 'set', name, 'up');
  }
  for (const last of [1, 3, 4]) {
    ip(
      'neigh',
      'replace',
      `10.0.0.${last}`,
      'lladdr',
      `02:00:00:00:00:0${last}`,
      'dev',
      'mesh0',
      'nud',
      'permanent',
    );
  }
  ip('route', 'add', '10.9.0.0/24', 'via', '10.0.0.4');
  ip('route', 'add', '10.0.7.0/24', 'via', '10.0.0.4');
  const common = { icmp: 'all', previousHop: 'interface', bypass: false } as const;
  const ports = findPorts(
    [
      { name: 'mesh0', role: 'mesh', options: fillPolicies('mesh'), infrastructure: null, ...common },
      { name: 'edge0', role: 'edge', options: fillPolicies('edge'), infrastructure: null, ...common },
      { name: 'strip0', role: 'edge', options: fillPolicies('edge', mixed), infrastructure, ...common },
      ...further.map(({ name, role }) => ({
        name,
        role,
        options: fillPolicies(role),
        infrastructure: null,
        ...common,
      })),
    ],
    await listLinks(),
  );
  const datapath = openDatapath(folder);
  datapath.setPorts(ports);
  datapath.attach(ports);
  return {
    datapath,
    ports,
    programs: datapath.programs,
    close() {
      datapath.close();
      for (const name of Object.keys(addresses)) ip('link', 'del', name);
      removeBpffs(folder);
    },
  };
}

/** The same host with other tables, which hold so many entries. Its programs are on no port. */
export function openBeside(bed: Testbed, capacities: Capacities): Testbed {
  const folder = mountBpffs();
  const datapath = openDatapath(folder, capacities);
  datapath.setPorts(bed.ports);
  return {
    ...bed,
    datapath,
    programs: datapath.programs,
    close() {
      datapath.close();
      removeBpffs(folder);
    },
  };
}

function removeBpffs(folder: string): void {
  execFileSync('umount', [join(folder, '..')]);
  rmSync(join(folder, '..'), { recursive: true });
}

/** Puts a mesh in force as the agent of `node` would. */
export function applyMesh(
  bed: Testbed,
  mesh: Mesh,
  node: string,
  generation = 1,
  available: Availability = allAvailable,
): void {
  const version = { set: (generation % 2) as 0 | 1, generation };
  const host = {
    node,
    mtu: 1500,
    available,
    unwell: new Map(),
    cgroups: findCgroups(listCgroups(mesh.rules, node)),
    addresses: bed.ports.flatMap(({ link }) => link.addresses),
    ports: bed.ports.map(({ name, role, link: { index, mac } }) => ({ name, role, index, mac })),
  };
  writeEntries(bed.datapath.maps, makeEntries(mesh, renderMesh(mesh), host, version), version);
}

export interface Ran {
  /** As tc returned: -1 next, 2 shot, 7 redirect. */
  action: number;
  frame: Buffer;
  /** What the counters of the port moved by; those that did not move are left out. */
  counted: Record<string, number>;
}

export interface Context {
  mark?: number;
  gsoSize?: number;
  /** Where a packet that passes egress came in; without, a socket of this host sent it. */
  from?: PortName;
}

/** Runs a program over a frame and tells which counters moved. */
export function runPacket(
  bed: Testbed,
  port: PortName,
  direction: 'ingress' | 'egress',
  frame: Buffer,
  context: Context = {},
): Ran {
  const before = countAll(bed, port, direction);
  const indexOf = (wanted?: PortName): number =>
    bed.ports.find(({ name }) => name === wanted)?.link.index ?? 0;
  const ran = bed.programs[direction].testRun({
    data: frame,
    context: skbContext(indexOf(port), context, indexOf(context.from)),
    outputSize: 4096,
  });
  const after = countAll(bed, port, direction);
  const moved = Object.entries(after).map(([name, count]): [string, number] => [
    name,
    count - (before[name] ?? 0),
  ]);
  return {
    action: ran.returnValue | 0,
    frame: ran.data,
    counted: Object.fromEntries(moved.filter(([, count]) => count !== 0)),
  };
}

/** struct __sk_buff, include/uapi/linux/bpf.h. */
export function skbContext(
  ifindex: number,
  { mark = 0, gsoSize = 0 }: Context = {},
  ingressIfindex = 0,
): Buffer {
  const context = Buffer.alloc(192);
  context.writeUInt32LE(mark, 8);
  context.writeUInt32LE(ingressIfindex, 36);
  context.writeUInt32LE(ifindex, 40);
  context.writeUInt32LE(gsoSize, 176);
  return context;
}

export function countAll(bed: Testbed, port: string, direction: string): Record<string, number> {
  const row = readCounters(bed.datapath.maps).find((r) => r.interface === port && r.direction === direction);
  if (!row) throw new Error(`port ${port} has no counters`);
  return { received: row.received, ...row.outcomes, ...row.drops, ...row.notes };
}

/** Puts a frame on the cable at its far end; the programs are attached, and have run when this returns. */
export function sendFrame(device: string, frame: Buffer): void {
  const program =
    'import socket,sys; s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind((sys.argv[1],0)); s.send(bytes.fromhex(sys.argv[2]))';
  execFileSync('python3', ['-c', program, device, frame.toString('hex')]);
}

/**
 * Puts a frame on the cable at its far end, and returns the IPv4 frames that then come out of the far ends of others,
 * by device: as many as are expected, and what else is there by then. `partial`: the UDP checksum is left to the device.
 */
export function exchangeFrame(
  device: string,
  frame: Buffer,
  expected: Readonly<Record<string, number>>,
  { partial = false } = {},
): Record<string, Buffer[]> {
  const program = `
import json, select, socket, struct, sys
device, frame, expected, partial = sys.argv[1], bytes.fromhex(sys.argv[2]), *map(json.loads, sys.argv[3:5])
listening = {}
for name in expected:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)); sock.bind((name, 0x0800))
    listening[sock] = name
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); out.bind((device, 0))
if partial: # struct virtio_net_hdr: NEEDS_CSUM, no GSO, where L4 begins, its checksum
    out.setsockopt(263, 15, 1) # SOL_PACKET, PACKET_VNET_HDR
    frame = struct.pack("BBHHHH", 1, 0, 0, 0, 14 + (frame[14] & 15) * 4, 6) + frame
out.send(frame)
seen = {name: [] for name in expected}
while select.select(list(listening), [], [], 5 if any(len(seen[n]) < c for n, c in expected.items()) else 0)[0]:
    for sock in select.select(list(listening), [], [], 0)[0]:
        data, address = sock.recvfrom(65535)
        if address[2] != socket.PACKET_OUTGOING: seen[listening[sock]].append(data.hex())
print(json.dumps(seen))`;
  const words = [
    '-c',
    program,
    device,
    frame.toString('hex'),
    JSON.stringify(expected),
    JSON.stringify(partial),
  ];
  const seen = JSON.parse(execFileSync('python3', words, { encoding: 'utf8' })) as Record<string, string[]>;
  return Object.fromEntries(
    Object.entries(seen).map(([name, frames]) => [name, frames.map((hex) => Buffer.from(hex, 'hex'))]),
  );
}

/** A bpffs of the test's own; the agent's pins are in a folder below. */
function mountBpffs(): string {
  const root = mkdtempSync(join(tmpdir(), 'lsr-bpffs-'));
  execFileSync('mount', ['-t', 'bpf', 'bpf', root]);
  mkdirSync(join(root, 'agent'));
  return join(root, 'agent');
}

export const macOf = (name: string): string => JSON.parse(ip('-j', 'link', 'show', name))[0].address;
