/** `lsr-agent trace` over the functions of tests/helpers/function-lab.ts: what it says of a way that works, and of one that does not. */

import test from 'ava';
import { execa } from 'execa';
import { agentHosts, apiSocket, program } from '../../src/lab-standing.js';
import type { MeshService } from '../../src/mesh.js';
import type { Trace } from '../../src/trace.js';
import { putInForce } from '../helpers/chains.js';
import { server } from '../helpers/delivery.js';
import { createFunctionLab, fetchPage, greeting, services } from '../helpers/function-lab.js';
import type { TestLab } from '../helpers/namespaces.js';
import { withTable } from '../helpers/nftables.js';
import { findUnbalanced, readDrops } from '../helpers/wire.js';

const client = '10.1.0.10';
let lab: TestLab;

test.before(async () => {
  lab = await createFunctionLab();
});

test.after.always(() => lab?.remove());

test.afterEach.always(async (t) => {
  for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});

const through = (service: keyof typeof services, more: Partial<MeshService> = {}) =>
  putInForce(
    lab,
    { there: { hops: [service, 'ids', 'gw'], record: 2 } },
    { ...services, [service]: { ...services[service], ...more } },
  );

async function trace(...words: string[]): Promise<{ trace: Trace; exitCode: number | undefined }> {
  const command = [program, '--api', apiSocket(lab, 'edge'), '--json', 'trace', ...words];
  const { stdout, exitCode } = await execa(process.execPath, command, { reject: false });
  return { trace: JSON.parse(stdout), exitCode };
}

const hasAnswers = (times: readonly (number | null)[] | null): boolean | undefined =>
  times?.every((time) => time !== null && time > 0 && time < 1000);
/** Whether each hop answered before its function and behind it; undefined where it has none. */
const answers = ({ hops }: Trace) =>
  hops.map(({ node, arrived, behind }) => [node, hasAnswers(arrived), hasAnswers(behind)]);

for (const service of ['plain', 'firewall', 'bump', 'router'] as const) {
  test.serial(`over ${service} each hop answers, and no flow is recorded`, async (t) => {
    await through(service);
    const { trace: traced, exitCode } = await trace('there');
    t.is(exitCode, 0);
    t.like(traced, {
      chain: 'there',
      from: 'edge',
      reached: true,
      explanation: 'all 3 hops answer',
      next: null,
    });
    t.deepEqual(answers(traced), [
      ['fw', true, service === 'plain' ? undefined : true],
      ['ids', true, undefined],
      ['gw', true, undefined],
    ]);
    t.regex(await fetchPage(lab, server), greeting, 'and the answers come from where packets go');
  });
}

test.serial('a function that gives no probes back is told from a leg that is broken', async (t) => {
  await through('firewall');
  const dropping = 'chain forward { type filter hook forward priority 0; udp dport 7914 drop; }';
  await withTable(lab, 'fw', 'ip function', dropping.replaceAll('; ', '\n'), async () => {
    const { trace: traced, exitCode } = await trace('there');
    t.is(exitCode, 1);
    t.regex(traced.explanation, /^lost in firewall of fw:/);
    t.deepEqual(answers(traced), [
      ['fw', true, false],
      ['ids', false, undefined],
      ['gw', false, undefined],
    ]);
  });
});

test.serial('a host that is away is named with the one before it', async (t) => {
  await through('plain');
  await lab.on('ids', 'ip', 'link', 'set', 'mesh0', 'down');
  try {
    const { trace: traced, exitCode } = await trace('there');
    t.is(exitCode, 1);
    t.regex(traced.explanation, /^lost between fw and ids:/);
  } finally {
    await lab.on('ids', 'ip', 'link', 'set', 'mesh0', 'up');
    await lab.on('ids', 'ip', 'route', 'replace', '10.9.0.0/24', 'via', '10.0.0.4');
    await lab.on('ids', 'ip', 'route', 'replace', '10.1.0.0/24', 'via', '10.0.0.1');
  }
});

test.serial('a flow is traced on its path, and a chain of segments to the end of the first', async (t) => {
  await putInForce(lab, { there: { hops: ['fw', 'ids', 'gw'], record: 7 } });
  const flow = [
    '--from',
    client,
    '--to',
    server,
    '--protocol',
    'tcp',
    '--port',
    '80',
    '--source-port',
    '40000',
  ];
  const { trace: traced } = await trace(...flow);
  t.like(traced, { chain: 'there', reached: true, next: { chain: 'there/2', at: ['fw'] } });
  t.deepEqual(
    traced.hops.map(({ node }) => node),
    ['fw'],
  );
  const text = await lab.on(
    'edge',
    process.execPath,
    program,
    '--api',
    apiSocket(lab, 'edge'),
    'trace',
    'there',
    '--all',
  );
  t.regex(text, /there, path \d+, from edge\nHOP +NODE/);
  t.regex(text, /1 +fw +10\.0\.0\.2 +– +\d+\.\d{3} ms/);
  t.regex(text, /it goes on as there\/2, which begins at fw/);
});
