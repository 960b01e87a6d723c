import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import test from 'ava';
import { parseCollector, sendRecords } from '../../src/collector.js';
import { LsrError } from '../../src/errors.js';
import { encodeMessages } from '../../src/ipfix.js';
import type { FlowRow, PathRecord } from '../../src/record.js';
import { flowRow } from '../helpers/fake-agent.js';
import { dissect, type NfdumpFlow, startNfcapd } from '../helpers/netflow.js';

const toRecord = (row: FlowRow, n: number): PathRecord => ({
  id: n.toString(16).padStart(24, 'f'),
  ...row,
  explanation: 'not sent',
});

/** All numbers differ, so a field in another's place shows. */
const records: PathRecord[] = Array.from({ length: 400 }, (_, n) => {
  const begin = Date.parse('2025-01-31T12:00:00Z') + n * 1001;
  return flowRow({
    chain: n % 3 === 0 ? null : `chain${n}`,
    packets: n + 1,
    bytes: n === 7 ? 2 ** 45 : 1000 + 17 * n,
    firstSeen: new Date(begin).toISOString(),
    lastSeen: new Date(begin + 5 + n).toISOString(),
    verdict: n % 4 === 0 ? 'forged' : 'complete',
    reasons: n % 4 === 0 ? ['unknown_path'] : [],
    flow: {
      source: `10.1.${n >> 8}.${n & 255}`,
      destination: `10.9.${n & 255}.${n >> 8}`,
      ...(n % 5 === 4
        ? { protocol: 1, sourcePort: null, destinationPort: null }
        : { protocol: n % 2 ? 6 : 17, sourcePort: 1024 + n, destinationPort: 65535 - n }),
    },
  });
}).map(toRecord);

async function* each<T>(values: readonly T[]): AsyncGenerator<T> {
  yield* values;
}

test('nfdump reads back what was sent to nfcapd: addresses, ports, packets, bytes, times', async (t) => {
  const collector = await startNfcapd();
  const sent = await sendRecords(each(records), parseCollector(`udp://127.0.0.1:${collector.port}`));
  t.is(sent.records, records.length);
  const { flows, summary } = await collector.finish();
  t.regex(summary, /Flows: 400, .*Sequence Errors: 0, Bad Packets: 0/);
  const expected = records.map(({ flow, packets, bytes, firstSeen, lastSeen }) => [
    ...[flow.source, flow.destination, flow.protocol, flow.sourcePort ?? 0, flow.destinationPort ?? 0],
    ...[packets, bytes, firstSeen, lastSeen],
  ]);
  t.deepEqual(flows.map(readFlow).sort(), expected.sort());
});

/** nfdump leaves out ports of protocols that have none. */
const readFlow = (flow: NfdumpFlow) => [
  ...[flow.src4_addr, flow.dst4_addr, flow.proto, flow.src_port ?? 0, flow.dst_port ?? 0],
  ...[flow.in_packets, flow.in_bytes, `${flow.first}Z`, `${flow.last}Z`],
];

const udp = { maxBytes: 1400, templateEvery: 5, now: () => Date.parse('2025-02-01T00:00:00Z') };

async function collect(content: readonly PathRecord[], options = udp): Promise<Buffer[]> {
  const messages: Buffer[] = [];
  for await (const { bytes } of encodeMessages(each(content), options)) messages.push(bytes);
  return messages;
}

test('another decoder finds nothing wrong, all values, and the sequence numbers as RFC 7011 counts', async (t) => {
  const messages = await collect(records);
  for (const message of messages) t.true(message.length <= udp.maxBytes);
  const { values, wrong } = await dissect(messages, [
    'cflow.srcaddr',
    'cflow.dstaddr',
    'cflow.packets',
    'cflow.octets',
    'cflow.forwarding_status',
    'cflow.abstimestart',
    'cflow.template_frame',
    'cflow.information_element_name',
  ]);
  t.deepEqual(wrong, []);
  t.deepEqual(
    values['cflow.srcaddr'],
    records.map(({ flow }) => flow.source),
  );
  t.deepEqual(
    values['cflow.dstaddr'],
    records.map(({ flow }) => flow.destination),
  );
  t.deepEqual(
    values['cflow.packets'],
    records.map(({ packets }) => String(packets)),
  );
  t.deepEqual(
    values['cflow.octets'],
    records.map(({ bytes }) => String(bytes)),
  );
  const status = records.map(({ verdict }) => (verdict === 'complete' ? '1' : '2'));
  t.deepEqual(values['cflow.forwarding_status'], status);
  t.is(values['cflow.information_element_name']?.length, 7, 'what our own elements are called');
});

test('a decoder does find what is wrong: the control for the test above', async (t) => {
  const messages = await collect(records.slice(0, 20));
  const cut = messages.map((bytes) => Buffer.concat([bytes.subarray(0, 40), bytes.subarray(48)]));
  t.not((await dissect(cut, [])).wrong.length, 0);
  const swapped = [messages[0], messages[2], messages[1]] as Buffer[];
  t.not((await dissect(swapped, [])).wrong.length, 0, 'the order');
});

test('templates come again, whatever was lost before', async (t) => {
  const [first, ...others] = await collect(records);
  const { values } = await dissect(others.slice(4), ['cflow.srcaddr']);
  t.true((values['cflow.srcaddr']?.length ?? 0) > 300);
  t.is(first?.readUInt16BE(16), 2, 'a template set');
});

