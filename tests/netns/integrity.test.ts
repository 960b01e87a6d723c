/**
 * Integrity with real daemons: keys come and go while packets travel, nothing is lost and nothing is told.
 *
 *   client ── edge ──┬── fw ── ids ──┬── gw ── server        chain: edge → fw → ids → gw, there and back
 *                    └─ 10.0.0.0/24 ─┘
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { execa } from 'execa';
import type { Status } from '../../src/api-schemas.js';
import { callApi } from '../../src/client.js';
import type { KeysView } from '../../src/keys.js';
import { stopProcesses } from '../../src/lab-processes.js';
import { agentHosts, apiSocket, hostFolder, program, startAgent } from '../../src/lab-standing.js';
import type { Mesh } from '../../src/mesh.js';
import { countLosses, putInForce } from '../helpers/chains.js';
import { carryStream, learnedMtu, pingOnce, sendDatagrams, server } from '../helpers/delivery.js';
import { createLab, type TestLab } from '../helpers/namespaces.js';
import {
  capture,
  findUnbalanced,
  readDrops,
  readPaths,
  readStatus,
  runScapy,
  sumCounts,
} from '../helpers/wire.js';

type Chain = Mesh['chains'][string];
const there = (integrity: 'off' | 'verify' | 'require'): Chain => ({
  hops: ['fw', 'ids', 'gw'],
  record: 2,
  integrity,
});
const back: Chain = { hops: ['ids', 'fw', 'edge'], integrity: 'require', binding: 'addresses' };
const rotations = 100;

let lab: TestLab;
/** Every key that any host was ever given: none of them may turn up anywhere. */
const secrets: string[] = [];
const makeKey = (): string => {
  const key = randomBytes(16).toString('hex');
  secrets.push(key);
  return key;
};

interface Ring {
  sending: number;
  keys: { slot: number; key: string; until?: string }[];
}

const putKeys = (host: string, ring: Ring): Promise<KeysView> =>
  callApi<KeysView>(apiSocket(lab, host), {
    method: 'PUT',
    path: '/v1/keys',
    body: JSON.stringify(ring),
    contentType: 'application/json',
  });
const putEverywhere = (ring: Ring): Promise<unknown> =>
  Promise.all(agentHosts.map((host) => putKeys(host, ring)));
const count = async (host: string, name: string): Promise<number> =>
  sumCounts(await readDrops(lab, host), name);

test.before(async () => {
  lab = await createLab();
});

test.after.always(() => lab?.remove());

test.serial('without keys a chain with integrity sends nothing, and says why', async (t) => {
  await putInForce(lab, { there: there('require') });
  await countLosses(t, lab, ['no_key'], async () => {
    t.is((await pingOnce(lab, 100, 'dont')).received, 0);
    return 1;
  });
});

test.serial('with keys packets carry a tag that all hops accept, and the record says so', async (t) => {
  await putEverywhere({ sending: 0, keys: [{ slot: 0, key: makeKey() }] });
  await putInForce(lab, { there: there('require'), back });
  const fields = ['ip.opt.type', 'ip.hdr_len', 'ip.checksum.status'];
  // tshark has no name for the first 12 bytes.
  const legs = await capture(lab, 'switch', 'fw', 'icmp and src 10.1.0.10', fields, async () => {
    t.is((await pingOnce(lab, 100, 'dont')).received, 1);
  });
  t.deepEqual(legs, Array(2).fill(['131,7,0', '60', '1']));
  t.regex(await lab.on('client', 'curl', '-sS', `http://${server}/`), /Hello from the server/);
  const records = (await readPaths(lab, 'gw', '?chain=there')).filter(
    ({ verdict }) => verdict === 'complete',
  );
  t.true(records.length >= 2);
  for (const record of records) t.like(record, { verdict: 'complete', integrity: 'verified' });
});

test.serial('TCP, fragments and path MTU discovery go through as without tags', async (t) => {
  const overhead = 40;
  t.true(await carryStream(lab, 5_000_000));
  t.is((await pingOnce(lab, 4028, 'dont')).received, 1);
  await pingOnce(lab, 1500, 'do');
  t.is(await learnedMtu(lab), 1500 - overhead);
  t.like(await sendDatagrams(lab, { size: 500, count: 10, discover: 'want' }), { received: 10, same: true });
  t.like(await sendDatagrams(lab, { size: 3000, count: 5, discover: 'dont' }), { received: 5, same: true });
  for (const host of agentHosts) await lab.on(host, 'ip', 'route', 'flush', 'cache');
});

