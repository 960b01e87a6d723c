import { existsSync, readdirSync, rmdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Maps, readState, readTable } from './apply.js';
import {
  type AttachedAs,
  attachPort,
  type Direction,
  detachStale,
  directions,
  readAttached,
} from './attach.js';
import { decode, decodeIndex, encode, encodeIndex } from './codec.js';
import { diffTables } from './diff.js';
import { makeTable, tableNames } from './entries.js';
import { LsrError } from './errors.js';
import { makeFolder } from './folder.js';
import type { Fault, Port } from './interfaces.js';
import { digest, enums } from './layout.js';
import { describeLayout } from './layout-source.js';
import { type BpfMap, type BpfObject, type BpfProgram, loadNative } from './native.js';
import { encodePolicies } from './option-policy.js';
import type { PortRole } from './role.js';

const mapNames = [
  ...tableNames,
  'state',
  'interfaces',
  'near',
  'openings',
  'keys',
  'signing',
  'seen',
  'moved',
  'counters',
  'traffic',
  'watching',
  'watches',
  'sightings',
  'flows_even',
  'flows_odd',
  'deviations_even',
  'deviations_odd',
  'recording',
  'events',
] as const;
type MapName = (typeof mapNames)[number];

/** The programs and tables of this host, in the kernel and pinned under one folder. Owns their handles. */
export interface Datapath {
  maps: Record<MapName, BpfMap> & Maps;
  programs: Record<Direction, BpfProgram>;
  /** Fills `interfaces`, without attaching anything. The counters of `absent` ports are kept under their names. */
  setPorts(ports: readonly Port[], absent?: readonly string[]): void;
  /** Puts the programs on the ports, in place of older ones, and takes them off all others. Returns what was refused. */
  attach(ports: readonly Port[]): Fault[];
  /** How the programs hang on a port, as the kernel has it; null where they do not. */
  readAttached(port: Port): AttachedAs | null;
  close(): void;
}

export const objectFile = fileURLToPath(new URL('../build/bpf/lsr.bpf.o', import.meta.url));

/** Entries that a new table holds, where it shall not be as many as bpf/maps.h says. */
export type Capacities = Partial<Record<MapName, number>>;

/** Loads the programs; tables that are pinned from before are taken over with what is in them. */
export function openDatapath(folder: string, capacities: Capacities = {}): Datapath {
  checkLayout();
  makePinFolders(folder);
  const native = loadNative();
  const object = native.openObject(objectFile);
  try {
    for (const [name, entries] of Object.entries(capacities)) object.setMaxEntries(name, entries);
    for (const name of mapNames) {
      if (existsSync(mapPin(folder, name))) reuseMap(object, folder, name);
    }
    loadObject(object);
    const maps = Object.fromEntries(mapNames.map((name) => [name, object.map(name)])) as Datapath['maps'];
    for (const name of mapNames) {
      if (!existsSync(mapPin(folder, name))) maps[name].pin(mapPin(folder, name));
    }
    const programs = { ingress: object.program('lsr_ingress'), egress: object.program('lsr_egress') };
    return makeDatapath(folder, object, maps, programs);
  } catch (error) {
    object.close();
    throw error;
  }
}

/** Of these ports those that are in force without a daemon: programs are attached, and tables pinned that were filled. */
export function findInForce(folder: string, ports: readonly Port[]): Port[] {
  const pin = mapPin(folder, 'state');
  if (!existsSync(pin)) return [];
  const state = loadNative().openPinnedMap(pin);
  const { generation } = readState({ state });
  state.close();
  return generation === 0 ? [] : ports.filter(({ link }) => readAttached(linkFolder(folder), link) !== null);
}

