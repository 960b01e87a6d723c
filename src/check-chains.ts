import { formatPrefix } from './address.js';
import { listNodes } from './derive.js';
import { type Finding, makePointer, quote, suggest } from './finding.js';
import { enums } from './layout.js';
import {
  ADDRESS_BYTES,
  OPTION_BYTES_MAX,
  PATHS_RENDERED_MAX,
  ROUTE_HEAD_BYTES,
  TAG_BYTES,
} from './limits.js';
import { lookUp, type Mesh, type MeshChain, readIntegrity } from './mesh.js';
import { findOverlaps } from './overlap.js';
import { describePath, describeRoute, type RenderedPath } from './path.js';
import { pathsOf, type RenderedChain, renderMesh } from './render.js';
import { countWays } from './ways.js';

/** Whether hops exist and stand once, and whether a chain is what its words say. */
export function checkChains(mesh: Mesh): Finding[] {
  return Object.entries(mesh.chains).flatMap(([name, chain]) => [
    ...checkHops(mesh, name, chain),
    ...checkDuplicates(mesh, name, chain),
    ...checkEnd(mesh, name, chain),
    ...checkReturn(mesh, name, chain),
    ...checkSkips(mesh, name, chain),
    ...checkSize(mesh, name, chain),
  ]);
}

/** Whether all that is rendered can be told apart, by id and on the wire. Only for a mesh that is right otherwise. */
export function checkPaths(mesh: Mesh): Finding[] {
  const { chains } = renderMesh(mesh);
  const findings = [...checkNumbers(chains), ...checkIds(chains), ...checkRoutes(chains)];
  return [...findings, ...groupByPath(chains).flatMap(checkDestinations)];
}

function checkHops(mesh: Mesh, name: string, chain: MeshChain): Finding[] {
  const first = new Map<string, string>();
  return chain.hops.flatMap((word, index): Finding[] => {
    const pointer = makePointer('chains', name, 'hops', index);
    if (!lookUp(mesh.services, word) && !lookUp(mesh.nodes, word)) {
      const names = [...Object.keys(mesh.nodes), ...Object.keys(mesh.services ?? {})];
      const message = `hop ${quote(word)} of chain ${quote(name)} is no node and no service${suggest(word, names)}`;
      return [{ pointer, code: 'HOP_UNKNOWN', message }];
    }
    const nodes = [...new Set(listNodes(mesh, word))];
    const twice = nodes.find((node) => first.has(node));
    if (twice === undefined) {
      for (const node of nodes) first.set(node, word);
      return [];
    }
    const before = first.get(twice);
    const what =
      before === word
        ? `${quote(word)} twice`
        : `node ${quote(twice)} as ${quote(before)} and as ${quote(word)}`;
    const message = `chain ${quote(name)} visits ${what}; a source route can name a node once`;
    return [{ pointer, code: 'HOP_REPEATED', message }];
  });
}

/** What may be left out of a chain when it is away. */
function checkSkips(mesh: Mesh, name: string, chain: MeshChain): Finding[] {
  return chain.hops.flatMap((word, index): Finding[] => {
    if (lookUp(mesh.services, word)?.unavailable !== 'skip') return [];
    const pointer = makePointer('chains', name, 'hops', index);
    if (chain.security) {
      const message = `chain ${quote(name)} is for security, and service ${quote(word)} may be skipped; make it "unavailable: drop" or "alternate"`;
      return [{ pointer, code: 'SKIP_SECURITY', message }];
    }
    if (index < chain.hops.length - 1) return [];
    const message = `chain ${quote(name)} ends at service ${quote(word)}, which may be skipped; what ends a chain, or a segment of it, cannot be`;
    return [{ pointer, code: 'SKIP_END', message }];
  });
}

function checkSize(mesh: Mesh, name: string, chain: MeshChain): Finding[] {
  const count = countWays(mesh, chain);
  if (count <= PATHS_RENDERED_MAX) return [];
  const message = `chain ${quote(name)} has up to ${count} paths with those for services that are away, and at most ${PATHS_RENDERED_MAX} are rendered; give it fewer "paths", or fewer services that may be skipped or replaced`;
  return [{ pointer: makePointer('chains', name), code: 'PATHS_TOO_MANY', message, part: 'key' }];
}

