/** When a path counts as down, and as up again. */
export interface HealthRule {
  /** Milliseconds between two probes, and the longest that an answer may take. */
  interval: number;
  /** Missed in a row until a path is down. */
  down: number;
  /** Answered in a row until it is up again. */
  up: number;
}

export const defaultHealth: HealthRule = { interval: 200, down: 3, up: 3 };

/** What is known of a path. */
export interface Health {
  up: boolean;
  /** Probes in a row that say otherwise. */
  against: number;
  /** Probes in a row that have to be answered until it is up. */
  wanted: number;
  /** When it last went down, ms; null where it never did. */
  wentDown: number | null;
}

export const newHealth = ({ up }: HealthRule): Health => ({
  up: true,
  against: 0,
  wanted: up,
  wentDown: null,
});

/** A path that was down counts as flapping for so long. */
export const calmMs = 60_000;
/** Flapping asks for at most so many times the answers in a row. */
export const dampingMax = 32;

/**
 * What one more probe says of a path, answered or not. One that goes down again soon after has to answer twice as many
 * probes each time before it is trusted.
 */
export function observeProbe(health: Health, answered: boolean, rule: HealthRule, now: number): Health {
  if (answered === health.up) return { ...health, against: 0 };
  const against = health.against + 1;
  if (health.up && against >= rule.down) {
    const flaps = health.wentDown !== null && now - health.wentDown < calmMs;
    const wanted = flaps ? Math.min(health.wanted * 2, rule.up * dampingMax) : rule.up;
    return { up: false, against: 0, wanted, wentDown: now };
  }
  if (!health.up && against >= health.wanted) return { ...health, up: true, against: 0 };
  return { ...health, against };
}
