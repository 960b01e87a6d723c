import { parseAddress } from './address.js';
import { encode, encodeIndex, type Struct } from './codec.js';
import { type Entry, type Host, makeTable, type Table } from './entries.js';
import { enums } from './layout.js';
import { type FunctionKind, listReplicas, type Mesh, type MeshService } from './mesh.js';
import { hashText, isServed } from './path.js';

/** The functions of this host's services, by number; `mesh` has those of ways back too. A device that is not there, or has another role, is 0: packets for it are dropped. */
export function functionTable(mesh: Mesh, host: Host): Table {
  const own = Object.entries(mesh.services ?? {}).filter(
    ([name, service]) => isServed(service) && listReplicas(mesh, name).some(({ node }) => node === host.node),
  );
  return makeTable(
    own.map(
      ([name, service]): Entry => [
        encodeIndex(functionNumber(name)),
        encode('lsr_function', describeFunction(service, host)),
      ],
    ),
  );
}

/** The same on every host. Never 0, which is none. */
export const functionNumber = (service: string | null): number => (service === null ? 0 : hashText(service));

const kinds: Partial<Record<FunctionKind, number>> = {
  stack: enums.lsr_function_kind.LSR_FUNCTION_STACK,
  inline: enums.lsr_function_kind.LSR_FUNCTION_INLINE,
  tap: enums.lsr_function_kind.LSR_FUNCTION_TAP,
};

function describeFunction(service: MeshService, { ports }: Host): Partial<Struct<'lsr_function'>> {
  const { function: kind, device, returnDevice = device, via, snap = 0, sample = 1 } = service;
  const role = kind === 'tap' ? 'tap' : 'function';
  const find = (wanted: string | undefined) =>
    ports.find((port) => port.name === wanted && port.role === role);
  const out = find(device);
  const back = kind === 'inline' ? find(returnDevice) : undefined;
  return {
    kind: kinds[kind] ?? 0,
    device: kind === 'stack' ? 0 : (out?.index ?? absent),
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
