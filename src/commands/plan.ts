import { type Command, InvalidArgumentError } from 'commander';
import { parseAddress } from '../address.js';
import { printAnswer } from '../output.js';

interface PlanOptions {
  json?: boolean;
  from: string;
  to: string;
  protocol?: string | number;
  port?: number;
  sourcePort?: number;
  fragment?: boolean;
  dscp?: number;
  mark?: number;
  cgroup?: string;
  at?: string;
}

/** `lsr-agent plan`: what would happen to one packet, byte for byte, without an agent. */
export function addPlanCommand(program: Command): void {
  program
    .command('plan')
    .description('which rule a packet would match, its way, and the exact option bytes at each hop')
    .argument('<mesh>', 'the mesh document, YAML or JSON; - for standard input')
    .requiredOption('--from <address>', 'source address', checkAddress)
    .requiredOption('--to <address>', 'destination address', checkAddress)
    .option('--protocol <name or number>', 'tcp, udp, icmp, …, or a number', readProtocol)
    .option('--port <number>', 'destination port', parseUpTo(65535))
    .option('--source-port <number>', 'source port', parseUpTo(65535))
    .option('--fragment', 'the packet is a fragment: rules are matched without their ports')
    .option('--dscp <number>', 'DSCP of the packet', parseUpTo(63))
    .option('--mark <number>', 'fwmark of the packet', parseUpTo(0xffffffff))
    .option('--cgroup <path>', 'cgroup of the socket that sends it, like system.slice/nginx.service')
    .option('--at <node>', 'the node where it enters the mesh')
    .addHelpText(
      'after',
      '\nExample:\n  $ lsr-agent plan mesh.yaml --from 10.1.0.10 --to 10.9.0.10 --protocol tcp --port 80',
    )
    .action(planOnePacket);
}

async function planOnePacket(file: string, _options: unknown, command: Command): Promise<void> {
  const { json = false, port: destinationPort, ...request } = command.optsWithGlobals<PlanOptions>();
  const [{ loadMesh }, { formatPlan, planPacket }] = await Promise.all([
    import('../mesh-file.js'),
    import('../plan.js'),
  ]);
  const { mesh } = loadMesh(file);
  const plan = planPacket(mesh, { ...request, destinationPort });
  printAnswer(json, plan, () => formatPlan(plan));
}

function checkAddress(text: string): string {
  if (parseAddress(text) !== null) return text;
  throw new InvalidArgumentError('Write an IPv4 address like 10.1.0.10.');
}

/** Names are planPacket's to know. */
function readProtocol(text: string): string | number {
  return /^\d+$/.test(text) ? parseUpTo(255)(text) : text;
}

function parseUpTo(maximum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^(\d{1,10}|0x[0-9a-fA-F]{1,8})$/.test(text) && value <= maximum) return value;
    throw new InvalidArgumentError(`Write a number from 0 to ${maximum}.`);
  };
}
