import { readFileSync } from 'node:fs';
import test from 'ava';
import { type Measured, Metrics } from '../../src/metrics.js';
import { chainFixture, dropsFixture, statusFixture } from '../helpers/fake-agent.js';

const amount = { packets: 7, bytes: 700 };
const measured: Measured = {
  status: statusFixture,
  ports: dropsFixture.interfaces,
  backstop: { web: amount },
  chains: [chainFixture],
  verdicts: new Map([['web', { complete: amount }]]),
  traffic: [
    { path: 9, chain: 7, reason: 'imposed', ...amount },
    { path: 0, chain: 7, reason: 'unavailable', ...amount },
    { path: 77, chain: 0, reason: 'advanced', ...amount },
    { path: 78, chain: 0, reason: 'advanced', ...amount },
  ],
};

test('metrics tell of ports, chains, paths, tables, the store and the process', async (t) => {
  const metrics = new Metrics();
  metrics.observeApply(0.3);
  const lines = (await metrics.write(measured)).split('\n');
  for (const line of [
    'lsr_packets_total{interface="mesh0",direction="ingress",outcome="received"} 10',
    'lsr_dropped_packets_total{reason="backstop",chain="web"} 7',
    'lsr_chain_bytes_total{chain="web",verdict="complete"} 700',
    'lsr_path_packets_total{path="fw",outcome="imposed"} 7',
    'lsr_path_packets_total{path="none",outcome="unavailable"} 7',
    'lsr_path_packets_total{path="others",outcome="advanced"} 14',
    'lsr_path_up{chain="web",path="fw"} 1',
    'lsr_map_entries{map="paths"} 3',
    'lsr_store_bytes 4096',
    'lsr_apply_duration_seconds_bucket{le="0.5"} 1',
    'lsr_apply_duration_seconds_bucket{le="0.1"} 0',
    'lsr_audit_lost_packets_total 0',
  ])
    t.true(lines.includes(line), line);
  t.true(lines.some((line) => line.startsWith('process_cpu_seconds_total ')));
});

test('counters are what they count now, however often they are asked for', async (t) => {
  const metrics = new Metrics();
  const read = async () =>
    (await metrics.write(measured)).split('\n').filter((line) => line.startsWith('lsr_'));
  t.deepEqual(await read(), await read());
});

test('the dashboard asks for metrics that there are', async (t) => {
  const { panels } = JSON.parse(readFileSync('docs/grafana.json', 'utf8')) as {
    panels: { targets: { expr: string }[] }[];
  };
  const asked = panels.flatMap(({ targets }) =>
    targets.flatMap(({ expr }) => expr.match(/\b(lsr|process)_[a-z_]+/g) ?? []),
  );
  const text = await new Metrics().write(measured);
  t.true(asked.length > 10);
  for (const name of asked) t.regex(text, new RegExp(`^${name}[ {]`, 'm'), name);
});
