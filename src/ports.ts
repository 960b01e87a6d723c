import { type Address, formatAddress } from './address.js';
import type { PortConfig } from './agent-config.js';
import type { Status } from './api-schemas.js';
import type { Datapath } from './datapath.js';
import type { Fault, Link, Port } from './interfaces.js';
import { type PortChange, planPorts } from './port-plan.js';

/** The configured interfaces of this host while they come, change and go. */
export class Ports {
  readonly #configured: readonly PortConfig[];
  readonly #datapath: Datapath;
  #present: Port[] = [];
  #addresses: Address[] = [];
  #absent: Fault[] = [];
  #refused: Fault[] = [];

  constructor(configured: readonly PortConfig[], datapath: Datapath) {
    this.#configured = configured;
    this.#datapath = datapath;
  }

  /** Those that can be managed now, as they are written. */
  get present(): readonly Port[] {
    return this.#present;
  }

  /** All addresses of this host, whatever interface they are on; in order, each once. */
  get addresses(): readonly Address[] {
    return this.#addresses;
  }

  /** What keeps interfaces from being as they should. */
  get faults(): readonly Fault[] {
    return [...this.#absent, ...this.#refused];
  }

  /** Whether the last attempt left something to be done again without any further change. */
  get unsettled(): boolean {
    return this.#refused.length > 0;
  }

  /** Those that should have their programs and have not, though nothing was refused. */
  get bare(): readonly Port[] {
    const refused = new Set(this.#refused.map(({ name }) => name));
    return this.#present.filter(
      (port) => !refused.has(port.name) && this.#datapath.readAttached(port) === null,
    );
  }

  /** Writes the ports that there are now, without attaching anything; returns what is new about them. */
  write(links: readonly Link[]): PortChange[] {
    const inForce = this.#present.map((port) => ({ ...port, attached: this.#datapath.readAttached(port) }));
    const { ports, faults, changes } = planPorts(this.#configured, links, inForce);
    this.#absent = faults;
    this.#addresses = [...new Set(links.flatMap((link) => link.addresses))].sort((a, b) => a - b);
    if (changes.length === 0 && !this.unsettled) return changes;
    this.#datapath.setPorts(
      ports,
      faults.map(({ name }) => name),
    );
    this.#present = ports;
    return changes;
  }

  /** Puts the programs on the ports. */
  attach(): void {
    this.#refused = this.#datapath.attach(this.#present);
  }

  /** Remembers what kept the ports as a whole from being put in force. */
  refuse(error: string): void {
    this.#refused = this.#configured.map(({ name }) => ({ name, error }));
  }

  describe(): Status['interfaces'] {
    return this.#configured.map(({ name, role }) => {
      const port = this.#present.find((candidate) => candidate.name === name);
      const fault = this.faults.find((candidate) => candidate.name === name);
      const link = port?.link ?? fault?.link;
      const address = link?.addresses[0];
      return {
        name,
        role,
        ifindex: link?.index ?? null,
        attached: port ? this.#datapath.readAttached(port) : null,
        mtu: link?.mtu ?? null,
        address: address === undefined ? null : formatAddress(address),
        ...(fault ? { error: fault.error } : {}),
      };
    });
  }
}
