/** Captures of real chains by tcpdump, judged offline, against what the agents recorded; the lab of every example. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import type { CaptureReport } from '../../src/capture-audit.js';
import { applyMesh, directMeshFile, meshFile, program } from '../../src/lab-standing.js';
import { enterNamespace } from '../../src/lab-topology.js';
import type { PathRecord } from '../../src/record.js';
import { makeFolder } from '../helpers/capture.js';
import { sendDatagrams, server } from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import { readPaths, runScapy } from '../helpers/wire.js';

let lab: TestLab;
const folder = makeFolder();

test.before(async () => {
  lab = await createLab({ mesh: directMeshFile });
});

test.after.always(async () => {
  folder.remove();
  await lab?.remove();
});

/** Writes files of what passes hosts' interfaces while `action` runs. */
async function record(
  places: [host: string, device: string, file: string][],
  action: () => Promise<unknown>,
) {
  const running = places.map(([host, device, file]) => {
    // In this mode each packet takes room for the longest: without -s there is room for eight.
    const words = ['-U', '--immediate-mode', '-s', '200', '-B', '16384', '-i', device];
    const command = ['tcpdump', ...words, '-w', folder.path(file), 'ip'];
    return spawn('nsenter', enterNamespace(lab.prefix + host, command), {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  });
  await Promise.all(running.map(({ stderr }) => once(stderr, 'data'))); // "listening on …"
  try {
    await action();
    await waitUntilQuiet(places.map(([, , file]) => folder.path(file)));
  } finally {
    const ends = running.map((child) => once(child, 'close'));
    for (const child of running) child.kill('SIGINT');
    await Promise.all(ends);
  }
}

/** A busy machine's tcpdump reads what came last late: until files have not grown for a second. */
async function waitUntilQuiet(files: string[]): Promise<void> {
  const measure = (): string => files.map((file) => statSync(file).size).join(' ');
  for (let before = '', quiet = 0; quiet < 10; quiet = before === measure() ? quiet + 1 : 0) {
    before = measure();
    await setTimeout(100);
  }
}

/** As a user without any right, so that nothing of the kernel can be asked. */
async function audit(file: string): Promise<{ report: CaptureReport; exitCode: number | undefined }> {
  const words = [program, '--json', 'audit', '-', '--mesh', meshFile];
  const command = ['--reuid', '65534', '--regid', '65534', '--clear-groups', process.execPath, ...words];
  const { stdout, stderr, exitCode } = await execa('setpriv', command, {
    inputFile: folder.path(file),
    reject: false,
  });
  if (exitCode !== 0 && exitCode !== 1) throw new Error(stderr);
  return { report: JSON.parse(stdout), exitCode };
}

const compared = (
  records: readonly Pick<
    PathRecord,
    'flow' | 'chain' | 'expected' | 'recorded' | 'recordRoute' | 'packets' | 'bytes' | 'reasons'
  >[],
) =>
  records
    .map((one) => {
      const { flow, chain, expected, recorded, recordRoute, packets, bytes, reasons } = one;
      const { verdict } = one as { verdict?: string };
      return { flow, chain, expected, recorded, recordRoute, packets, bytes, reasons, verdict };
    })
    .sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)));

