import { ADDRESS_BYTES, BASE_HEADER_BYTES } from './limits.js';
import type { Leg, Plan } from './plan.js';

/** A plan as text for people. */
export function formatPlan(plan: Plan): string {
  const flow = formatPacket(plan.packet);
  if (plan.rule === null) {
    return [`${flow} passes unchained: ${plan.reason}`, ...formatNearest(plan)].join('\n');
  }
  const { overhead, headerBytes, mtu, mss } = plan;
  const clamped = mss === null ? '' : `; TCP MSS ${mss} at MTU ${mtu} (${mss + overhead} without a chain)`;
  return [
    `${flow} matches rule ${plan.rule}: chain ${plan.chain} (${plan.mode}), written at ${plan.at}`,
    `IPv4 header ${headerBytes} bytes: ${BASE_HEADER_BYTES} + ${overhead} of options${clamped}`,
    ...(plan.number === null
      ? []
      : [`integrity option: chain number ${plan.number}; bytes 3 to 12, here 0, are made for each packet`]),
    ...formatChoice(plan),
    ...plan.legs.flatMap((leg, index) => formatLeg(leg, index + 1, plan.record)),
    '',
    `${plan.legs.at(-1)?.to} strips the options and sends it to ${plan.packet.to} as it was`,
  ].join('\n');
}

function formatChoice({ paths, slot }: Plan): string[] {
  if (paths < 2) return [];
  if (slot !== null)
    return [`one of ${paths} paths, by the ends of the flow (slot ${slot}), while all are up`];
  return [
    `one of ${paths} paths, by the ends of the flow; here is the first: give both ports to see its own`,
  ];
}

function formatPacket({ from, to, protocol, sourcePort, destinationPort }: Plan['packet']): string {
  const end = (address: string, port: number | null): string =>
    port === null ? address : `${address}:${port}`;
  return `${protocol ?? 'packet'} ${end(from, sourcePort)} → ${end(to, destinationPort)}`;
}

function formatNearest({ nearest }: Plan): string[] {
  if (!nearest) return [];
  const lines = nearest.differences.map(
    ({ field, wanted, found }) => `  ${field} is ${found}, it wants ${wanted}`,
  );
  return [`nearest is rule ${nearest.rule}:`, ...lines];
}

function formatLeg(leg: Leg, number: number, slots: number): string[] {
  const entries = leg.route.map((entry, index) =>
    index === leg.pointer / ADDRESS_BYTES - 1 ? `[${entry}]` : entry,
  );
  const record = leg.recordRoute.length === 0 ? 'nothing' : leg.recordRoute.join(' ');
  return [
    '',
    `${number}  ${leg.from} → ${leg.to}   destination ${leg.destination}`,
    `   source route  pointer ${leg.pointer}, ${entries.join(' ')}`,
    ...(slots > 0 ? [`   record route  ${leg.recordRoute.length} of ${slots} slots used: ${record}`] : []),
    `   options       ${leg.options.replace(/.{8}(?=.)/g, '$& ')}`,
  ];
}
