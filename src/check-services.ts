import { isUnicast, parseAddress } from './address.js';
import { type Finding, makePointer, quote, suggest } from './finding.js';
import { type FunctionKind, lookUp, type Mesh, type MeshService } from './mesh.js';

/** Whether services run on nodes, and say of their function what its kind needs. */
export function checkServices(mesh: Mesh): Finding[] {
  return Object.entries(mesh.services ?? {}).flatMap(([name, service]) => [
    ...checkName(mesh, name),
    ...checkNodes(mesh, name, service),
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
  const findings = service.nodes.flatMap((node, index): Finding[] => {
    if (lookUp(mesh.nodes, node)) return [];
    const message = `service ${quote(name)} runs on ${quote(node)}, which is no node${suggest(node, Object.keys(mesh.nodes))}`;
    return [{ pointer: makePointer('services', name, 'nodes', index), code: 'NODE_UNKNOWN', message }];
  });
  if (service.nodes.length > 1) {
    const message = `service ${quote(name)} has ${service.nodes.length} nodes; several are not supported yet, name one`;
    findings.push({ pointer: makePointer('services', name, 'nodes'), code: 'NOT_SUPPORTED', message });
  }
  return findings;
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
