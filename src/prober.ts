import { createSocket, type Socket } from 'node:dgram';
import { type Address, formatAddress } from './address.js';
import { type Health, type HealthRule, newHealth, observeProbe } from './health.js';
import { enums } from './layout.js';
import { decodeProbe, encodeProbe, makeNonce } from './probe.js';

const { LSR_PROBE_PORT } = enums.lsr_limits;

/** Probes that an agent sends in a second, at most: with more paths, each has its turn less often. */
export const probesPerSecond = 2000;

export interface ProbedPath {
  id: number;
  /** Of its last node. */
  end: Address;
}

interface Watched extends ProbedPath {
  health: Health;
  /** Number of the probe that is on its way, or was answered. */
  number: number;
  answered: boolean;
}

/**
 * Sends probes down paths and tells which are down. The programs send such a datagram down its path, and the one at
 * the end turns it round (bpf/probe.h): legs, functions and the way back to this node are in it, other agents are not.
 */
export class Prober {
  readonly #onChange: (down: ReadonlySet<number>) => void;
  readonly #nonce = makeNonce();
  #paths = new Map<number, Watched>();
  #rule: HealthRule | null = null;
  #socket: Socket | null = null;
  #timer: NodeJS.Timeout | null = null;
  #ticked = 0;
  #number = 0;

  constructor(onChange: (down: ReadonlySet<number>) => void) {
    this.#onChange = onChange;
  }

  get watched(): ReadonlySet<number> {
    return new Set(this.#paths.keys());
  }

  /** Ids of paths that are down. */
  get down(): ReadonlySet<number> {
    return new Set([...this.#paths.values()].filter(({ health }) => !health.up).map(({ id }) => id));
  }

  /** Watches these paths from now on; what is known of those that it watched already stays. */
  follow(
    from: Address,
    paths: readonly ProbedPath[],
    rule: HealthRule,
    isDown: (id: number) => boolean,
  ): void {
    this.close();
    this.#rule = rule;
    this.#paths = new Map(
      paths.map((path): [number, Watched] => {
        const known = this.#paths.get(path.id);
        const health = known?.health ?? { ...newHealth(rule), up: !isDown(path.id) };
        return [path.id, { ...path, health, number: 0, answered: true }];
      }),
    );
    if (this.#paths.size === 0) return;
    const socket = createSocket('udp4', (message) => this.#take(message));
    socket.on('error', () => undefined); // as when the route is away: the probe is missed
    socket.bind({ address: formatAddress(from) }, () => {
      if (this.#socket === socket) this.#timer = setInterval(() => this.#tick(), this.#interval()).unref();
    });
    socket.unref();
    this.#socket = socket;
  }

  close(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#socket?.close();
    this.#timer = this.#socket = null;
    this.#ticked = 0;
  }

  #interval(): number {
    return Math.max(this.#rule?.interval ?? 0, (this.#paths.size * 1000) / probesPerSecond);
  }

  #tick(): void {
    const now = performance.now();
    // After a pause of this process answers may be waiting to be read: that says nothing about the network.
    const onTime = now - this.#ticked < 1.5 * this.#interval();
    this.#ticked = now;
    const judged = onTime ? [...this.#paths.values()].filter(({ answered }) => !answered) : [];
    const changed = judged.filter((path) => this.#observe(path, false));
    for (const path of this.#paths.values()) this.#send(path);
    if (changed.length > 0) this.#onChange(this.down);
  }

  #send(path: Watched): void {
    path.number = this.#number = (this.#number + 1) >>> 0;
    path.answered = false;
    const probe = encodeProbe({ path: path.id, nonce: this.#nonce, number: path.number });
    this.#socket?.send(probe, LSR_PROBE_PORT, formatAddress(path.end), () => undefined);
  }

  #take(message: Buffer): void {
    const probe = decodeProbe(message, this.#nonce);
    const path = probe && this.#paths.get(probe.path);
    if (!path || path.number !== probe.number || path.answered) return;
    path.answered = true;
    if (this.#observe(path, true)) this.#onChange(this.down);
  }

  /** Whether the path has changed its state. */
  #observe(path: Watched, answered: boolean): boolean {
    const before = path.health.up;
    if (this.#rule) path.health = observeProbe(path.health, answered, this.#rule, performance.now());
    return path.health.up !== before;
  }
}
