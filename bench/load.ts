import type { BpfObject } from '../src/native.js';
import type { TestLab } from '../tests/helpers/namespaces.js';
import { ethernet, ipv4, udp } from '../tests/helpers/packet.js';
import type { System } from './systems.js';

/** Each with a source port of its own. */
const flows = 256;
/** All softirqs of veth run on the CPU that sends. */
export const pinned = ['taskset', '--cpu-list', '0'];

/** br_netfilter, where it is loaded, would have nftables look at what the switch carries. */
export async function passBridges(lab: TestLab): Promise<void> {
  const quiet =
    'for file in /proc/sys/net/bridge/bridge-nf-call-iptables; do [ ! -e $file ] || echo 0 >$file; done';
  await Promise.all(Object.keys(lab.topology.hosts).map((host) => lab.on(host, 'sh', '-ec', quiet)));
}

/** What the client sends: Ethernet frames of `size` bytes to edge, one of each flow. */
export async function makeFrames(
  lab: TestLab,
  { packet }: Pick<System, 'packet'>,
  size: number,
): Promise<Buffer[]> {
  const mac = async (host: string, device: string): Promise<string> => {
    const [link] = JSON.parse(await lab.on(host, 'ip', '-json', 'link', 'show', device)) as {
      address: string;
    }[];
    return link?.address ?? '';
  };
  const [to, by] = await Promise.all([mac('edge', 'edge0'), mac('client', 'eth0')]);
  const data = 'x'.repeat(Math.max(0, size - 14 - 20 - 8 - packet.options.length));
  return Array.from({ length: flows }, (_, flow) => {
    const payload = udp({ sourcePort: 10_000 + flow, destinationPort: 9, data });
    return ethernet(to, ipv4({ source: '10.1.0.10', ...packet, id: flow, payload }), 0x0800, by);
  });
}

/** Packets that the program `sink` has counted, on all CPUs. */
export function readArrived(sink: BpfObject): number {
  const counts = sink.map('arrived').get(Buffer.alloc(4)) ?? Buffer.alloc(0);
  let sum = 0;
  for (let at = 0; at < counts.length; at += 8) sum += Number(counts.readBigUInt64LE(at));
  return sum;
}
