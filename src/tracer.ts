import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Address, formatAddress, parseAddress } from './address.js';
import type { Availability } from './availability.js';
import { LsrError } from './errors.js';
import { enums } from './layout.js';
import type { Mesh } from './mesh.js';
import type { RenderedPath } from './path.js';
import { decodeProbe, encodeProbe, makeNonce } from './probe.js';
import { explainTrace, hasReached, type Trace, type TracedHop, type TraceQuery } from './trace.js';
import { findTarget } from './trace-target.js';

const { LSR_PROBE_PORT } = enums.lsr_limits;
const { LSR_TURN_BEFORE, LSR_TURN_BEHIND } = enums.lsr_turn;

const rounds = 3;
const betweenMs = 50;
/** For the last answers, after the last round. */
const patienceMs = 1000;

interface Question {
  turn: number;
  place: number;
  /** By round; null until it is answered. */
  times: (number | null)[];
}

/** Probes the path that a query means, at the node where it is asked. Throws REQUEST_INVALID. */
export async function traceChain(
  mesh: Mesh,
  node: string,
  query: TraceQuery,
  available: Availability,
): Promise<Trace> {
  const { chain, path, keeping, next } = findTarget(mesh, node, query, available);
  const from = parseAddress(mesh.nodes[node]?.address ?? '');
  if (from === null) throw new LsrError('REQUEST_INVALID', `node ${node} is not in the mesh in force`);
  const hops = await tracePath(from, path, keeping);
  return {
    chain: chain.name,
    path: path.id,
    from: node,
    hops,
    reached: hasReached(hops),
    explanation: explainTrace(node, hops),
    next: next && { chain: next.name, at: [...next.at] },
  };
}

/**
 * Sends probes that each hop turns round, before its function and, where that keeps packets, behind it (bpf/probe.h).
 */
async function tracePath(
  from: Address,
  path: RenderedPath,
  keeping: ReadonlySet<string>,
): Promise<TracedHop[]> {
  const hops = path.hops.map((hop, index) => {
    const ask = (place: number): Question => ({ turn: index + 1, place, times: Array(rounds).fill(null) });
    const isLast = index + 1 === path.hops.length;
    const behind =
      !isLast && hop.function !== null && keeping.has(hop.function) ? ask(LSR_TURN_BEHIND) : null;
    return { hop, arrived: ask(LSR_TURN_BEFORE), behind };
  });
  const questions = hops.flatMap(({ arrived, behind }) => (behind ? [arrived, behind] : [arrived]));
  await askAll(from, path, questions);
  return hops.map(({ hop, arrived, behind }) => ({
    node: hop.node,
    address: formatAddress(hop.address),
    service: hop.service,
    arrived: arrived.times,
    behind: behind?.times ?? null,
  }));
}

async function askAll(from: Address, path: RenderedPath, questions: readonly Question[]): Promise<void> {
  const nonce = makeNonce();
  const sent: number[] = [];
  const end = formatAddress(path.hops.at(-1)?.address ?? 0);
  let missing = questions.length * rounds;
  const done = new AbortController();
  const socket = createSocket('udp4', (message) => {
    const now = performance.now();
    const number = decodeProbe(message, nonce)?.number ?? -1;
    const times = questions[Math.floor(number / rounds)]?.times;
    if (!times || times[number % rounds] !== null) return;
    times[number % rounds] = Math.round((now - (sent[number] ?? now)) * 1000) / 1000;
    missing--;
    if (missing === 0) done.abort();
  });
  socket.on('error', () => undefined); // as when the route is away: the probe is missed
  try {
    socket.bind({ address: formatAddress(from) });
    await once(socket, 'listening');
    for (let round = 0; round < rounds; round++) {
      questions.forEach(({ turn, place }, index) => {
        const number = index * rounds + round;
        const probe = encodeProbe({ path: path.id, nonce, number, turn, place });
        sent[number] = performance.now();
        socket.send(probe, LSR_PROBE_PORT, end, () => undefined);
      });
      await sleep(betweenMs, undefined, { signal: done.signal }).catch(() => undefined);
    }
    await sleep(patienceMs, undefined, { signal: done.signal }).catch(() => undefined);
  } finally {
    socket.close();
  }
}
