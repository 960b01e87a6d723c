import {
  formatAddress,
  maskAddress,
  overlapPrefixes,
  type Prefix,
  parseAddress,
  parseLoosePrefix,
  parsePrefix,
} from './address.js';
import { isWithin } from './cgroups.js';
import { listNodes } from './derive.js';
import { type Finding, makePointer, quote, suggest } from './finding.js';
import {
  hasPorts,
  type PortRange,
  parsePorts,
  protocolNumber,
  readRulePrefix,
  ruleOrigins,
  rulePriority,
} from './match.js';
import { lookUp, type Mesh, type MeshRule, onMissing } from './mesh.js';
import { findOverlaps } from './overlap.js';

/** Whether rules name what exists, and look at what packets have. */
export function checkRules(mesh: Mesh): Finding[] {
  const findings = mesh.rules.flatMap((rule, index) => [
    ...checkNames(mesh, rule, index),
    ...(['source', 'destination'] as const).flatMap((field) => checkPrefix(rule, index, field)),
    ...(['sourcePorts', 'destinationPorts'] as const).flatMap((field) => checkPorts(rule, index, field)),
    ...checkCgroup(mesh, rule, index),
  ]);
  return [...checkDuplicates(mesh.rules), ...findings];
}

function checkDuplicates(rules: readonly MeshRule[]): Finding[] {
  const first = new Map<string, number>();
  return rules.flatMap(({ name }, index): Finding[] => {
    const before = first.get(name);
    if (before === undefined) {
      first.set(name, index);
      return [];
    }
    const message = `rule name ${quote(name)} stands twice, first for rule ${before + 1} of the list; each rule needs its own`;
    return [{ pointer: makePointer('rules', index, 'name'), code: 'RULE_DUPLICATE', message }];
  });
}

function checkNames(mesh: Mesh, rule: MeshRule, index: number): Finding[] {
  const findings: Finding[] = [];
  const chain = lookUp(mesh.chains, rule.chain);
  const first = chain ? listFirstNodes(mesh, chain.hops) : [];
  rule.at.forEach((node, place) => {
    const pointer = makePointer('rules', index, 'at', place);
    if (!lookUp(mesh.nodes, node)) {
      const message = `rule ${quote(rule.name)} is at ${quote(node)}, which is no node${suggest(node, Object.keys(mesh.nodes))}`;
      findings.push({ pointer, code: 'NODE_UNKNOWN', message });
    } else if (first.includes(node)) {
      const message = `rule ${quote(rule.name)} is at ${quote(node)}, which is also the first hop of chain ${quote(rule.chain)}: a node cannot send to itself. Leave it out of the hops`;
      findings.push({ pointer, code: 'FIRST_HOP_IS_EDGE', message });
    }
  });
  if (!chain) {
    const message = `rule ${quote(rule.name)} leads to ${quote(rule.chain)}, which is no chain${suggest(rule.chain, Object.keys(mesh.chains))}`;
    findings.push({ pointer: makePointer('rules', index, 'chain'), code: 'CHAIN_UNKNOWN', message });
  }
  return findings;
}

/** The nodes that may be the first to get a chain's packets. */
function listFirstNodes(mesh: Mesh, [hop, ...others]: readonly string[]): string[] {
  if (hop === undefined) return [];
  const further = lookUp(mesh.services, hop)?.unavailable === 'skip' ? listFirstNodes(mesh, others) : [];
  return [...listNodes(mesh, hop), ...further];
}

function checkPrefix(rule: MeshRule, index: number, field: 'source' | 'destination'): Finding[] {
  const text = rule.match[field];
  if (text === undefined || parsePrefix(text)) return [];
  const loose = parseLoosePrefix(text);
  const right = loose
    ? `it has host bits; write ${formatAddress(maskAddress(loose.address, loose.length))}/${loose.length} or ${formatAddress(loose.address)}`
    : `write one like 10.9.0.0/24${parseAddress(text.split('/')[0] ?? '') === null ? '' : ', with a length from 0 to 32'}`;
  const message = `${field} ${quote(text)} is no IPv4 prefix: ${right}`;
  return [{ pointer: makePointer('rules', index, 'match', field), code: 'PREFIX_INVALID', message }];
}

function checkPorts(rule: MeshRule, index: number, field: 'sourcePorts' | 'destinationPorts'): Finding[] {
  const { [field]: ports, protocol } = rule.match;
  if (ports === undefined) return [];
  const pointer = makePointer('rules', index, 'match', field);
  const findings = ports.flatMap((port, place): Finding[] => {
    const reason = typeof port === 'string' ? explainRange(port) : null;
    if (reason === null) return [];
    const message = `${quote(port)} is no port range: ${reason}`;
    return [{ pointer: makePointer('rules', index, 'match', field, place), code: 'PORTS_INVALID', message }];
  });
  if (protocol === undefined || !hasPorts(protocolNumber(protocol))) {
    const found = protocol === undefined ? 'no protocol is given' : `${protocol} has none`;
    const message = `${field} need "protocol: tcp", udp or sctp; ${found}`;
    findings.push({ pointer, code: 'PORTS_WITHOUT_PROTOCOL', message, part: 'key' });
  }
  return findings;
}