/** Takes programs, tables and pins away; what a host was before lsr-agent. Returns what was there. */
export function removeDatapath(folder: string): string[] {
  const removed: string[] = [];
  if (!existsSync(folder)) return removed;
  removed.push(...detachStale(linkFolder(folder), new Set()));
  for (const sub of [linkFolder(folder), mapFolder(folder)]) {
    if (!existsSync(sub)) continue;
    for (const name of readdirSync(sub)) {
      unlinkSync(join(sub, name));
      removed.push(join(sub, name));
    }
    rmdirSync(sub);
  }
  rmdirSync(folder);
  return removed;
}

const mapFolder = (folder: string): string => join(folder, 'maps');
const linkFolder = (folder: string): string => join(folder, 'links');
export const mapPin = (folder: string, name: string): string => join(mapFolder(folder), name);

function checkLayout(): void {
  if (!existsSync(objectFile)) {
    throw new LsrError('LAYOUT_STALE', `${objectFile} is missing: run \`npm run setup\``);
  }
  const found = describeLayout(loadNative().btfTypes(objectFile)).digest;
  if (found !== digest) {
    throw new LsrError(
      'LAYOUT_STALE',
      `${objectFile} has layout ${found.slice(0, 12)}, this agent was built for ${digest.slice(0, 12)}: run \`npm run build\``,
    );
  }
}

function makePinFolders(folder: string): void {
  try {
    makeFolder(mapFolder(folder), 0o700);
    makeFolder(linkFolder(folder), 0o700);
  } catch (error) {
    throw new LsrError(
      'PRIVILEGES',
      `${folder} cannot be made: ${(error as Error).message}. Is bpffs mounted (mount -t bpf bpf /sys/fs/bpf) and are you root?`,
    );
  }
}

function reuseMap(object: BpfObject, folder: string, name: MapName): void {
  try {
    object.reusePinned(name, mapPin(folder, name));
  } catch (error) {
    throw new LsrError(
      'LAYOUT_STALE',
      `table ${name} pinned under ${folder} is of another version: ${(error as Error).message}. ` +
        '`lsr-agent unload --config FILE` removes it; the chains stop until the daemon runs again.',
    );
  }
}

function loadObject(object: BpfObject): void {
  try {
    object.load();
  } catch (error) {
    const { code, log, message } = error as Error & { code?: string; log?: string };
    if (code === 'EPERM') {
      throw new LsrError(
        'PRIVILEGES',
        `the kernel does not let this user load BPF programs: CAP_BPF and CAP_NET_ADMIN are needed (${message})`,
      );
    }
    const tail = (log ?? '').trim().split('\n').slice(-20).join('\n');
    throw new LsrError('KERNEL', `the kernel refused the programs: ${message}\n${tail}`, { log });
  }
}

function makeDatapath(
  folder: string,
  object: BpfObject,
  maps: Datapath['maps'],
  programs: Record<Direction, BpfProgram>,
): Datapath {
  const links = linkFolder(folder);
  return {
    maps,
    programs,
    setPorts: (ports, absent = []) => writePorts(maps, ports, absent),
    attach(ports) {
      const refused = ports.flatMap(({ name, link }): Fault[] => {
        try {
          for (const direction of directions) attachPort(links, programs[direction], link, direction);
          return [];
        } catch (error) {
          return [{ name, error: `interface ${name} takes no program: ${(error as Error).message}` }];
        }
      });
      detachStale(links, new Set(ports.map(({ name }) => name)));
      return refused;
    },
    readAttached: ({ link }) => readAttached(links, link),
    close() {
      for (const handle of [...Object.values(maps), ...Object.values(programs), object]) handle.close();
    },
  };
}

const icmpPolicies = {
  off: enums.lsr_icmp.LSR_ICMP_OFF,
  pmtu: enums.lsr_icmp.LSR_ICMP_PMTU,
  all: enums.lsr_icmp.LSR_ICMP_ALL,
} as const;

const previousHops = {
  off: enums.lsr_previous_hop.LSR_PREVIOUS_OFF,
  interface: enums.lsr_previous_hop.LSR_PREVIOUS_INTERFACE,
  neighbour: enums.lsr_previous_hop.LSR_PREVIOUS_NEIGHBOUR,
} as const;

