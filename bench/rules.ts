/**
 * What the size of a mesh costs: a packet to classify, the whole mesh to put in force, one rule or chain of it to change.
 * `npm run bench -- rules`. Ends with 1 where a packet was not imposed by the rule that it was made for.
 */
import { performance } from 'node:perf_hooks';
import { Command } from 'commander';
import { formatAddress } from '../src/address.js';
import type { Mesh } from '../src/mesh.js';
import { formatTable } from '../src/table.js';
import { ethernet, ipv4, udp } from '../tests/helpers/packet.js';
import { applyMesh, macOf, openTestbed, skbContext } from '../tests/helpers/testbed.js';
import { parseCount } from './numbers.js';

interface Options {
  packets: number;
  short?: boolean;
}

interface Size {
  rules: number;
  chains: number;
}

/** One after the other, so that the last is still there when the next is put in force: an apply takes away too. */
const sizes: readonly Size[] = [
  { rules: 1, chains: 1 },
  { rules: 10, chains: 1 },
  { rules: 1_000, chains: 100 },
  { rules: 100_000, chains: 100 },
  { rules: 10_000, chains: 10_000 },
];
const shortSizes = sizes.filter(({ rules, chains }) => rules <= 1_000 && chains <= 100);

/** TC_ACT_REDIRECT of linux/pkt_cls.h: the packet was imposed. */
const redirect = 7;
const kinds = 4;

await new Command('rules')
  .description('what rules and chains cost: a packet, an apply, a change')
  .option('--packets <number>', 'of each size', parseCount, 9999)
  .option('--short', 'the small sizes only')
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .action(measureSizes)
  .parseAsync();

async function measureSizes({ packets, short = false }: Options): Promise<void> {
  const bed = await openTestbed();
  const rows: (string | number)[][] = [];
  let generation = 0;
  let base = Number.NaN;
  try {
    for (const size of short ? shortSizes : sizes) {
      const mesh = makeMesh(size);
      const apply = timed(() => applyMesh(bed, mesh, 'fw', ++generation));
      const changed = makeMesh(size, size.chains - 1);
      const change = timed(() => applyMesh(bed, changed, 'fw', ++generation));
      const cost = classify(size);
      if (Number.isNaN(base)) base = cost;
      const figures = [cost, (cost / base).toFixed(2), apply.toFixed(0), change.toFixed(0)];
      rows.push([size.rules, size.chains, ...figures]);
      console.error(`${size.rules} rules, ${size.chains} chains`);
    }
  } finally {
    bed.close();
  }
  const head = ['rules', 'chains', 'ns/packet', 'x 1 rule', 'apply, ms', 'change of a chain, ms'];
  console.log(formatTable(head, rows));

  /** The median of packets that each match another rule, of all kinds. */
  function classify({ rules }: Size): number {
    const index = (name: string): number => bed.ports.find((port) => port.name === name)?.link.index ?? 0;
    const context = skbContext(index('mesh0'), {}, index('edge0'));
    const mac = macOf('mesh0');
    const times = Array.from({ length: packets }, (_, turn) => {
      const rule = (turn * 7919) % rules;
      const payload = udp({ destinationPort: portOf(rule) });
      const data = ethernet(
        mac,
        ipv4({ source: '10.1.0.10', destination: formatAddress(hostOf(rule)), payload }),
      );
      const { returnValue, durationNs } = bed.programs.egress.testRun({ data, context });
      if ((returnValue | 0) !== redirect)
        throw new Error(`rule ${rule} of ${rules} has not imposed its packet`);
      return durationNs;
    });
    return times.sort((a, b) => a - b)[packets >> 1] ?? Number.NaN;
  }
}

/** Prefixes of three lengths, with and without a port; `turned` is a chain that goes the other way round. */
function makeMesh({ rules, chains }: Size, turned = -1): Mesh {
  const hops = ['ids', 'gw'];
  const makeChain = (_: unknown, i: number): [string, Mesh['chains'][string]] => [
    `c${i}`,
    { hops: i === turned ? hops.toReversed() : hops },
  ];
  return {
    version: 1,
    nodes: {
      edge: { address: '10.0.0.1' },
      fw: { address: '10.0.0.2' },
      ids: { address: '10.0.0.3' },
      gw: { address: '10.0.0.4' },
    },
    chains: Object.fromEntries(Array.from({ length: chains }, makeChain)),
    rules: Array.from({ length: rules }, (_, i) => ({
      name: `r${i}`,
      at: ['fw'],
      match: {
        destination: `${formatAddress(networkOf(i))}/${[24, 28, 32, 24][i % kinds]}`,
        protocol: 'udp' as const,
        ...(i % kinds === 3 && { destinationPorts: [portOf(i)] }),
      },
      chain: `c${i % chains}`,
    })),
  };
}

/** Each rule has a /24 from 100.0.0.0 on; its packets are for the first host, and so is a rule for a /32. */
function networkOf(rule: number): number {
  return ((100 << 24) + rule * 256 + (rule % kinds === 2 ? 1 : 0)) >>> 0;
}

function hostOf(rule: number): number {
  return networkOf(rule) + (rule % kinds === 2 ? 0 : 1);
}

function portOf(rule: number): number {
  return 1024 + (rule % 60_000);
}

/** Milliseconds. */
function timed(work: () => void): number {
  const begun = performance.now();
  work();
  return performance.now() - begun;
}
