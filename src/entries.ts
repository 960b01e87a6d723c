import { type Address, type Prefix, parseAddress } from './address.js';
import { type Availability, type Choice, chooseAvailable } from './availability.js';
import { cgroupTable, listCgroups } from './cgroups.js';
import { encode, encodeIndex, type Struct } from './codec.js';
import { LsrError } from './errors.js';
import { functionNumber, functionTable } from './functions.js';
import { enums } from './layout.js';
import type { Mesh } from './mesh.js';
import { type Binding, countTagBytes, hashText, headerAt, type RenderedPath } from './path.js';
import { pathsOf, type Rendered, type RenderedChain } from './render.js';
import type { PortRole } from './role.js';
import { renderRules } from './tuples.js';

/** Key bytes (latin1) -> value bytes. */
export type Table = Map<string, Buffer>;

export const tableNames = [
  'addresses',
  'paths',
  'destinations',
  'recorders',
  'functions',
  'cgroups',
  'hops',
  'chains',
  'choices',
  'rules',
  'tuples',
] as const;
export type TableName = (typeof tableNames)[number];
export type Tables = Record<TableName, Table>;

/** What belongs to this host and not to the mesh. */
export interface Host {
  node: string;
  /** Smallest MTU of the mesh ports, bytes. */
  mtu: number;
  /** All its own addresses, whether in the mesh document or not. */
  addresses: readonly Address[];
  available: Availability;
  /** Services whose function here is unwell. */
  unwell: ReadonlyMap<string, unknown>;
  /** Those of its cgroups that rules name, with their ids. */
  cgroups: ReadonlyMap<string, bigint>;
  /** Its managed interfaces, as far as they are there. */
  ports: readonly HostPort[];
}

export interface HostPort {
  name: string;
  role: PortRole;
  /** ifindex */
  index: number;
  mac: Uint8Array;
}

/** What is written with a change: `set` is the one that is not in force. */
export interface Version {
  set: 0 | 1;
  generation: number;
}

export interface Entries {
  tables: Tables;
  /** How many tuples the set has. */
  tuples: number;
  /** 1: some of its rules look at cgroups. */
  cgroups: 0 | 1;
  address: Address;
}

/** Everything this host's data path needs of a mesh, as bytes. Pure. */
export function makeEntries(mesh: Mesh, rendered: Rendered, host: Host, version: Version): Entries {
  const local = rendered.mesh.rules.filter((rule) => rule.at.includes(host.node));
  const chains = rendered.chains.filter((chain) => chain.at.includes(host.node));
  // Also those that begin here: an ICMP error about one of their packets is translated back.
  const visited = rendered.paths.filter(
    (path) =>
      path.hops.some((hop) => hop.node === host.node) ||
      chains.some((chain) => pathsOf(chain).includes(path)),
  );
  const endsHere = ({ hops }: RenderedPath): boolean => hops.at(-1)?.node === host.node;
  const rules = renderRules(local, new Map(chains.map((chain) => [chain.name, chain.id])), version.set);
  const edges = findEdges(mesh, rendered.chains);
  const endings = rendered.chains.flatMap((chain) =>
    pathsOf(chain)
      .filter(endsHere)
      .map((path) => ({ chain, path })),
  );
  const reported = findReported(rendered.chains);
  const begun = new Set(chains.flatMap(({ ways }) => ways.flatMap(({ slots }) => slots)));

  return {
    address: nodeAddress(mesh, host.node),
    tuples: rules.tuples.size,
    cgroups: listCgroups(local, host.node).length > 0 ? 1 : 0,
    tables: {
      addresses: addressTable(mesh, host),
      paths: makeTable([...begun].map((path) => pathEntry(path, host.mtu))),
      destinations: makeTable(
        endings.flatMap(({ chain, path }) =>
          chain.destinations.map((prefix) => destinationEntry(chain, path, prefix, version.generation)),
        ),
      ),
      recorders: makeTable(
        endings
          .filter(({ chain }) => chain.onDeviation === 'drop')
          .flatMap(({ path }) => recorderEntries(mesh, path)),
      ),
      functions: functionTable(rendered.mesh, host),
      cgroups: cgroupTable(host.cgroups, version.set),
      hops: makeTable(
        visited.flatMap((path) =>
          hopEntries(path, edges.get(path.id) ?? 0, reported.has(path.id), version.generation),
        ),
      ),
      ...makeChoices(chains, host.available, version),
      rules: rules.rules,
      tuples: rules.tuples,
    },
  };
}