const roles: Record<PortRole, number> = {
  edge: enums.lsr_role.LSR_ROLE_EDGE,
  mesh: enums.lsr_role.LSR_ROLE_MESH,
  function: enums.lsr_role.LSR_ROLE_FUNCTION,
  tap: enums.lsr_role.LSR_ROLE_TAP,
};

/** No ifindex is as high: here stand ports that are away, so that they keep their counters. */
const absentFrom = 0x80000000;

/** A port keeps the counters it had under its name, also with a new ifindex. */
function writePorts(
  { interfaces: map, near, openings }: Datapath['maps'],
  ports: readonly Port[],
  absent: readonly string[],
): void {
  const present = readPorts(map);
  const slotOf = assignSlots([...ports.map(({ name }) => name), ...absent], present);
  const wanted = new Map([
    ...ports.map((port): [number, Buffer] => [port.link.index, encodePort(port, slotOf(port.name))]),
    ...absent.map((name): [number, Buffer] => {
      const slot = slotOf(name);
      return [absentFrom + slot, encode('lsr_interface', { name, slot })];
    }),
  ]);
  const opened = makeTable(
    ports.flatMap(({ name, infrastructure }) =>
      (infrastructure ?? []).map((opening): [Buffer, Buffer] => [
        encode('lsr_opening', { slot: slotOf(name), ...opening }),
        encodeIndex(1),
      ]),
    ),
  );
  const { put, remove } = diffTables(readTable(openings), opened);
  for (const [key, value] of put) openings.put(key, value);
  const putNear = (index: number, value: Buffer): void => {
    if (index < enums.lsr_limits.LSR_NEAR_MAX) near.put(encodeIndex(index), value);
  };
  // First, because a table that is full takes no other key.
  for (const { index } of present) {
    if (wanted.has(index)) continue;
    putNear(index, encode('lsr_interface', {}));
    map.delete(encodeIndex(index));
  }
  for (const [index, value] of wanted) {
    map.put(encodeIndex(index), value);
    putNear(index, value);
  }
  for (const key of remove) openings.delete(key);
}

/** Slots of counters by name: those in use stay, others are the lowest that are free. */
function assignSlots(
  names: readonly string[],
  present: readonly { name: string; slot: number }[],
): (name: string) => number {
  const slots = new Map(present.map(({ name, slot }) => [name, slot]));
  const all = Array.from({ length: enums.lsr_limits.LSR_INTERFACES_MAX }, (_, i) => i);
  for (const name of names.filter((name) => !slots.has(name))) {
    const slot = all.find((candidate) => ![...slots.values()].includes(candidate));
    if (slot === undefined)
      throw new LsrError('CAPACITY', `an agent manages at most ${all.length} interfaces`);
    slots.set(name, slot);
  }
  return (name) => slots.get(name) as number;
}

function encodePort(port: Port, slot: number): Buffer {
  const { name, link, role, options, icmp, previousHop, infrastructure, bypass } = port;
  return encode('lsr_interface', {
    role: roles[role],
    slot,
    icmp: icmpPolicies[icmp],
    previous: previousHops[previousHop],
    guarded: infrastructure === null ? 0 : 1,
    bypass: bypass ? 1 : 0,
    options: encodePolicies(options),
    mtu: link.mtu,
    address: link.addresses[0] ?? 0,
    name,
  });
}

/** The ports as the kernel side knows them, also those that are away. */
export function readPorts(map: BpfMap): { index: number; name: string; slot: number }[] {
  const { keys, values, count } = map.entries();
  return Array.from({ length: count }, (_, i) => {
    const { name, slot } = decode('lsr_interface', values, i * map.info.valueSize);
    return { index: decodeIndex(keys, i * 4), name, slot };
  });
}