function checkEnd(mesh: Mesh, name: string, { hops }: MeshChain): Finding[] {
  return hops.slice(0, -1).flatMap((word, index): Finding[] => {
    if (lookUp(mesh.services, word)?.function !== 'terminate') return [];
    const message = `service ${quote(word)} terminates connections, so chain ${quote(name)} ends there; the hops behind it are a chain of their own, with a rule at its node`;
    return [{ pointer: makePointer('chains', name, 'hops', index), code: 'HOP_TERMINATES', message }];
  });
}

/** What the way back is made of: the networks whose answers take it, and the one edge where it ends. */
function checkReturn(mesh: Mesh, name: string, chain: MeshChain): Finding[] {
  if (chain.return !== 'symmetric') return [];
  const last = lookUp(mesh.services, chain.hops.at(-1) ?? '');
  const findings: Finding[] = [];
  if (last?.function === 'inline' || last?.function === 'tap') {
    const message = `service ${quote(chain.hops.at(-1) ?? '')} is the last hop of chain ${quote(name)}, and answers would begin behind it; put a node behind it, such as the one that leads to the destination`;
    const pointer = makePointer('chains', name, 'hops', chain.hops.length - 1);
    findings.push({ pointer, code: 'RETURN_END', message });
  }
  chain.hops.forEach((hop, index) => {
    const { device, returnDevice = device, via, returnVia } = lookUp(mesh.services, hop) ?? {};
    if (via === undefined || returnVia !== undefined || returnDevice === device) return;
    const message = `chain ${quote(name)} comes back symmetrically, and enters service ${quote(hop)} by its returnDevice then; give the function's address there as "returnVia"`;
    findings.push({ pointer: makePointer('chains', name, 'hops', index), code: 'RETURN_VIA', message });
  });
  const rules = mesh.rules.map((rule, index) => ({ rule, index })).filter(({ rule }) => rule.chain === name);
  const edge = rules[0]?.rule.at[0];
  for (const { rule, index } of rules) {
    if (rule.at.some((node) => node !== edge)) {
      const message = `chain ${quote(name)} comes back symmetrically, so it needs one edge: rule ${quote(rule.name)} is at ${rule.at.map(quote).join(' and ')}, and an answer could not tell which`;
      findings.push({ pointer: makePointer('rules', index, 'at'), code: 'RETURN_EDGE', message });
    }
    const missing = (['source', 'destination'] as const).filter((field) => rule.match[field] === undefined);
    if (missing.length > 0) {
      const message = `chain ${quote(name)} comes back symmetrically, so rule ${quote(rule.name)} needs a ${missing.join(' and a ')}: answers are told by them, and "0.0.0.0/0" would be all`;
      findings.push({ pointer: makePointer('rules', index, 'match'), code: 'RETURN_MATCH', message });
    }
  }
  return findings;
}

function checkDuplicates(mesh: Mesh, name: string, chain: MeshChain): Finding[] {
  if (chain.duplicates !== 'drop' || readIntegrity(mesh, chain) !== 'off') return [];
  const message = `chain ${quote(name)} drops duplicates, and they are told by their tags: it needs "integrity: verify" or "require"`;
  return [{ pointer: makePointer('chains', name, 'duplicates'), code: 'DUPLICATES_UNTOLD', message }];
}

/** Whether chains fit into an IPv4 header, after all that could be cut was cut. */
export function checkBudgets(mesh: Mesh): Finding[] {
  return Object.entries(mesh.chains).flatMap(([name, chain]) =>
    checkBudget(name, chain, readIntegrity(mesh, chain) !== 'off'),
  );
}

function checkBudget(name: string, { hops, record = 0 }: MeshChain, tagged: boolean): Finding[] {
  const route = ROUTE_HEAD_BYTES + ADDRESS_BYTES * hops.length;
  const recordRoute = record > 0 ? ROUTE_HEAD_BYTES + ADDRESS_BYTES * record : 0;
  const tag = tagged ? TAG_BYTES : 0;
  const bytes = tag + route + recordRoute;
  if (bytes <= OPTION_BYTES_MAX) return [];
  const parts = [
    tagged ? `${tag} for integrity` : null,
    `${route} for the source route`,
    record > 0 ? `${recordRoute} for Record Route` : null,
  ].filter((part) => part !== null);
  const sum = parts.length > 1 ? ` (${parts.join(', ')})` : '';
  const heads = ROUTE_HEAD_BYTES * (record > 0 ? 2 : 1);
  const most = Math.floor((OPTION_BYTES_MAX - tag - heads) / ADDRESS_BYTES);
  const limit =
    record > 0
      ? `hops and record together can be ${most}, here they are ${hops.length} + ${record}`
      : `there is room for ${most} hops, here are ${hops.length}`;
  const uncut = hops.length > 1 ? ', and no segment can end at a function of the stack' : '';
  const message = `chain ${quote(name)} needs ${bytes} option bytes${sum}, and IPv4 has ${OPTION_BYTES_MAX}: ${limit}${uncut}`;
  return [{ pointer: makePointer('chains', name, 'hops'), code: 'CHAIN_TOO_LONG', message }];
}