/**
 * Where packets of chains that begin here go, as far as paths are available: what a failover changes, and nothing else does.
 */
export function makeChoices(
  chains: readonly RenderedChain[],
  available: Availability,
  { set, generation }: Version,
): Pick<Tables, 'chains' | 'choices'> {
  const chosen = chains.map((chain) => ({
    chain,
    key: encode('lsr_chain_key', { chain: chain.id, set }),
    choice: chooseAvailable(chain.ways, available, Date.now()),
  }));
  const ids = (paths: Choice['now']): number[] => paths.map((path) => path?.id ?? 0);
  return {
    chains: makeTable(
      chosen.map(({ chain, key, choice }) => {
        const several = choice.now.length > 1;
        const fragments = chain.fragments === 'drop' ? 'LSR_FRAGMENTS_DROP' : 'LSR_FRAGMENTS_CHAIN';
        const value: Struct<'lsr_chain'> = {
          path: several ? 0 : (ids(choice.now)[0] ?? 0),
          generation,
          number: chain.number,
          fragments: enums.lsr_fragments[fragments],
          several: several ? 1 : 0,
          before: 0,
          id: 0,
        };
        return [key, encode('lsr_chain', value)];
      }),
    ),
    choices: makeTable(
      chosen
        .filter(({ choice }) => choice.now.length > 1)
        .map(({ key, choice }) => [
          key,
          encode('lsr_choice', { path: ids(choice.now), before: ids(choice.before ?? []) }),
        ]),
    ),
  };
}

export type Entry = [key: Buffer, value: Buffer];

/** Later entries win. */
export const makeTable = (entries: readonly Entry[]): Table =>
  new Map(entries.map(([key, value]) => [key.toString('latin1'), value]));

function nodeAddress(mesh: Mesh, node: string): Address {
  const address = parseAddress(mesh.nodes[node]?.address ?? '');
  if (address === null) {
    const known = Object.keys(mesh.nodes).join(', ');
    throw new LsrError(
      'MESH_INVALID',
      `this host is node "${node}" (agent.yaml), but the mesh has only ${known}`,
    );
  }
  return address;
}

function addressTable(mesh: Mesh, host: Host): Table {
  const { LSR_OWNER_MESH, LSR_OWNER_NODE, LSR_OWNER_SELF } = enums.lsr_owner;
  const owners = new Map<Address, number>();
  const add = (text: string, owner: number): void => {
    const address = parseAddress(text);
    if (address !== null) owners.set(address, (owners.get(address) ?? 0) | owner);
  };
  for (const { address, addresses = [] } of Object.values(mesh.nodes)) {
    add(address, LSR_OWNER_NODE);
    for (const text of [address, ...addresses]) add(text, LSR_OWNER_MESH);
  }
  for (const address of [nodeAddress(mesh, host.node), ...host.addresses]) {
    owners.set(address, ((owners.get(address) ?? 0) & LSR_OWNER_MESH) | LSR_OWNER_SELF);
  }
  return makeTable([...owners].map(([address, owner]) => [addressKey(address), encodeIndex(owner)]));
}

function addressKey(address: Address): Buffer {
  const key = Buffer.alloc(4);
  key.writeUInt32BE(address);
  return key;
}

function pathEntry(path: RenderedPath, mtu: number): Entry {
  const first = path.hops[0];
  if (!first) throw new LsrError('INTERNAL', `path ${path.id} has no hops`);
  const value: Struct<'lsr_path'> = {
    options: path.options,
    first: first.address,
    length: path.options.length,
    destination: path.destinationOffset,
    strict: path.mode === 'strict' ? 1 : 0,
    record: path.recordBytes,
    mtu: Math.min(mtu, path.mtu ?? mtu, 0xffff),
    binding: bindings[path.binding],
    unused: 0,
  };
  return [encodeIndex(path.id), encode('lsr_path', value)];
}

const bindings: Record<Binding, number> = {
  none: enums.lsr_binding.LSR_BINDING_NONE,
  addresses: enums.lsr_binding.LSR_BINDING_ADDRESSES,
  ports: enums.lsr_binding.LSR_BINDING_PORTS,
};

