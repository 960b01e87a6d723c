import { maskAddress } from './address.js';
import { cgroupNumber, isWithin } from './cgroups.js';
import { encode, encodeIndex, type Struct } from './codec.js';
import type { Table } from './entries.js';
import { LsrError } from './errors.js';
import { enums } from './layout.js';
import {
  type PortRange,
  parsePorts,
  protocolNumber,
  readRulePrefix,
  ruleOrigins,
  rulePriority,
} from './match.js';
import type { Mesh } from './mesh.js';

type Rule = Mesh['rules'][number];
type Fields = Struct<'lsr_fields'>;

const { LSR_TUPLES_MAX } = enums.lsr_limits;
const { LSR_ORIGIN_FRAGMENT } = enums.lsr_origin;

interface Candidate {
  mask: Fields;
  fields: Fields;
  rule: Rule;
}

/** Rules as a tuple space: the distinct masks by their best priority, and the masked fields of each rule. */
export function renderRules(
  rules: readonly Rule[],
  chainIds: ReadonlyMap<string, number>,
  set: 0 | 1,
): { rules: Table; tuples: Table } {
  const cgroups = [...new Set(rules.flatMap(({ match }) => match.cgroup ?? []))];
  const groups = groupByMask(rules.flatMap((rule) => expandRule(rule, cgroups)));
  if (groups.length > LSR_TUPLES_MAX) {
    throw new LsrError(
      'CAPACITY',
      `the rules of this node look at ${groups.length} different combinations of fields and prefix lengths; at most ${LSR_TUPLES_MAX} fit. ` +
        'Use fewer prefix lengths, and port ranges that begin and end at powers of two.',
    );
  }
  const tuples: Table = new Map();
  const entries: Table = new Map();
  const best = new Map<string, number>();
  groups.forEach((group, index) => {
    const id = { tuple: set * LSR_TUPLES_MAX + index };
    const mask = { ...group.mask, ...id };
    const key = encodeIndex(id.tuple);
    tuples.set(key.toString('latin1'), encode('lsr_tuple', { mask, priority: group.priority }));
    for (const { fields, rule } of group.candidates) {
      const priority = rulePriority(rule);
      const at = encode('lsr_fields', { ...fields, ...id }).toString('latin1');
      if ((best.get(at) ?? Number.POSITIVE_INFINITY) <= priority) continue; // a rule before it holds
      best.set(at, priority);
      entries.set(at, encode('lsr_rule', { priority, chain: chainIds.get(rule.chain) ?? 0 }));
    }
  });
  return { rules: entries, tuples };
}

const origins = {
  edge: enums.lsr_origin.LSR_ORIGIN_EDGE,
  local: enums.lsr_origin.LSR_ORIGIN_LOCAL,
  mesh: enums.lsr_origin.LSR_ORIGIN_MESH,
  function: enums.lsr_origin.LSR_ORIGIN_FUNCTION,
} as const;

interface Group {
  mask: Fields;
  priority: number;
  candidates: Candidate[];
}

function groupByMask(candidates: readonly Candidate[]): Group[] {
  const groups = new Map<string, Group>();
  for (const candidate of candidates) {
    const key = encode('lsr_fields', candidate.mask).toString('latin1');
    const group = groups.get(key) ?? { mask: candidate.mask, priority: 0xffffffff, candidates: [] };
    group.priority = Math.min(group.priority, rulePriority(candidate.rule));
    group.candidates.push(candidate);
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => a.priority - b.priority);
}

/**
 * A fragment has no ports, so that it takes the way of the rules that its address and protocol match: a rule with
 * ports is there once more without them, for fragments only.
 */
function expandRule(rule: Rule, cgroups: readonly string[]): Candidate[] {
  const { sourcePorts, destinationPorts, ...match } = rule.match;
  if (!sourcePorts && !destinationPorts) return expandMatch(rule, 'any', cgroups);
  return [...expandMatch(rule, 'whole', cgroups), ...expandMatch({ ...rule, match }, 'fragment', cgroups)];
}

/** How `origin` is looked at, for packets that a match is about. */
const wholeness = {
  any: { bit: 0, mask: 0xff & ~LSR_ORIGIN_FRAGMENT },
  whole: { bit: 0, mask: 0xff },
  fragment: { bit: LSR_ORIGIN_FRAGMENT, mask: 0xff },
} as const;

/** One candidate for each combination of origin, source port block and destination port block. */
function expandMatch(rule: Rule, about: keyof typeof wholeness, cgroups: readonly string[]): Candidate[] {
  const { match } = rule;
  const { bit, mask } = wholeness[about];
  const columns: Record<Exclude<keyof Fields, 'tuple'>, Masked[]> = {
    origin: ruleOrigins(rule).map((origin) => ({ value: origins[origin] | bit, mask })),
    source: [maskPrefix(match.source)],
    destination: [maskPrefix(match.destination)],
    sourcePort: maskPorts(match.sourcePorts),
    destinationPort: maskPorts(match.destinationPorts),
    protocol: [maskExact(match.protocol === undefined ? undefined : protocolNumber(match.protocol), 0xff)],
    dscp: [maskExact(match.dscp, 0xff)],
    mark: [maskExact(match.mark, 0xffffffff)],
    cgroup: maskCgroups(match.cgroup, cgroups),
  };
  const start: Candidate[] = [{ rule, mask: noFields, fields: noFields }];
  return Object.entries(columns).reduce(
    (candidates, [name, choices]) =>
      candidates.flatMap(({ mask, fields }) =>
        choices.map((choice) => ({
          rule,
          mask: { ...mask, [name]: choice.mask },
          fields: { ...fields, [name]: choice.value },
        })),
      ),
    start,
  );
}

/** A mask of 0 means "not looked at". */
interface Masked {
  value: number;
  mask: number;
}

const anything: Masked = { value: 0, mask: 0 };

const noFields: Fields = {
  source: 0,
  destination: 0,
  sourcePort: 0,
  destinationPort: 0,
  mark: 0,
  cgroup: 0,
  protocol: 0,
  dscp: 0,
  origin: 0,
  tuple: 0,
};

const maskExact = (value: number | undefined, mask: number): Masked =>
  value === undefined ? anything : { value, mask };

/** A socket is known by the innermost of all cgroups that rules name, which may be within the one of this rule. */
function maskCgroups(wanted: string | undefined, cgroups: readonly string[]): Masked[] {
  if (wanted === undefined) return [anything];
  const within = cgroups.filter((cgroup) => isWithin(cgroup, wanted));
  return within.map((cgroup) => ({ value: cgroupNumber(cgroup), mask: 0xffffffff }));
}

function maskPrefix(text: string | undefined): Masked {
  const { address, length } = readRulePrefix(text);
  return { value: address, mask: maskAddress(0xffffffff, length) };
}

function maskPorts(ports: Rule['match']['sourcePorts']): Masked[] {
  if (ports === undefined) return [anything];
  return parsePorts(ports).flatMap(splitRange);
}

/** A port range as the fewest aligned blocks of a power of two. */
function splitRange({ first, last }: PortRange): Masked[] {
  const blocks: Masked[] = [];
  let at = first;
  while (at <= last) {
    let size = at === 0 ? 0x8000 : at & -at;
    while (at + size - 1 > last) size /= 2;
    blocks.push({ value: at, mask: 0x10000 - size });
    at += size;
  }
  return blocks;
}
