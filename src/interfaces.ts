import { execa } from 'execa';
import { type Address, parseAddress } from './address.js';
import type { PortConfig } from './agent-config.js';
import { LsrError } from './errors.js';

/** An interface of this host as `ip` shows it. */
export interface Link {
  index: number;
  name: string;
  mtu: number;
  kind: string;
  addresses: Address[];
}

/** A managed interface that exists. */
export interface Port extends PortConfig {
  link: Link;
}

export async function listLinks(): Promise<Link[]> {
  const { stdout } = await execa('ip', ['-j', '-4', 'address', 'show']);
  const { stdout: all } = await execa('ip', ['-j', 'link', 'show']);
  const addresses = new Map(
    (JSON.parse(stdout || '[]') as IpLink[]).map((link) => [link.ifindex, link.addr_info ?? []]),
  );
  return (JSON.parse(all) as IpLink[]).map((link) => ({
    index: link.ifindex,
    name: link.ifname,
    mtu: link.mtu,
    kind: link.link_type,
    addresses: (addresses.get(link.ifindex) ?? []).flatMap(({ local }) => parseAddress(local ?? '') ?? []),
  }));
}

interface IpLink {
  ifindex: number;
  ifname: string;
  mtu: number;
  link_type: string;
  addr_info?: { local?: string }[];
}

/** The configured interfaces with their links; all of them must be there and be Ethernet. */
export function findPorts(configured: readonly PortConfig[], links: readonly Link[]): Port[] {
  return configured.map((port) => {
    const link = links.find(({ name }) => name === port.name);
    if (!link) {
      const known = links.map(({ name }) => name).join(', ');
      throw new LsrError(
        'INTERFACE_MISSING',
        `interface ${port.name} does not exist; this host has ${known}`,
      );
    }
    if (link.kind !== 'ether' && link.kind !== 'loopback') {
      throw new LsrError(
        'INTERFACE_MISSING',
        `interface ${port.name} is of type ${link.kind}; only Ethernet interfaces can be managed`,
      );
    }
    return { ...port, link };
  });
}

/** Smallest MTU among the mesh ports, bytes; Ethernet's 1500 on a host without one. */
export function meshMtu(ports: readonly Port[]): number {
  const mesh = ports.filter(({ role }) => role === 'mesh').map(({ link }) => link.mtu);
  return mesh.length === 0 ? 1500 : Math.min(...mesh);
}