function destinationEntry(
  chain: RenderedChain,
  path: RenderedPath,
  prefix: Prefix,
  generation: number,
): Entry {
  return [
    encode('lsr_destination_key', {
      prefixLength: 64 + prefix.length,
      path: path.id,
      number: path.binding === 'none' ? 0 : chain.number,
      destination: prefix.address,
    }),
    encode('lsr_destination', {
      chain: chain.id,
      generation,
      onward: chain.onward && chain.next !== null ? hashText(chain.next) : 0,
      complete: chain.onDeviation === 'drop' ? 1 : 0,
    }),
  ];
}

/** All addresses of the path's hops: which of them a hop writes depends on the interface that packets leave by. */
function recorderEntries(mesh: Mesh, path: RenderedPath): Entry[] {
  return path.hops.flatMap(({ node, address: named }) => {
    const others = (mesh.nodes[node]?.addresses ?? []).flatMap((text) => parseAddress(text) ?? []);
    return [named, ...others].map(
      (address): Entry => [encode('lsr_recorder', { path: path.id, address }), encodeIndex(1)],
    );
  });
}

/** Paths of which every chain says `onDeviation: report`. */
function findReported(chains: readonly RenderedChain[]): Set<number> {
  const idsOf = (taken: readonly RenderedChain[]) => taken.flatMap(pathsOf).map(({ id }) => id);
  const strict = new Set(idsOf(chains.filter((chain) => chain.onDeviation !== 'report')));
  return new Set(idsOf(chains).filter((id) => !strict.has(id)));
}

/** Path -> the node where all chains that take it begin, as far as it is only one. */
function findEdges(mesh: Mesh, chains: readonly RenderedChain[]): Map<number, Address> {
  const edges = new Map<number, Set<string>>();
  for (const chain of chains) {
    for (const { id } of pathsOf(chain)) edges.set(id, new Set([...(edges.get(id) ?? []), ...chain.at]));
  }
  const single = [...edges].filter(([, nodes]) => nodes.size === 1);
  return new Map(single.map(([path, [node = '']]) => [path, nodeAddress(mesh, node)]));
}

/** All positions of a path: a packet that is right at another hop is told from one that is nowhere right. */
function hopEntries(path: RenderedPath, edge: Address, reported: boolean, generation: number): Entry[] {
  return path.hops.flatMap((hop, index) => {
    const value = encode('lsr_hop', {
      next: path.hops[index + 1]?.address ?? 0,
      previous: path.hops[index - 1]?.address ?? edge,
      path: path.id,
      generation,
      function: functionNumber(hop.function),
      binding: bindings[path.binding],
      once: path.once ? 1 : 0,
      reported: reported ? 1 : 0,
    });
    return hopKeys(path, index + 1).map((key): Entry => [key, value]);
  });
}

/** The whole key, the route at any hop and, where they say anything, its two parts. */
export function hopKeys(path: RenderedPath, position: number): Buffer[] {
  const { LSR_PART_AHEAD, LSR_PART_RECORDED, LSR_PART_ROUTE, LSR_PART_WHOLE } = enums.lsr_part;
  const tag = countTagBytes(path);
  const options = Buffer.from(headerAt(path, position, 0).options).subarray(tag);
  const known = Array.from({ length: path.hops.length - 1 }, (_, i) => options.readUInt32BE(3 + 4 * i));
  const passed = position - 1;
  const key = (part: number, route: number[]) =>
    encode('lsr_hop_key', {
      type: options[0] ?? 0,
      length: options[1] ?? 0,
      pointer: options[2] ?? 0,
      record: path.recordBytes,
      tag,
      part,
      hop: part === LSR_PART_WHOLE ? (path.hops[position - 1]?.address ?? 0) : 0,
      route,
    });
  const keys = [key(LSR_PART_WHOLE, known), key(LSR_PART_ROUTE, known)];
  if (passed > 0) {
    keys.push(
      key(
        LSR_PART_RECORDED,
        known.map((entry, i) => (i < passed ? entry : 0)),
      ),
    );
  }
  if (passed < known.length) {
    keys.push(
      key(
        LSR_PART_AHEAD,
        known.map((entry, i) => (i < passed ? 0 : entry)),
      ),
    );
  }
  return keys;
}