test.serial(`${rotations} rotations under load lose no packet`, async (t) => {
  const keys = Array.from({ length: rotations + 1 }, makeKey);
  const entry = (index: number): Ring['keys'][number] => ({ slot: index % 4, key: keys[index] ?? '' });
  await putEverywhere({ sending: 0, keys: [entry(0)] });
  let ended = false;
  await countLosses(t, lab, [], async () => {
    const sending = sendDatagrams(lab, { size: 300, count: 5000, discover: 'want' }).finally(() => {
      ended = true;
    });
    for (let index = 0; index < rotations; index++) {
      const pair = [entry(index), entry(index + 1)];
      await putEverywhere({ sending: index % 4, keys: pair });
      await putEverywhere({ sending: (index + 1) % 4, keys: pair });
    }
    t.false(ended, 'there was load until the last one');
    const { sent, received, same } = await sending;
    t.true(same);
    return sent - received;
  });
  const { slots } = await callApi<KeysView>(apiSocket(lab, 'gw'), { path: '/v1/keys' });
  t.is(slots.filter(({ state }) => state === 'valid').length, 2);
});

test.serial('a packet recorded on the mesh is refused when it comes again later', async (t) => {
  await putEverywhere({ sending: 0, keys: [{ slot: 0, key: makeKey() }] });
  // On the switch, where no program is; a hop would refuse to send what it did not write.
  const record = `
frame = sniff(iface='ids', count=1, timeout=20, lfilter=lambda p: ICMP in p and p[IP].dst == '10.0.0.3' and p[IP].src == '10.1.0.10')[0]
sendp(frame, iface='ids')
time.sleep(5)
sendp(frame, iface='ids')`;
  const names = ['advanced', 'tag_age', 'tag_wrong'] as const;
  const read = (): Promise<number[]> => Promise.all(names.map((name) => count('ids', name)));
  const before = await read();
  let isOver = false;
  const replay = runScapy(lab, 'switch', `import time${record}`).finally(() => {
    isOver = true;
  });
  let pinged = 0;
  while (!isOver) {
    pinged += (await pingOnce(lab, 100, 'dont')).received;
    await pause(200);
  }
  await replay;
  const [advanced = 0, aged = 0, wrong = 0] = (await read()).map(
    (value, index) => value - (before[index] ?? 0),
  );
  // Both ways pass ids: each ping twice; and the one that came again at once did, there and back.
  t.is(advanced, 2 * pinged + 2);
  t.is(aged + wrong, 1, 'after 5 s it is too old');
});

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test.serial('a host without the key refuses, and so does one with another', async (t) => {
  const key = makeKey();
  await putEverywhere({ sending: 0, keys: [{ slot: 0, key }] });
  await putKeys('ids', { sending: 0, keys: [{ slot: 0, key: makeKey() }] });
  await countLosses(t, lab, ['tag_wrong'], async () => {
    t.is((await pingOnce(lab, 100, 'dont')).received, 0);
    return 1;
  });
  await putKeys('ids', { sending: 1, keys: [{ slot: 1, key }] });
  await countLosses(t, lab, ['key_unknown'], async () => {
    t.is((await pingOnce(lab, 100, 'dont')).received, 0);
    return 1;
  });
  await putKeys('ids', { sending: 0, keys: [{ slot: 0, key, until: '2020-01-01T00:00:00Z' }] });
  await countLosses(t, lab, ['key_expired'], async () => {
    t.is((await pingOnce(lab, 100, 'dont')).received, 0);
    return 1;
  });
  await putKeys('ids', { sending: 0, keys: [{ slot: 0, key }] });
  t.is((await pingOnce(lab, 100, 'dont')).received, 1);
});

test.serial('from off over verify to require no packet is lost', async (t) => {
  await putInForce(lab, { there: there('off') });
  await countLosses(t, lab, [], async () => {
    const sending = sendDatagrams(lab, { size: 300, count: 1500, discover: 'want' });
    for (const mode of ['verify', 'require', 'verify', 'off'] as const) {
      await pause(300);
      await putInForce(lab, { there: there(mode) });
    }
    const { sent, received } = await sending;
    return sent - received;
  });
});

test.serial('keys outlive the daemon; a file of them is taken if nobody else may read it', async (t) => {
  await putInForce(lab, { there: there('require') });
  const folder = hostFolder(lab, 'fw');
  const config = join(folder, 'agent.yaml');
  const file = join(folder, 'keys.yaml');
  const readRing = (): Promise<KeysView> => callApi(apiSocket(lab, 'fw'), { path: '/v1/keys' });
  const before = await readRing();
  await restart('fw');
  t.deepEqual(await readRing(), before);
  t.is((await pingOnce(lab, 100, 'dont')).received, 1);

  const ring: Ring = { sending: 2, keys: [{ slot: 2, key: makeKey() }] };
  await putEverywhere(ring);
  writeFileSync(file, JSON.stringify(ring), { mode: 0o600 });
  writeFileSync(config, `${readFileSync(config, 'utf8')}\nkeys: keys.yaml\n`);
  await restart('fw');
  t.like(await readStatus(lab, 'fw'), { state: 'ready', keys: { sending: 2, error: null } });
  t.is((await pingOnce(lab, 100, 'dont')).received, 1);

  chmodSync(file, 0o640);
  await reload('fw', (status) => status.state === 'degraded');
  t.regex((await readStatus(lab, 'fw')).keys.error ?? '', /keys\.yaml.*mode is 0640.*chmod 600/);
  t.is((await pingOnce(lab, 100, 'dont')).received, 1, 'those in force stay');
  chmodSync(file, 0o600);
  await reload('fw', (status) => status.state === 'ready');

  const next = { sending: 3, keys: [...ring.keys, { slot: 3, key: makeKey() }] };
  await putKeys('fw', next);
  t.is(readFileSync(file, 'utf8'), JSON.stringify(next));
  t.is(statSync(file).mode & 0o777, 0o600);
  const printed = await execa(process.execPath, ['dist/cli.js', '--api', apiSocket(lab, 'fw'), 'keys']);
  t.regex(printed.stdout, /3.*valid.*[0-9a-f]{8}.*never.*signs/);
});

