import { OPTION_BYTES_MAX } from './limits.js';
import {
  listReplicas,
  lookUp,
  type Mesh,
  type MeshChain,
  type MeshRule,
  type MeshService,
  readIntegrity,
} from './mesh.js';
import { countOptionBytes } from './option-bytes.js';

/**
 * A mesh with the chains that follow from those of its document: ways back, and segments. Names of the document have no
 * slash, so none of these meets another.
 *   web/return   the same hops the other way round, from where web ends to its edge
 *   web/2        what is left of web where one IPv4 header does not hold it, or where a function loses options
 */
export interface DerivedMesh {
  mesh: Mesh;
  /** Of each chain. */
  chains: ReadonlyMap<string, Derivation>;
  /** Place in the document of what each rule is, or follows from. */
  rules: readonly number[];
}

export interface Derivation {
  /** The chain of the document. */
  of: string;
  /** From 1. */
  segment: number;
  /** Of how many. */
  segments: number;
  /** The segment that follows. */
  next: string | null;
  /** It begins where this one ends; else what comes back from the function there is classified anew. */
  onward: boolean;
  /** The nodes where it begins. */
  at: readonly string[];
  /** Rules whose packets take it, after the segments before it. */
  takenBy: readonly MeshRule[];
}

interface Part {
  name: string;
  chain: MeshChain;
  rules: { rule: MeshRule; index: number }[];
}

/** Throws nothing: what cannot be derived stays as it is, and the checks tell what is wrong with it. */
export function deriveMesh(document: Mesh): DerivedMesh {
  const services = { ...document.services };
  const chains = new Map<string, MeshChain>();
  const derivations = new Map<string, Derivation>();
  const rules: Part['rules'] = [];
  for (const [of, chain] of Object.entries(document.chains)) {
    const own = document.rules.flatMap((rule, index) => (rule.chain === of ? [{ rule, index }] : []));
    const there: Part = { name: of, chain: { ...chain, return: 'direct' }, rules: own };
    const parts = chain.return === 'symmetric' ? [there, turnRound(document, there, services)] : [there];
    for (const part of parts) {
      for (const segment of cutPart({ ...document, services }, part, of)) {
        chains.set(segment.name, segment.chain);
        derivations.set(segment.name, segment.derivation);
        rules.push(...segment.rules);
      }
    }
  }
  const orphans = document.rules.flatMap((rule, index) => (chains.has(rule.chain) ? [] : [{ rule, index }]));
  rules.push(...orphans);
  rules.sort((a, b) => a.index - b.index);
  return {
    mesh: {
      ...document,
      services,
      chains: Object.fromEntries(chains),
      rules: rules.map(({ rule }) => rule),
    },
    chains: derivations,
    rules: rules.map(({ index }) => index),
  };
}

/** The name in the document of a chain, or service, or what follows from it. */
export const documentName = (name: string): string => name.split('/')[0] ?? name;

/** The nodes that a hop may mean, those of its alternate among them. */
export function listNodes(mesh: Mesh, hop: string): string[] {
  const { alternate } = lookUp(mesh.services, hop) ?? {};
  return [hop, ...(alternate === undefined ? [] : [alternate])].flatMap((name) =>
    listReplicas(mesh, name).map(({ node }) => node),
  );
}

/** The service as a hop of the way back means it: packets enter where they came out. */
export const returned = (name: string): string => `${name}/return`;

function turnRound(mesh: Mesh, { name, chain, rules }: Part, services: Record<string, MeshService>): Part {
  const [last = '', ...others] = [...chain.hops].reverse();
  const edge = rules[0]?.rule.at[0] ?? '';
  const hops = others.map((hop) => {
    const service = lookUp(mesh.services, hop);
    if (!service || service.returnDevice === undefined) return hop;
    services[returned(hop)] = swapDevices(service);
    return returned(hop);
  });
  return {
    name: returned(name),
    chain: { ...chain, hops: [...hops, edge] },
    rules: rules.map(({ rule, index }) => ({ rule: swapEnds(rule, listNodes(mesh, last)), index })),
  };
}

function swapDevices(service: MeshService): MeshService {
  const { device, returnDevice, via, returnVia, ...rest } = service;
  return {
    ...rest,
    ...(returnDevice !== undefined && { device: returnDevice }),
    ...(device !== undefined && { returnDevice: device }),
    ...(returnVia !== undefined && { via: returnVia }),
    ...(via !== undefined && { returnVia: via }),
  };
}

