import { enums } from './layout.js';
import type { PortRole } from './role.js';

/** What becomes of a packet that carries IPv4 options and no chain; of several the strictest holds. */
export type OptionPolicy = 'pass' | 'strip' | 'drop';
export type OptionClass = keyof typeof classes;
export type OptionPolicies = Record<OptionClass, OptionPolicy>;

/** As agent.yaml gives them: one for all, or some of them. */
export type OptionPolicyConfig = OptionPolicy | Partial<Record<OptionClass | 'default', OptionPolicy>>;

const { lsr_option_class: kernel, lsr_option_policy } = enums;
const classes = {
  sourceRoute: kernel.LSR_CLASS_SOURCE_ROUTE,
  recordRoute: kernel.LSR_CLASS_RECORD_ROUTE,
  timestamp: kernel.LSR_CLASS_TIMESTAMP,
  routerAlert: kernel.LSR_CLASS_ROUTER_ALERT,
  security: kernel.LSR_CLASS_SECURITY,
  streamId: kernel.LSR_CLASS_STREAM_ID,
  other: kernel.LSR_CLASS_OTHER,
} as const;
const bits = {
  pass: lsr_option_policy.LSR_POLICY_PASS,
  strip: lsr_option_policy.LSR_POLICY_STRIP,
  drop: lsr_option_policy.LSR_POLICY_DROP,
} as const;

export const optionClasses = Object.keys(classes) as OptionClass[];
export const optionPolicies = Object.keys(bits) as OptionPolicy[];

/** On a mesh port what RFC 7126 §4.5 and §4.10 want dropped is not let in, on others nothing. */
const defaults = {
  edge: { default: 'drop' },
  mesh: { default: 'pass', sourceRoute: 'drop', timestamp: 'drop', streamId: 'drop' },
  function: { default: 'drop' },
  tap: { default: 'drop' },
} as const satisfies Record<PortRole, OptionPolicyConfig>;

/** What a port does, with all defaults filled in. */
export function fillPolicies(role: PortRole, config: OptionPolicyConfig = {}): OptionPolicies {
  const given = typeof config === 'string' ? { default: config } : config;
  const wanted: Partial<Record<OptionClass | 'default', OptionPolicy>> =
    given.default === undefined ? { ...defaults[role], ...given } : given;
  const fallback = wanted.default ?? 'drop';
  const filled = Object.fromEntries(optionClasses.map((name) => [name, wanted[name] ?? fallback]));
  // A label is never stripped (RFC 7126 §4.12), and nobody but us writes source routes: `strip` and `pass` for all mean others.
  if (!wanted.security && fallback === 'strip') filled.security = 'drop';
  if (!wanted.sourceRoute && fallback === 'pass') filled.sourceRoute = 'drop';
  return filled as OptionPolicies;
}

/** Why a policy is no good for an option on a port with this role; null where it is. */
export function refusePolicy(
  role: PortRole,
  name: OptionClass | 'default',
  policy: OptionPolicy,
): string | null {
  if (role === 'function' || role === 'tap')
    return `a ${role} port lets no options in but those of its chains`;
  if (role === 'mesh' && policy === 'strip') return 'a mesh port strips nothing: pass or drop';
  if (role === 'mesh' && name === 'sourceRoute') return 'on a mesh port the table of chains decides';
  if (name === 'security' && policy === 'strip') return 'a label must not be stripped: pass or drop';
  if (name === 'sourceRoute' && policy === 'pass')
    return 'source routes are written by lsr-agent only: drop or strip';
  return null;
}

/** Two bits for each class, as struct lsr_interface has them. */
export function encodePolicies(policies: OptionPolicies): number {
  return optionClasses.reduce((word, name) => word | (bits[policies[name]] << (2 * classes[name])), 0);
}