async function restart(host: string): Promise<void> {
  await stopProcesses(lab.prefix + host, hostFolder(lab, host));
  await startAgent(lab, host);
}

async function reload(host: string, isDone: (status: Status) => boolean): Promise<void> {
  process.kill((await readStatus(lab, host)).pid, 'SIGHUP');
  const deadline = Date.now() + 5000;
  while (!isDone(await readStatus(lab, host))) {
    if (Date.now() > deadline) throw new Error(`${host} takes no notice of SIGHUP`);
  }
}

test.serial('refused keys are told by their place, and change nothing', async (t) => {
  const key = makeKey();
  const wrong: [body: string, message: RegExp][] = [
    [`{"sending": 0, "keys": [{"slot": 0, "key": "${key}x"}]}`, /keys:1:\d+: a key is 32 hexadecimal digits/],
    [`{"sending": 0, "keys": [{"slot": 7, "key": "${key}"}]}`, /keys:1:\d+: keys are written as/],
    [`sending: 0\nkeys: ${key}`, /keys:2:\d+: keys are written as/],
    [`sending: 0\nkeys: [{ slot: 0, ${key}`, /keys:\d+:\d+: keys are written as/],
  ];
  const before = await callApi<KeysView>(apiSocket(lab, 'gw'), { path: '/v1/keys' });
  for (const [body, message] of wrong) {
    const error = await t.throwsAsync(
      callApi(apiSocket(lab, 'gw'), {
        method: 'PUT',
        path: '/v1/keys',
        body,
        contentType: 'application/yaml',
      }),
      { message, code: 'KEYS_INVALID' },
    );
    t.false(error?.message.includes(key));
  }
  t.deepEqual(await callApi<KeysView>(apiSocket(lab, 'gw'), { path: '/v1/keys' }), before);
});

test.serial('no key is in a log, an answer or a command line', async (t) => {
  t.true(secrets.length > rotations);
  for (const host of agentHosts) {
    const { pid } = await readStatus(lab, host);
    const files = [join(hostFolder(lab, host), 'log'), `/proc/${pid}/cmdline`, `/proc/${pid}/environ`];
    const paths = ['/v1/keys', '/v1/status', '/v1/drops', '/v1/mesh', '/openapi.json'];
    const texts = [
      ...files.map((file) => readFileSync(file, 'latin1')),
      ...(await Promise.all(paths.map((path) => readApi(host, path)))),
    ];
    t.true(texts[0]?.includes('integrity keys are in force'), 'the log tells that there are keys');
    for (const text of texts)
      t.is(
        secrets.find((secret) => text.toLowerCase().includes(secret)),
        undefined,
      );
  }
});

const readApi = async (host: string, path: string): Promise<string> =>
  JSON.stringify(await callApi(apiSocket(lab, host), { path }));

test.serial('the kernel writes no core of a daemon', async (t) => {
  const folder = hostFolder(lab, 'fw');
  await stopProcesses(`${lab.prefix}fw`, folder);
  const abort = async (...command: string[]): Promise<{ ready: boolean; dumped: boolean }> =>
    JSON.parse(
      await lab.on('fw', 'python3', coreDump, join(folder, 'aborted.log'), process.execPath, ...command),
    );
  const daemon = await abort(program, 'daemon', '--config', join(folder, 'agent.yaml'));
  t.like(daemon, { ready: true, dumped: false });
  // The negative control; a host may have its reasons to write no cores at all.
  const other = await abort('-e', 'console.log(\'"ready"\'); setTimeout(() => {}, 60_000)');
  t.like(other, { ready: true });
  t.log(`of another process it ${other.dumped ? 'does' : 'writes none either'}`);
  await startAgent(lab, 'fw');
});

const coreDump = fileURLToPath(new URL('../helpers/core-dump.py', import.meta.url));

test.serial(
  'on every host each packet was counted under exactly one outcome',
  async (t: ExecutionContext) => {
    for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
  },
);
