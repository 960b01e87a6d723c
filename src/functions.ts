import { parseAddress } from './address.js';
import { encode, encodeIndex, type Struct } from './codec.js';
import { type Entry, type Host, makeTable, type Table } from './entries.js';
import { quote } from './finding.js';
import { enums } from './layout.js';
import { type FunctionKind, type Mesh, type MeshService, runsOn } from './mesh.js';
import { hashText, isServed } from './path.js';
import type { PortRole } from './role.js';

/** The functions of this host's services, by number; `mesh` has those of ways back too. A device that is not there, or has another role, is 0: packets for it are dropped. */
export function functionTable(mesh: Mesh, host: Host): Table {
  return makeTable(
    listFunctions(mesh, host.node).map(
      ([name, service]): Entry => [
        encodeIndex(functionNumber(name)),
        encode('lsr_function', { ...describeFunction(service, host), unwell: host.unwell.has(name) ? 1 : 0 }),
      ],
    ),
  );
}

/** A service of this node whose function gets packets here, and what keeps them from it. */
export interface FunctionView {
  service: string;
  function: FunctionKind;
  error?: string;
  /** What to do about it. */
  advice?: string;
}

interface Named {
  name: string;
  role: PortRole;
}

/** The functions of a node, and what agent.yaml or this host lacks for them. */
export function describeFunctions(
  mesh: Mesh,
  node: string,
  configured: readonly Named[],
  present: readonly string[],
  unwell: ReadonlyMap<string, string> = new Map(),
): FunctionView[] {
  return listFunctions(mesh, node).map(([name, service]) => {
    const view = { service: name, function: service.function };
    const role = roleOf(service);
    const failure = unwell.get(name);
    if (failure !== undefined) {
      const error = `service ${quote(name)} fails its check: ${failure}`;
      return {
        ...view,
        error,
        advice: 'edges send flows to other hosts of the service until it answers again',
      };
    }
    for (const word of ['device', 'returnDevice'] as const) {
      const device = service[word];
      if (device === undefined) continue;
      const port = configured.find((candidate) => candidate.name === device);
      const error = `service ${quote(name)} has the ${word} ${quote(device)}`;
      if (port?.role !== role) {
        const found = port ? `is ${quote(port.role)} in agent.yaml` : 'is not in agent.yaml';
        const advice = `write "${device}: ${role}" under "interfaces" in agent.yaml and restart the agent`;
        return { ...view, error: `${error}, which ${found}: ${losses[role]}`, advice };
      }
      if (!present.includes(device)) {
        const advice = `make that interface, or correct "${word}" of the service`;
        return { ...view, error: `${error}, which this host has not: ${losses[role]}`, advice };
      }
    }
    return view;
  });
}

const losses = { function: 'its packets are dropped', tap: 'it gets no copies' } as const;
const roleOf = (service: MeshService): keyof typeof losses =>
  service.function === 'tap' ? 'tap' : 'function';

const listFunctions = (mesh: Mesh, node: string): [string, MeshService][] =>
  Object.entries(mesh.services ?? {}).filter(
    ([name, service]) => isServed(service) && runsOn(mesh, name, node),
  );

/** The same on every host. Never 0, which is none. */
export const functionNumber = (service: string | null): number => (service === null ? 0 : hashText(service));

const kinds: Record<FunctionKind, number> = {
  stack: enums.lsr_function_kind.LSR_FUNCTION_STACK,
  inline: enums.lsr_function_kind.LSR_FUNCTION_INLINE,
  tap: enums.lsr_function_kind.LSR_FUNCTION_TAP,
  transit: enums.lsr_function_kind.LSR_FUNCTION_TRANSIT,
  terminate: enums.lsr_function_kind.LSR_FUNCTION_TRANSIT,
};

function describeFunction(service: MeshService, { ports }: Host): Partial<Struct<'lsr_function'>> {
  const { function: kind, device, returnDevice = device, via, snap = 0, sample = 1 } = service;
  const role = roleOf(service);
  const find = (wanted: string | undefined) =>
    ports.find((port) => port.name === wanted && port.role === role);
  const out = find(device);
  const back = kind === 'inline' ? find(returnDevice) : undefined;
  return {
    kind: kinds[kind],
    device: device === undefined ? 0 : (out?.index ?? absent),
    returnDevice: kind === 'inline' ? (back?.index ?? absent) : 0,
    via: parseAddress(via ?? '') ?? 0,
    snap,
    sample,
    plain: service.options === 'stripped' ? 1 : 0,
    macs: Buffer.concat([back?.mac ?? noMac, out?.mac ?? noMac]),
  };
}

/** No ifindex. */
const absent = 0xffffffff;
const noMac = Buffer.alloc(6);