function checkCgroup(mesh: Mesh, rule: MeshRule, index: number): Finding[] {
  if (rule.match.cgroup === undefined) return [];
  const findings: Finding[] = [];
  const others = ruleOrigins(rule).filter((origin) => origin !== 'local');
  if (others.length > 0) {
    const message = `rule ${quote(rule.name)} looks at cgroups, which packets from ${others.join(', ')} have none of; write "from: [local]", or nothing`;
    findings.push({ pointer: makePointer('rules', index, 'from'), code: 'CGROUP_NOT_LOCAL', message });
  }
  const chain = lookUp(mesh.chains, rule.chain);
  if (chain && onMissing(chain) === 'drop') {
    const message = `rule ${quote(rule.name)} looks at cgroups, but chain ${quote(rule.chain)} has "onMissing: drop": the backstop cannot follow cgroups that are made anew. Choose by mark or source, or write "onMissing: bypass"`;
    findings.push({
      pointer: makePointer('rules', index, 'match', 'cgroup'),
      code: 'CGROUP_UNGUARDED',
      message,
    });
  }
  return findings;
}

function explainRange(text: string): string | null {
  const [from, to] = text.split('-');
  if (Number(from) > 65535 || Number(to) > 65535) return 'ports end at 65535';
  return Number(from) > Number(to) ? `it runs backwards; write "${to}-${from}"` : null;
}

interface Space {
  rule: MeshRule;
  index: number;
  prefix: Prefix;
  source: Prefix;
  protocol: number | undefined;
  sourcePorts: PortRange[] | undefined;
  destinationPorts: PortRange[] | undefined;
}

/** Whether rules leave a packet undecided between two. */
export function checkOverlaps(rules: readonly MeshRule[]): Finding[] {
  const groups = new Map<number, Space[]>();
  rules.forEach((rule, index) => {
    const group = groups.get(rulePriority(rule));
    const space = readSpace(rule, index);
    if (group) group.push(space);
    else groups.set(rulePriority(rule), [space]);
  });
  return [...groups.values()].flatMap(checkGroup);
}

function checkGroup(spaces: readonly Space[]): Finding[] {
  const findings: Finding[] = [];
  for (const { item, others } of findOverlaps(spaces)) {
    const other = others.find((candidate) => overlap(item, candidate));
    if (!other) continue;
    const [first, second] = item.index < other.index ? [item.rule, other.rule] : [other.rule, item.rule];
    const message =
      `rules ${quote(first.name)} and ${quote(second.name)} can match the same packet with the same priority ` +
      `${rulePriority(first)}; give the one that should win a lower number`;
    const pointer = makePointer('rules', Math.max(item.index, other.index));
    findings.push({ pointer, code: 'RULES_OVERLAP', message });
  }
  return findings;
}

function readSpace(rule: MeshRule, index: number): Space {
  const { source, destination, protocol, sourcePorts, destinationPorts } = rule.match;
  return {
    rule,
    index,
    prefix: readRulePrefix(destination),
    source: readRulePrefix(source),
    protocol: protocol === undefined ? undefined : protocolNumber(protocol),
    sourcePorts: sourcePorts && parsePorts(sourcePorts),
    destinationPorts: destinationPorts && parsePorts(destinationPorts),
  };
}

/** Whether two rules, whose destinations overlap, hold for a packet in common. */
function overlap(a: Space, b: Space): boolean {
  return (
    overlapPrefixes(a.source, b.source) &&
    agree(a.protocol, b.protocol) &&
    agree(a.rule.match.dscp, b.rule.match.dscp) &&
    agree(a.rule.match.mark, b.rule.match.mark) &&
    agreeCgroups(a.rule.match.cgroup, b.rule.match.cgroup) &&
    overlapPorts(a.destinationPorts, b.destinationPorts) &&
    overlapPorts(a.sourcePorts, b.sourcePorts) &&
    a.rule.at.some((node) => b.rule.at.includes(node)) &&
    ruleOrigins(a.rule).some((origin) => ruleOrigins(b.rule).includes(origin))
  );
}

const agree = (a: number | undefined, b: number | undefined): boolean =>
  a === undefined || b === undefined || a === b;

const agreeCgroups = (a: string | undefined, b: string | undefined): boolean =>
  a === undefined || b === undefined || isWithin(a, b) || isWithin(b, a);

function overlapPorts(a: PortRange[] | undefined, b: PortRange[] | undefined): boolean {
  if (!a || !b) return true;
  return a.some((one) => b.some((other) => one.first <= other.last && other.first <= one.last));
}