/** DSCP, mark and cgroup of an answer are its sender's. */
function swapEnds({ name, match, chain, priority }: MeshRule, at: string[]): MeshRule {
  const { source, destination, sourcePorts, destinationPorts, protocol } = match;
  return {
    name: returned(name),
    at,
    from: ['edge', 'local'],
    ...(priority !== undefined && { priority }),
    match: {
      ...(destination !== undefined && { source: destination }),
      ...(source !== undefined && { destination: source }),
      ...(protocol !== undefined && { protocol }),
      ...(destinationPorts !== undefined && { sourcePorts: destinationPorts }),
      ...(sourcePorts !== undefined && { destinationPorts: sourcePorts }),
    },
    chain: returned(chain),
  };
}

interface Segment extends Part {
  derivation: Derivation;
}

function cutPart(mesh: Mesh, { name, chain, rules }: Part, of: string): Segment[] {
  const cuts = cutHops(mesh, chain);
  const nameOf = (index: number): string => (index === 0 ? name : `${name}/${index + 1}`);
  const lastOf = (index: number): string => cuts[index]?.at(-1) ?? '';
  return cuts.map((hops, index) => {
    const at = index === 0 ? rules.flatMap(({ rule }) => rule.at) : listNodes(mesh, lastOf(index - 1));
    const begins = index > 0 && isPlain(mesh, lastOf(index - 1));
    const isLast = index + 1 === cuts.length;
    return {
      name: nameOf(index),
      chain: { ...chain, hops },
      rules: index === 0 ? rules : begins ? rules.map((entry) => resumeRule(entry, nameOf(index), at)) : [],
      derivation: {
        of,
        segment: index + 1,
        segments: cuts.length,
        next: isLast ? null : nameOf(index + 1),
        onward: !isLast && !isPlain(mesh, lastOf(index)),
        at: [...new Set(at)],
        takenBy: rules.map(({ rule }) => rule),
      },
    };
  });
}

/** A function that gets no options, so that a chain ends before it and begins anew behind it. */
const isPlain = (mesh: Mesh, hop: string): boolean => lookUp(mesh.services, hop)?.options === 'stripped';

/** What comes back from the function, known by its addresses and ports alone. */
function resumeRule({ rule, index }: Part['rules'][number], chain: string, at: string[]) {
  const { dscp: _, mark: __, cgroup: ___, ...match } = rule.match;
  const name = `${rule.name}/${chain.split('/').at(-1)}`;
  return { rule: { ...rule, name, at, from: ['function' as const], match, chain }, index };
}

function cutHops(mesh: Mesh, chain: MeshChain): string[][] {
  const pieces: string[][] = [[]];
  for (const [index, hop] of chain.hops.entries()) {
    pieces.at(-1)?.push(hop);
    if (isPlain(mesh, hop) && index + 1 < chain.hops.length) pieces.push([]);
  }
  const tagged = readIntegrity(mesh, chain) !== 'off';
  const fits = (count: number): boolean =>
    countOptionBytes(count, chain.record ?? 0, tagged) <= OPTION_BYTES_MAX;
  return pieces.flatMap((hops) => cutToSize(mesh, hops, fits));
}

/**
 * As few segments as there can be, about equally long. None ends at a function of the stack: there the next one
 * begins in the programs, before the stack would see the packet.
 */
function cutToSize(mesh: Mesh, hops: string[], fits: (count: number) => boolean): string[][] {
  const most = hops.findIndex((_, index) => !fits(index + 1));
  if (most <= 0) return [hops];
  const wanted = Math.ceil(hops.length / Math.ceil(hops.length / most));
  const mayEnd = (count: number): boolean =>
    lookUp(mesh.services, hops[count - 1] ?? '')?.function !== 'stack';
  const counts = hops.map((_, index) => index + 1).filter((count) => count <= most && mayEnd(count));
  const count = counts.reduce(
    (best, other) => (Math.abs(other - wanted) < Math.abs(best - wanted) ? other : best),
    counts[0] ?? 0,
  );
  if (count === 0) return [hops];
  return [hops.slice(0, count), ...cutToSize(mesh, hops.slice(count), fits)];
}
