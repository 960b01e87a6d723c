import type { PortConfig } from './agent-config.js';
import type { AttachedAs } from './attach.js';
import { type Fault, findFaults, findPorts, type Link, type Port } from './interfaces.js';

/** A port as it was last written, and how its programs hang there now. */
export interface PortInForce extends Port {
  attached: AttachedAs | null;
}

/** `detached`: the same interface, without its programs. */
export type PortChange =
  | { interface: string; change: 'appeared' | 'detached'; ifindex: number }
  | { interface: string; change: 'vanished'; ifindex: number }
  | { interface: string; change: 'replaced'; ifindex: number; before: number }
  | { interface: string; change: 'changed'; ifindex: number; mtu: number };

export interface PortPlan {
  /** What is to be written and attached: all that can be managed. */
  ports: Port[];
  /** The configured interfaces that are not among them. */
  faults: Fault[];
  /** Why that is not so yet; where this is empty nothing is to be done. */
  changes: PortChange[];
}

/** What follows from the links that this host has now. Pure. */
export function planPorts(
  configured: readonly PortConfig[],
  links: readonly Link[],
  inForce: readonly PortInForce[],
): PortPlan {
  const ports = findPorts(configured, links);
  const changes = configured.flatMap(({ name }) => {
    const before = inForce.find((port) => port.name === name);
    const after = ports.find((port) => port.name === name);
    return describeChange(before, after) ?? [];
  });
  return { ports, faults: findFaults(configured, links), changes };
}

function describeChange(before: PortInForce | undefined, after: Port | undefined): PortChange | null {
  if (!after) {
    return before ? { interface: before.name, change: 'vanished', ifindex: before.link.index } : null;
  }
  const { index: ifindex, mtu, addresses } = after.link;
  const about = { interface: after.name, ifindex };
  if (!before) return { ...about, change: 'appeared' };
  if (before.link.index !== ifindex) return { ...about, change: 'replaced', before: before.link.index };
  if (before.link.mtu !== mtu || String(before.link.addresses) !== String(addresses)) {
    return { ...about, change: 'changed', mtu };
  }
  return before.attached === null ? { ...about, change: 'detached' } : null;
}
