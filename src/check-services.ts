import { isUnicast, parseAddress } from './address.js';
import { type Finding, makePointer, quote, suggest } from './finding.js';
import { type FunctionKind, lookUp, type Mesh, type MeshService } from './mesh.js';

/** Whether services run on nodes, and say of their function what its kind needs. */
export function checkServices(mesh: Mesh): Finding[] {
  return Object.entries(mesh.services ?? {}).flatMap(([name, service]) => [
    ...checkName(mesh, name),
    ...checkNodes(mesh, name, service),
    ...checkAlternate(mesh, name, service),
    ...checkWords(name, service),
    ...checkWay(name, service),
  ]);
}

function checkName(mesh: Mesh, name: string): Finding[] {
  if (!lookUp(mesh.nodes, name)) return [];
  const message = `service ${quote(name)} has the name of a node; a hop ${quote(name)} could mean either, so rename one`;
  return [{ pointer: makePointer('services', name), code: 'NAME_AMBIGUOUS', message, part: 'key' }];
}

function checkNodes(mesh: Mesh, name: string, service: MeshService): Finding[] {
  const first = new Set<string>();
  return service.nodes.flatMap((entry, index): Finding[] => {
    const node = typeof entry === 'string' ? entry : entry.node;
    const place = typeof entry === 'string' ? [] : ['node'];
    const pointer = makePointer('services', name, 'nodes', index, ...place);
    if (!lookUp(mesh.nodes, node)) {
      const message = `service ${quote(name)} runs on ${quote(node)}, which is no node${suggest(node, Object.keys(mesh.nodes))}`;
      return [{ pointer, code: 'NODE_UNKNOWN', message }];
    }
    if (first.has(node)) {
      const message = `service ${quote(name)} names node ${quote(node)} twice; give it a larger "weight" instead`;
      return [{ pointer, code: 'REPLICA_DUPLICATE', message }];
    }
    first.add(node);
    return [];
  });
}

function checkAlternate(mesh: Mesh, name: string, { unavailable, alternate }: MeshService): Finding[] {
  const at = (message: string, ...words: string[]): Finding[] => [
    { pointer: makePointer('services', name, ...words), code: 'ALTERNATE', message },
  ];
  if (alternate === undefined) {
    if (unavailable !== 'alternate') return [];
    return at(`service ${quote(name)} needs "alternate": the service to take instead`, 'unavailable');
  }
  if (unavailable !== 'alternate')
    return at(`service ${quote(name)} has an alternate; say "unavailable: alternate" to use it`, 'alternate');
  const other = lookUp(mesh.services, alternate);
  if (other && alternate !== name) return [];
  const why = other ? 'is itself' : `is no service${suggest(alternate, Object.keys(mesh.services ?? {}))}`;
  return at(`the alternate of service ${quote(name)} is ${quote(alternate)}, which ${why}`, 'alternate');
}

/** The kinds of function that each word is for. */
const wordsFor = {
  device: ['inline', 'tap'],
  returnDevice: ['inline'],
  via: ['inline'],
  returnVia: ['inline'],
  options: ['inline'],
  snap: ['tap'],
  sample: ['tap'],
} as const satisfies Partial<Record<keyof MeshService, readonly FunctionKind[]>>;

function checkWords(name: string, service: MeshService): Finding[] {
  const kind = service.function;
  const findings = Object.entries(wordsFor).flatMap(([word, kinds]): Finding[] => {
    if (service[word as keyof typeof wordsFor] === undefined || kinds.some((other) => other === kind))
      return [];
    const message = `${word} is for ${kinds.join(' and ')}; service ${quote(name)} is ${quote(kind)}`;
    return [{ pointer: makePointer('services', name, word), code: 'FUNCTION_WORD', message, part: 'key' }];
  });
  if (service.device === undefined && wordsFor.device.some((needing) => needing === kind)) {
    const message = `service ${quote(name)} is ${quote(kind)} and needs "device": the interface that leads to its function`;
    findings.push({ pointer: makePointer('services', name), code: 'FUNCTION_WORD', message, part: 'key' });
  }
  return findings;
}

/** How packets get into an inline function: to its address, or through it as through a cable. */
function checkWay(
  name: string,
  { function: kind, device, returnDevice, via, returnVia }: MeshService,
): Finding[] {
  if (kind !== 'inline' || device === undefined) return [];
  for (const [word, text] of Object.entries({ via, returnVia })) {
    const address = text === undefined ? 0 : parseAddress(text);
    if (text === undefined || (address !== null && isUnicast(address))) continue;
    const message = `${word} ${quote(text)} is no IPv4 address of a host`;
    return [{ pointer: makePointer('services', name, word), code: 'ADDRESS_INVALID', message }];
  }
  if (via === undefined && (returnDevice ?? device) === device) {
    const message =
      `service ${quote(name)} has one device and no "via": a function behind one device is a router, so give its address there; ` +
      'a bump in the wire needs a returnDevice of its own';
    return [{ pointer: makePointer('services', name, 'device'), code: 'FUNCTION_WORD', message }];
  }
  return [];
}
