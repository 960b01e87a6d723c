import { connect } from 'node:net';
import { type Health, type HealthRule, newHealth, observeProbe } from './health.js';
import type { MeshService } from './mesh.js';

type Check = NonNullable<MeshService['check']>;

/** Three in a row decide, as for probes; an answer may take as long as the time between two. */
const rule: HealthRule = { interval: 1000, down: 3, up: 3 };

interface Watched {
  check: Check;
  health: Health;
  /** Why it failed the last time; null where it did not. */
  error: string | null;
}

/** Asks the functions of this host's services whether they are well. */
export class FunctionChecks {
  readonly #onChange: () => void;
  readonly #interval: number;
  #services = new Map<string, Watched>();
  #timer: NodeJS.Timeout | null = null;

  constructor(onChange: () => void, interval = rule.interval) {
    this.#onChange = onChange;
    this.#interval = interval;
  }

  /** Services that are unwell, and why. */
  get unwell(): ReadonlyMap<string, string> {
    const failing = [...this.#services].filter(([, { health }]) => !health.up);
    return new Map(failing.map(([name, { error }]) => [name, error ?? 'it was unwell until a moment ago']));
  }

  /** Asks these from now on; what is known of those that it asked already stays. */
  follow(checks: ReadonlyMap<string, Check>): void {
    this.close();
    const known = this.#services;
    this.#services = new Map(
      [...checks].map(([name, check]) => {
        const before = known.get(name);
        return [name, { check, health: before?.health ?? newHealth(rule), error: before?.error ?? null }];
      }),
    );
    if (checks.size === 0) return;
    this.#timer = setInterval(() => void this.#askAll(), this.#interval).unref();
  }

  close(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
  }

  async #askAll(): Promise<void> {
    const asked = [...this.#services.values()];
    const answers = await Promise.all(asked.map(({ check }) => ask(check, this.#interval)));
    const changed = asked.filter((service, i) => {
      const before = service.health.up;
      service.error = answers[i] ?? null;
      service.health = observeProbe(service.health, service.error === null, rule, performance.now());
      return service.health.up !== before;
    });
    if (changed.length > 0 && this.#timer) this.#onChange();
  }
}

/** Why a function is unwell; null where it answers. */
async function ask(check: Check, limit: number): Promise<string | null> {
  try {
    if ('tcp' in check) await connectTo(check.tcp, limit);
    else await fetchFrom(check.http, limit);
    return null;
  } catch (error) {
    const { message, cause } = error as Error;
    return cause instanceof Error ? cause.message : message;
  }
}

function connectTo(port: number, limit: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, timeout: limit });
    socket.on('connect', () => resolve());
    socket.on('timeout', () => reject(new Error(`port ${port} does not answer within ${limit} ms`)));
    socket.on('error', reject);
    for (const event of ['connect', 'timeout']) socket.on(event, () => socket.destroy());
  });
}

async function fetchFrom(url: string, limit: number): Promise<void> {
  const response = await fetch(url, { signal: AbortSignal.timeout(limit), redirect: 'manual' });
  await response.body?.cancel();
  if (response.status >= 400) throw new Error(`${url} answers ${response.status}`);
}
