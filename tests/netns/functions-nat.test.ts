/**
 * A function that changes addresses or ports: NAT of nftables in the stack of hop fw (tests/helpers/function-lab.ts).
 * The table of docs/functions.md says the same.
 */
import { randomBytes } from 'node:crypto';
import test from 'ava';
import { callApi } from '../../src/client.js';
import { agentHosts, apiSocket } from '../../src/lab-standing.js';
import type { Mesh } from '../../src/mesh.js';
import { putInForce } from '../helpers/chains.js';
import { readLedger, server, subtractLedger } from '../helpers/delivery.js';
import {
  createFunctionLab,
  fetchPage,
  refused,
  services,
  through,
  unanswered,
} from '../helpers/function-lab.js';
import type { TestLab } from '../helpers/namespaces.js';
import { addRules } from '../helpers/nftables.js';
import { findUnbalanced, readDrops } from '../helpers/wire.js';

type Chain = Mesh['chains'][string];

const otherServer = '10.9.0.11';
const port = 8000;
const there = through('firewall');
const back: Chain = { hops: ['ids', 'firewall', 'edge'], record: 1 };

const flow = `ip daddr ${server} meta l4proto tcp`;
/** nftables of fw: before it chooses a route, and after. */
const nat = {
  none: '',
  otherServer: `prerouting priority dstnat; ${flow} dnat to ${otherServer}:80`,
  otherPort: `prerouting priority dstnat; ${flow} dnat to :80`,
  elsewhere: `prerouting priority dstnat; ${flow} dnat to 10.9.1.10:80`,
  itself: `prerouting priority dstnat; ${flow} redirect to :${port}`,
  source: `postrouting priority srcnat; ${flow} masquerade`,
} as const;

interface Row {
  title: string;
  nat: keyof typeof nat;
  there?: Partial<Chain>;
  back?: Chain;
  /** What curl prints: an answer of one of the servers, or its exit code. */
  fetched: RegExp;
  /** `host reason` of what is dropped. */
  dropped?: string;
}

const answer = /Hello from the server. You are 10\.1\.0\.10,/;
const behindFw = /Hello from the server. You are 10\.0\.0\.2,/;
const ports = { integrity: 'require' } as const;
const addresses = { integrity: 'require', binding: 'addresses' } as const;

const rows: Row[] = [
  { title: 'none: the server has nothing at this port', nat: 'none', back, fetched: refused },
  { title: 'another server of the chain, both ways chained', nat: 'otherServer', back, fetched: answer },
  { title: 'another server, its answers unchained', nat: 'otherServer', fetched: unanswered },
  { title: 'another port, both ways chained', nat: 'otherPort', back, fetched: answer },
  { title: 'another port, its answers unchained', nat: 'otherPort', fetched: unanswered },
  {
    title: 'a destination of no rule',
    nat: 'elsewhere',
    back,
    fetched: unanswered,
    dropped: 'gw destination',
  },
  { title: 'this host itself', nat: 'itself', back, fetched: refused },
  { title: 'the source', nat: 'source', fetched: behindFw },
  {
    title: 'another server, with integrity',
    nat: 'otherServer',
    there: ports,
    back,
    fetched: unanswered,
    dropped: 'ids tag_wrong',
  },
  {
    title: 'another server, with integrity of addresses',
    nat: 'otherServer',
    there: addresses,
    back,
    fetched: unanswered,
    dropped: 'ids tag_wrong',
  },
  {
    title: 'the source, with integrity',
    nat: 'source',
    there: addresses,
    fetched: unanswered,
    dropped: 'ids tag_wrong',
  },
  {
    title: 'another port, with integrity',
    nat: 'otherPort',
    there: ports,
    back,
    fetched: unanswered,
    dropped: 'ids tag_wrong',
  },
  {
    title: 'another port, with integrity of addresses',
    nat: 'otherPort',
    there: addresses,
    back,
    fetched: answer,
  },
];

let lab: TestLab;

test.before(async () => {
  lab = await createFunctionLab();
  await lab.on('server', 'ip', 'address', 'add', `${otherServer}/24`, 'dev', 'eth0');
  await lab.on('fw', 'ip', 'route', 'add', '10.9.1.0/24', 'via', '10.0.0.4');
  const keys = { sending: 0, keys: [{ slot: 0, key: randomBytes(16).toString('hex') }] };
  for (const host of agentHosts) {
    await callApi(apiSocket(lab, host), {
      method: 'PUT',
      path: '/v1/keys',
      body: JSON.stringify(keys),
      contentType: 'application/json',
    });
  }
});

test.after.always(() => lab?.remove());
test.afterEach.always(() => lab.on('fw', 'nft', 'flush', 'ruleset'));

for (const row of rows) {
  test.serial(`NAT to ${row.title}`, async (t) => {
    const chain = { ...there, record: row.there ? 1 : 2, ...row.there };
    await putInForce(lab, { there: chain, ...(row.back ? { back } : {}) }, services);
    const wanted = nat[row.nat];
    await addRules(
      lab,
      'fw',
      `table ip function {\n chain change {\n ${wanted && `type nat hook ${wanted}`}\n }\n}`,
    );
    const before = await readLedger(lab);
    const target = row.nat === 'source' ? 80 : port;
    t.regex(await fetchPage(lab, `${server}:${target}`), row.fetched);
    const dropped = subtractLedger(await readLedger(lab), before);
    t.deepEqual(Object.keys(dropped), row.dropped ? [row.dropped] : []);
    for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
  });
}