function checkNumbers(chains: readonly RenderedChain[]): Finding[] {
  const tagged = chains.filter(({ path }) => path.binding !== 'none');
  if (tagged.every(({ number }) => number > 0)) return [];
  const most = enums.lsr_limits.LSR_CHAIN_MAX;
  const message = `${tagged.length} chains have integrity, and the option has numbers for ${most}`;
  return [{ pointer: makePointer('chains'), code: 'CHAINS_TOO_MANY', message, part: 'key' }];
}

function checkIds(chains: readonly RenderedChain[]): Finding[] {
  const names = new Map<number, string>();
  const paths = new Map<number, { name: string; text: string }>();
  return chains.flatMap((chain): Finding[] => {
    const { name, id } = chain;
    const at = { pointer: makePointer('chains', name), code: 'ID_COLLISION', part: 'key' } as const;
    const sameId = names.get(id);
    names.set(id, name);
    if (sameId !== undefined) {
      const message = `the chain names ${quote(sameId)} and ${quote(name)} have the same number in the data path (${id}); rename one`;
      return [{ ...at, message }];
    }
    for (const path of pathsOf(chain)) {
      const text = describePath(path);
      const same = paths.get(path.id);
      paths.set(path.id, { name, text });
      if (!same || same.text === text) continue;
      const message = `the paths of chains ${quote(same.name)} and ${quote(name)} have the same number in the data path (${path.id}); change "record" of one`;
      return [{ ...at, message }];
    }
    return [];
  });
}

/** A hop knows by the source route what to do with a packet. */
function checkRoutes(chains: readonly RenderedChain[]): Finding[] {
  const first = new Map<string, { name: string; path: RenderedPath }>();
  return chains.flatMap((chain) =>
    pathsOf(chain).flatMap((path): Finding[] => {
      const key = `${describeRoute(path)} ${path.binding === 'none' ? 'untagged' : 'tagged'}`;
      const other = first.get(key);
      if (!other) first.set(key, { name: chain.name, path });
      if (!other || other.path.id === path.id) return [];
      const message =
        `chains ${quote(other.name)} and ${quote(chain.name)} look the same on the wire, with the same hops, mode and record, but ` +
        'differ in their functions, binding or duplicates: hops could not tell what to do. Change "record" of one';
      return [
        {
          pointer: makePointer('chains', chain.name),
          code: 'CHAINS_INDISTINGUISHABLE',
          message,
          part: 'key',
        },
      ];
    }),
  );
}

function groupByPath(chains: readonly RenderedChain[]): RenderedChain[][] {
  const groups = new Map<number, RenderedChain[]>();
  for (const chain of chains) {
    for (const { id, binding } of pathsOf(chain)) {
      if (binding !== 'none') continue; // told apart by the number in the integrity option
      const group = groups.get(id);
      if (group) group.push(chain);
      else groups.set(id, [chain]);
    }
  }
  return [...groups.values()].filter((group) => group.length > 1);
}

/** Chains on one path without a tag: the destination is all that tells them apart on the wire. */
function checkDestinations(chains: readonly RenderedChain[]): Finding[] {
  const placed = chains.flatMap(({ name, destinations }, order) =>
    destinations.map((prefix) => ({ name, order, prefix })),
  );
  const findings = new Map<string, Finding>();
  for (const { item, others } of findOverlaps(placed)) {
    const other = others.find(({ name }) => name !== item.name);
    if (!other) continue;
    const [first, second] = item.order < other.order ? [item, other] : [other, item];
    const message =
      `chains ${quote(first.name)} and ${quote(second.name)} have the same hops, mode and record, and both lead to ` +
      `${formatPrefix(item.prefix)}: on the wire they could not be told apart. Use one chain, change hops or record of one, or give them "integrity: require"`;
    const pointer = makePointer('chains', second.name);
    if (!findings.has(pointer))
      findings.set(pointer, { pointer, code: 'CHAINS_INDISTINGUISHABLE', message, part: 'key' });
  }
  return [...findings.values()];
}
