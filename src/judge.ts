import { type Address, formatAddress, parseAddress } from './address.js';
import type { Intent } from './audit.js';
import { enums } from './layout.js';
import { TAG_BYTES } from './limits.js';
import type { RenderedPath } from './path.js';
import { reasons } from './reasons.js';
import type { Integrity, RouteEntry, Verdict } from './record.js';
import { pathsOf } from './render.js';
import type { Absence } from './ways.js';

/** What the kernel saw of a flow, and why it let it end or dropped it. */
export interface Evidence {
  chain: number;
  path: number;
  /** enum lsr_reason: ended, or the drop. */
  reason: number;
  /** Record Route as it arrived. */
  record: readonly Address[];
  /** The IPv4 destination of the packet as it arrived. */
  hop: Address;
  /** What the hops before wrote into its source route. */
  visited: readonly Address[];
}

export interface Judgement {
  chain: string | null;
  expected: RouteEntry[];
  recorded: RouteEntry[];
  verdict: Verdict;
  reasons: string[];
  integrity: Integrity;
}

/** Compares the way a flow went with the way it was meant to go. docs/audit.md defines the verdicts. */
export function judgeFlow(intents: readonly Intent[], evidence: Evidence): Judgement {
  const taken = intents
    .flatMap(({ rendered }) => rendered.chains)
    .flatMap((chain) => pathsOf(chain).map((path) => ({ chain, path })))
    .filter(({ path }) => path.id === evidence.path);
  const { chain, path } = taken.find(({ chain }) => chain.id === evidence.chain) ?? taken[0] ?? {};
  const way = chain?.ways.find(({ slots }) => slots.some(({ id }) => id === path?.id));
  const ended = evidence.reason === enums.lsr_reason.LSR_ENDED;
  const recorded = [...evidence.visited, evidence.hop].map((address) => resolveNode(intents, address));
  return {
    chain: chain?.name ?? null,
    expected: (path?.hops ?? []).map(({ node, address }) => ({
      node,
      address: formatAddress(address),
    })),
    recorded,
    ...decide(intents, path, way?.absent ?? [], evidence),
    integrity: ended && path && path.binding !== 'none' ? 'verified' : 'none',
  };
}

function decide(
  intents: readonly Intent[],
  path: RenderedPath | undefined,
  absent: readonly Absence[],
  evidence: Evidence,
): { verdict: Verdict; reasons: string[] } {
  const name = reasons[evidence.reason]?.name ?? 'unknown';
  switch (evidence.reason) {
    case enums.lsr_reason.LSR_ENDED: {
      const skipped = absent.some(({ instead }) => instead === null);
      const told = absent.map(({ service, instead }) =>
        instead === null ? `unavailable:${service}` : `alternate:${service}=${instead}`,
      );
      const strangers = findStrangers(intents, path, evidence.record);
      if (strangers.length === 0) return { verdict: skipped ? 'skipped' : 'complete', reasons: told };
      return {
        verdict: 'detour',
        reasons: [...told, ...strangers.map((address) => `record_route:${formatAddress(address)}`)],
      };
    }
    case enums.lsr_reason.LSR_DROP_DETOUR: {
      const strangers = findStrangers(intents, path, evidence.record);
      const told = strangers.map((address) => `record_route:${formatAddress(address)}`);
      return { verdict: 'detour', reasons: [name, ...told] };
    }
    case enums.lsr_reason.LSR_DROP_POSITION:
    case enums.lsr_reason.LSR_DROP_PREVIOUS_HOP:
      return { verdict: 'skipped', reasons: [name] };
    case enums.lsr_reason.LSR_NOTE_REPORTED:
      return { verdict: 'skipped', reasons: ['previous_hop', name] };
    case enums.lsr_reason.LSR_DROP_EXHAUSTED:
      return { verdict: 'truncated', reasons: [name] };
    default:
      return { verdict: 'forged', reasons: [name] };
  }
}

/** Record Route addresses that belong to no hop of the path. */
function findStrangers(
  intents: readonly Intent[],
  path: RenderedPath | undefined,
  record: readonly Address[],
): Address[] {
  const nodes = new Set((path?.hops ?? []).map(({ node }) => node));
  return record.filter((address) => !nodes.has(resolveNode(intents, address).node ?? ''));
}

export function resolveNode(intents: readonly Intent[], address: Address): RouteEntry {
  for (const { mesh } of intents) {
    for (const [node, { address: own, addresses = [] }] of Object.entries(mesh.nodes)) {
      if ([own, ...addresses].some((text) => parseAddress(text) === address)) {
        return { node, address: formatAddress(address) };
      }
    }
  }
  return { node: null, address: formatAddress(address) };
}

/** The entries of a source route before its pointer: what the hops recorded (RFC 791 §3.1). `options`: as they arrived. */
export function readVisited(options: Uint8Array): Address[] {
  const all = Buffer.from(options);
  const view = all[0] === enums.lsr_option.LSR_OPTION_INTEGRITY ? all.subarray(TAG_BYTES) : all;
  const end = Math.min(view[1] ?? 0, view.length, (view[2] ?? 4) - 1);
  const addresses: Address[] = [];
  for (let at = 3; at + 4 <= end; at += 4) addresses.push(view.readUInt32BE(at));
  return addresses;
}
