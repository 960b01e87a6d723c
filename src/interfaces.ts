import { execa } from 'execa';
import { type Address, parseAddress } from './address.js';
import type { PortConfig } from './agent-config.js';
import { ETHERNET_MTU } from './limits.js';

/** An interface of this host as `ip` shows it. */
export interface Link {
  index: number;
  name: string;
  mtu: number;
  kind: string;
  /** Hardware address, 6 bytes; of something else where `kind` is not ether. */
  mac: Uint8Array;
  /** The bridge, bond or VRF that it belongs to. */
  master: string | null;
  addresses: Address[];
}

/** Why a configured interface is not as it should be. */
export interface Fault {
  name: string;
  error: string;
  /** The interface, where it exists. */
  link?: Link;
}

/** A managed interface that exists. */
export interface Port extends PortConfig {
  link: Link;
}

export async function listLinks(): Promise<Link[]> {
  // With cleanup, a SIGTERM that comes while `ip` runs would end the daemon at once: its own listener
  // takes itself off, and execa's then believes that there is none.
  const { stdout } = await execa('ip', ['-j', 'address', 'show'], { cleanup: false });
  return (JSON.parse(stdout) as IpLink[]).map((link) => ({
    index: link.ifindex,
    name: link.ifname,
    mtu: link.mtu,
    kind: link.link_type,
    mac: Buffer.from((link.address ?? '').replaceAll(':', ''), 'hex'),
    master: link.master ?? null,
    addresses: (link.addr_info ?? []).flatMap(({ family, local }) =>
      family === 'inet' ? (parseAddress(local ?? '') ?? []) : [],
    ),
  }));
}

interface IpLink {
  ifindex: number;
  ifname: string;
  mtu: number;
  link_type: string;
  address?: string;
  master?: string;
  addr_info?: { family?: string; local?: string }[];
}

/** The configured interfaces that can be managed now, with their links. */
export function findPorts(configured: readonly PortConfig[], links: readonly Link[]): Port[] {
  return configured.flatMap((port) => {
    const link = links.find(({ name }) => name === port.name);
    return link && refuseLink(link) === null ? [{ ...port, link }] : [];
  });
}

/** The configured interfaces that cannot be managed now. */
export function findFaults(configured: readonly PortConfig[], links: readonly Link[]): Fault[] {
  return configured.flatMap(({ name }): Fault[] => {
    const link = links.find((candidate) => candidate.name === name);
    if (!link) return [{ name, error: `interface ${name} does not exist` }];
    const error = refuseLink(link);
    return error === null ? [] : [{ name, error, link }];
  });
}

/** Why a link cannot be managed; null where it can. */
function refuseLink({ name, kind, master }: Link): string | null {
  if (kind !== 'ether' && kind !== 'loopback')
    return `interface ${name} is of type ${kind}; only Ethernet interfaces can be managed`;
  // The stack knows its packets as the master's, and so would our program on their way out.
  if (master !== null)
    return `interface ${name} belongs to ${master}; manage a bridge or bond itself, a VRF cannot be managed`;
  return null;
}

/** Smallest MTU among all ports, bytes; at most Ethernet's 1500. */
export const portMtu = (ports: readonly Port[]): number =>
  Math.min(ETHERNET_MTU, ...ports.map(({ link }) => link.mtu));

/** Smallest MTU among the mesh ports, bytes; Ethernet's 1500 on a host without one. */
export function meshMtu(ports: readonly Port[]): number {
  const mesh = ports.filter(({ role }) => role === 'mesh').map(({ link }) => link.mtu);
  return mesh.length === 0 ? 1500 : Math.min(...mesh);
}