test('text longer than 254 bytes is cut, so the longest record fits a datagram', async (t) => {
  const entry = { node: 'n'.repeat(63), address: '255.255.255.255' };
  const longest = toRecord(
    flowRow({
      chain: `${'c'.repeat(63)}/return`,
      expected: Array(10).fill(entry),
      recorded: Array(10).fill(entry),
      recordRoute: Array(9).fill('255.255.255.255'),
      reasons: Array(9).fill(`alternate:${'s'.repeat(63)}=${'n'.repeat(63)}`),
    }),
    1,
  );
  const messages = await collect([longest, longest]);
  for (const bytes of messages) t.true(bytes.length <= udp.maxBytes, `${bytes.length} bytes`);
  t.is(messages.length, 3);
  t.true(messages[1]?.includes('n…'));
  t.deepEqual((await dissect(messages, [])).wrong, []);
});

const statuses: [Partial<FlowRow>, number][] = [
  [{ verdict: 'complete' }, 64],
  [{ verdict: 'detour', reasons: ['record_route:192.0.2.7'] }, 64],
  [{ verdict: 'detour', reasons: ['detour', 'record_route:192.0.2.7'] }, 128],
  [{ verdict: 'skipped', reasons: ['unavailable:cache'] }, 64],
  [{ verdict: 'skipped', reasons: ['previous_hop', 'reported'] }, 64],
  [{ verdict: 'skipped', reasons: ['previous_hop'] }, 128],
  [{ verdict: 'skipped', reasons: ['position'] }, 128],
  [{ verdict: 'truncated', reasons: ['exhausted'] }, 128],
  [{ verdict: 'forged', reasons: ['unknown_path'] }, 128],
];
for (const [row, status] of statuses) {
  test(`${row.verdict} ${row.reasons ?? ''} has forwardingStatus ${status}`, async (t) => {
    const { flow: _, ...changes } = row;
    const { values } = await dissect(await collect([toRecord(flowRow(changes), 1)]), [
      'cflow.forwarding_status',
    ]);
    t.deepEqual(values['cflow.forwarding_status'], [String(status >> 6)]);
  });
}

test('over TCP messages follow each other, and nothing is lost', async (t) => {
  const chunks: Buffer[] = [];
  const server = createServer((socket) => socket.on('data', (chunk) => chunks.push(chunk)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const closed = once(server, 'connection').then(([socket]) => once(socket, 'close'));
  const { port } = server.address() as AddressInfo;
  const sent = await sendRecords(each(records), parseCollector(`tcp://127.0.0.1:${port}`));
  await closed;
  server.close();
  const messages = splitMessages(Buffer.concat(chunks));
  t.deepEqual(sent, {
    collector: `tcp://127.0.0.1:${port}`,
    records: 400,
    messages: messages.length,
    bytes: Buffer.concat(chunks).length,
  });
  const { values, wrong } = await dissect(messages, ['cflow.srcaddr']);
  t.deepEqual(wrong, []);
  t.is(values['cflow.srcaddr']?.length, 400);
});

function splitMessages(stream: Buffer): Buffer[] {
  const length = stream.length === 0 ? 0 : stream.readUInt16BE(2);
  return length === 0 ? [] : [stream.subarray(0, length), ...splitMessages(stream.subarray(length))];
}

async function findClosedPort(transport: 'udp' | 'tcp'): Promise<number> {
  if (transport === 'udp') {
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    const { port } = socket.address();
    await new Promise<void>((resolve) => socket.close(() => resolve()));
    return port;
  }
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

for (const transport of ['udp', 'tcp'] as const) {
  test(`where nothing listens on ${transport} an error says so`, async (t) => {
    const url = `${transport}://127.0.0.1:${await findClosedPort(transport)}`;
    await t.throwsAsync(sendRecords(each(records), parseCollector(url)), {
      instanceOf: LsrError,
      code: 'COLLECTOR',
      message: `the collector ${url} cannot be used: nothing listens there; start it, or name another with --ipfix`,
    });
  });
}

test('a collector that hangs up is an error', async (t) => {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const many = Array(200).fill(records).flat();
  await t.throwsAsync(sendRecords(each(many), parseCollector(`tcp://127.0.0.1:${port}`)), {
    code: 'COLLECTOR',
    message: /it closed the connection/,
  });
  server.close();
});

const collectors: [string, ReturnType<typeof parseCollector> | null][] = [
  ['udp://10.0.0.9:9995', { transport: 'udp', host: '10.0.0.9', port: 9995 }],
  ['tcp://collector.example', { transport: 'tcp', host: 'collector.example', port: 4739 }],
  ['udp://[2001:db8::1]:4739/', { transport: 'udp', host: '2001:db8::1', port: 4739 }],
  ['http://10.0.0.9:4739', null],
  ['sctp://10.0.0.9:4739', null],
  ['10.0.0.9:4739', null],
  ['udp://', null],
  ['udp://10.0.0.9:0', null],
  ['udp://10.0.0.9:65536', null],
  ['udp://10.0.0.9/path', null],
  ['udp://user@10.0.0.9', null],
  ['udp://10.0.0.9?x', null],
];
for (const [text, collector] of collectors) {
  test(`--ipfix ${text} is ${collector ? 'a collector' : 'wrong usage'}`, (t) => {
    if (collector) return t.deepEqual(parseCollector(text), collector);
    t.throws(() => parseCollector(text), { code: 'USAGE', message: /write udp:\/\/HOST:4739 or tcp/ });
  });
}