async function carryTraffic(t: ExecutionContext): Promise<void> {
  t.regex(await lab.on('client', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  t.regex(await lab.on('client', 'ping', '-c', '3', '-i', '0.05', server), / 0% packet loss/);
  t.like(await sendDatagrams(lab, { size: 3000, count: 2, discover: 'dont' }), { received: 2 });
}

test.serial('without a chain there is nothing to record, and nothing wrong', async (t) => {
  await record([['switch', 'any', 'plain.pcap']], () => carryTraffic(t));
  const { report, exitCode } = await audit('plain.pcap');
  t.is(exitCode, 0);
  t.true(report.capture.ipv4 > 20, JSON.stringify(report.capture));
  t.deepEqual([report.capture.sourceRoutes, report.records, report.violations], [0, [], []]);
});

test.serial('on all legs, and on the last, the records are those of the last hop’s agent', async (t) => {
  await applyMesh(lab, meshFile);
  await record(
    [
      ['switch', 'any', 'all.pcap'],
      ['gw', 'mesh0', 'last.pcap'],
      ['edge', 'mesh0', 'first.pcap'],
      ['ids', 'mesh0', 'middle.pcap'],
    ],
    () => carryTraffic(t),
  );
  const known = compared(await readPaths(lab, 'gw'));
  t.is(known.length, 4, JSON.stringify(known)); // TCP, ICMP, first fragments and others
  for (const file of ['all.pcap', 'last.pcap']) {
    const { report, exitCode } = await audit(file);
    t.is(exitCode, 0, JSON.stringify(report.violations));
    t.deepEqual(compared(report.records), known, file);
  }
});

test.serial('a capture that ends before the last leg says how far it saw them', async (t) => {
  const known = compared(await readPaths(lab, 'gw'));
  for (const [file, recorded, seen] of [
    ['first.pcap', [], 'seen_to:fw'],
    ['middle.pcap', ['fw', 'ids'], null],
  ] as const) {
    const { report, exitCode } = await audit(file);
    t.is(exitCode, 0, JSON.stringify(report.violations));
    // On the first leg nothing has been recorded in any fragment yet.
    t.is(report.records.length, seen === null ? 4 : 3);
    for (const one of report.records) {
      // The port of ids sees both legs: to ids, and on to gw, which is the last.
      t.is(one.verdict, seen === null ? 'complete' : 'partial');
      t.deepEqual(one.reasons, seen === null ? [] : [seen]);
      if (seen !== null)
        t.deepEqual(
          one.recorded.map(({ node }) => node),
          [...recorded],
        );
    }
    const sum = (records: readonly { packets: number }[]) =>
      records.reduce((total, { packets }) => total + packets, 0);
    t.is(sum(report.records), sum(known));
  }
});

const forged: [packet: string, reason: string, verdict: string | null][] = [
  [
    "dst='10.0.0.3',options=[IPOption_LSRR(routers=['10.0.0.3','10.0.0.4','10.9.0.10'],pointer=4),IPOption_RR(routers=['0.0.0.0']*2,pointer=4)]",
    'position',
    'skipped',
  ],
  [
    "dst='10.0.0.3',options=IPOption_LSRR(routers=['10.0.0.2','10.0.0.3','10.9.0.10'],pointer=16)",
    'exhausted',
    'truncated',
  ],
  [
    "dst='10.0.0.3',options=IPOption_LSRR(routers=['10.0.0.77','10.9.0.10'],pointer=4)",
    'unknown_path',
    'forged',
  ],
  [
    "dst='10.0.0.3',options=[IPOption_LSRR(routers=['10.0.0.77','10.0.0.4','10.9.0.10'],pointer=8),IPOption_RR(routers=['10.0.0.2','0.0.0.0'],pointer=8)]",
    'record_mismatch',
    'forged',
  ],
  [
    "dst='10.0.0.3',chksum=1,options=IPOption_LSRR(routers=['10.0.0.4','10.9.0.10'],pointer=4)",
    'checksum',
    null,
  ],
  [
    "dst='10.0.0.4',options=[IPOption_LSRR(routers=['10.0.0.2','10.0.0.3','10.9.0.10'],pointer=12),IPOption_RR(routers=['10.0.0.2','10.66.6.6'],pointer=12)]",
    'record_route:10.66.6.6',
    'detour',
  ],
];

test.serial(
  'what scapy forged is found among a client’s traffic, as the agents say, and nothing else',
  async (t) => {
    const macOf = async (host: string): Promise<string> =>
      JSON.parse(await lab.on(host, 'ip', '-j', 'link', 'show', 'mesh0'))[0].address;
    const macs = { '10.0.0.3': await macOf('ids'), '10.0.0.4': await macOf('gw') };
    const lines = forged.map(
      ([packet], index) =>
        `sendp(Ether(dst=macs[${/dst=('[^']*')/.exec(packet)?.[1]}])/IP(src='10.1.0.10',${packet})/UDP(sport=${70 + index},dport=7), iface='br0', count=3)`,
    );
    await record([['switch', 'any', 'forged.pcap']], async () => {
      await lab.on('client', 'ping', '-c', '2', '-i', '0.05', server);
      await runScapy(lab, 'switch', `macs = ${JSON.stringify(macs)}\n${lines.join('\n')}`);
      await lab.on('client', 'ping', '-c', '2', '-i', '0.05', server);
    });
    const { report, exitCode } = await audit('forged.pcap');
    t.is(exitCode, 1);
    t.deepEqual(
      report.violations.map(({ reason, verdict, packets, flow }) => [
        flow.sourcePort,
        reason,
        verdict,
        packets,
      ]),
      forged.map(([, reason, verdict], index) => [70 + index, reason, verdict, 3]),
    );
    const agents = (await Promise.all(['ids', 'gw'].map((host) => readPaths(lab, host)))).flat();
    const ofScapy = ({ flow }: { flow: PathRecord['flow'] }): boolean => flow.destinationPort === 7;
    t.deepEqual(compared(report.records.filter(ofScapy)), compared(agents.filter(ofScapy)));
  },
);
