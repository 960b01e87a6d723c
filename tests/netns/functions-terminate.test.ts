/**
 * A function that ends the chain: nginx on ids is a proxy, and its own connection to the server is a new chain.
 *
 *   client ── edge ── fw ── ids 10.7.0.3 nginx        chain `front`: everything to the proxy
 *                            └── gw ── server         chain `behind`, by mark; `bound`, by source, over fw
 */
import { chownSync, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import test from 'ava';
import { findCgroupRoot } from '../../src/cgroups.js';
import { startProcess } from '../../src/lab-processes.js';
import { agentHosts, hostFolder } from '../../src/lab-standing.js';
import type { Mesh } from '../../src/mesh.js';
import type { PathRecord } from '../../src/record.js';
import { nodes, putMesh } from '../helpers/chains.js';
import { onEitherWay, server } from '../helpers/delivery.js';
import { createFunctionLab, fetchPage, proxyAddress, services } from '../helpers/function-lab.js';
import type { TestLab } from '../helpers/namespaces.js';
import { withTable } from '../helpers/nftables.js';
import { capture, findUnbalanced, readDrops, readPaths } from '../helpers/wire.js';

const client = '10.1.0.10';
const mark = 7;
/** Of the proxy: where it takes the address that the route gives it, and where it binds its own. */
const ports = { unbound: 80, bound: 8080 };

const servers: Mesh['rules'][number]['match'] = { destination: '10.9.0.0/24', protocol: 'tcp' };
const mesh: Mesh = {
  version: 1,
  nodes,
  services,
  chains: {
    front: { hops: ['firewall', 'proxy'], record: 1 },
    behind: { hops: ['gw'], record: 1 },
    bound: { hops: ['plain', 'gw'], record: 2 },
  },
  rules: [
    { name: 'front', at: ['edge'], match: { destination: `${proxyAddress}/32` }, chain: 'front' },
    { name: 'behind', at: ['ids'], from: ['local'], match: { ...servers, mark }, chain: 'behind' },
    {
      name: 'bound',
      at: ['ids'],
      priority: 50,
      from: ['local'],
      match: { ...servers, source: proxyAddress },
      chain: 'bound',
    },
  ],
};

const user = 'www-data';
let lab: TestLab;

test.before(async () => {
  lab = await createFunctionLab();
  await startProxy();
});

test.after.always(() => lab?.remove());

test.afterEach.always(async (t) => {
  for (const host of agentHosts) t.deepEqual(findUnbalanced(await readDrops(lab, host)), [], host);
});

/** Folders that nginx makes at its start, by the modules that Debian builds in. */
const temporary = ['client_body', 'proxy', 'fastcgi', 'scgi', 'uwsgi'];

/** As a user of its own, in one process that keeps its command line: by that the lab knows and ends it. */
async function startProxy(): Promise<void> {
  const folder = hostFolder(lab, 'ids');
  const own = `${folder}/nginx`;
  const [, uid, gid] =
    new RegExp(`^${user}:[^:]*:(\\d+):(\\d+)`, 'm').exec(readFileSync('/etc/passwd', 'utf8')) ?? [];
  mkdirSync(own);
  chownSync(own, Number(uid), Number(gid));
  writeFileSync(
    `${own}.conf`,
    `daemon off; master_process off; pid ${own}/nginx.pid; events { }
    http {
      access_log off;
      ${temporary.map((kind) => `${kind}_temp_path ${own}/${kind};`).join(' ')}
      server { listen ${proxyAddress}:${ports.unbound}; location / { proxy_pass http://${server}; } }
      server {
        listen ${proxyAddress}:${ports.bound};
        location / { proxy_pass http://${server}; proxy_bind ${proxyAddress}; }
      }
    }`,
  );
  await lab.on('ids', 'sysctl', '-qw', 'net.ipv4.ip_unprivileged_port_start=80');
  const command = ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups'];
  const nginx = ['nginx', '-e', 'stderr', '-c', `${own}.conf`];
  await startProcess(
    { namespace: `${lab.prefix}ids`, folder: own, command: [...command, ...nginx] },
    async () =>
      /You are/.test(
        await onEitherWay(lab, 'ids', ['curl', '-sS', '--max-time', '1', `http://${proxyAddress}/`]),
      ),
  );
}

const marking = `chain choose {
  type route hook output priority mangle
  meta skuid ${user} ip daddr ${server} meta mark set ${mark}
}`;

/** The records of a chain at its end, newest first. */
const pathsOf = async (host: string, chain: string): Promise<PathRecord[]> =>
  readPaths(lab, host, `?chain=${chain}`);
const describe = ({ flow, verdict, recorded }: PathRecord) => ({
  from: flow.source,
  to: flow.destination,
  verdict,
  nodes: recorded.map(({ node }) => node),
});

test.serial(
  'a chain ends at a proxy; what the proxy sends on its own is un-chained where no rule speaks of it',
  async (t) => {
    await putMesh(lab, { ...mesh, rules: mesh.rules.filter(({ name }) => name === 'front') });
    const options = ['ip.hdr_len'];
    const seen = await capture(lab, 'gw', 'mesh0', 'tcp dst port 80', options, async () => {
      t.regex(await fetchPage(lab, proxyAddress), /You are 10\.0\.0\.3,/);
    });
    t.true(seen.length > 0);
    for (const row of seen) t.deepEqual(row, ['20']);
    t.deepEqual((await pathsOf('ids', 'front')).map(describe), [
      { from: client, to: proxyAddress, verdict: 'complete', nodes: ['fw', 'ids'] },
    ]);
    t.deepEqual(await pathsOf('gw', 'behind'), []);
  },
);

test.serial(
  "a proxy's own connection is a new chain, chosen by the mark that nftables gives its user's packets",
  async (t) => {
    await putMesh(lab, mesh);
    await withTable(lab, 'ids', 'ip function', marking, async () => {
      const before = (await pathsOf('ids', 'front')).length;
      t.regex(await fetchPage(lab, proxyAddress), /You are 10\.0\.0\.3,/);
      t.is((await pathsOf('ids', 'front')).length, before + 1);
      t.deepEqual((await pathsOf('gw', 'behind')).map(describe), [
        { from: '10.0.0.3', to: server, verdict: 'complete', nodes: ['gw'] },
      ]);
      t.regex(await lab.on('ids', 'curl', '-sS', `http://${server}/`), /You are 10\.0\.0\.3,/);
      t.is((await pathsOf('gw', 'behind')).length, 1, "another user's connection is not the proxy's");
    });
  },
);

test.serial(
  "a proxy's own connection is a new chain, chosen by its cgroup, also when that is made anew",
  async (t) => {
    const cgroup = `lsr-test-${process.pid}/proxy`;
    const folder = join(findCgroupRoot() ?? '', cgroup);
    const rules: Mesh['rules'] = [
      { name: 'behind', at: ['ids'], match: { ...servers, cgroup: dirname(cgroup) }, chain: 'behind' },
    ];
    const fetchWithin = async (): Promise<number> => {
      const enter = 'echo $$ > "$1" && exec curl -sS "$2"';
      const words = ['sh', '-c', enter, 'sh', join(folder, 'cgroup.procs'), `http://${server}/`];
      t.regex(await lab.on('ids', ...words), /You are 10\.0\.0\.3,/);
      return (await pathsOf('gw', 'behind')).length;
    };
    await putMesh(lab, { ...mesh, rules });
    const known = (await pathsOf('gw', 'behind')).length;
    try {
      for (const round of [1, 2]) {
        mkdirSync(folder, { recursive: true });
        await setTimeout(500); // the agent looks for it five times a second
        t.is(await fetchWithin(), known + round);
        t.regex(await lab.on('ids', 'curl', '-sS', `http://${server}/`), /You are 10\.0\.0\.3,/);
        t.is(
          (await pathsOf('gw', 'behind')).length,
          known + round,
          "another cgroup's connection is not the proxy's",
        );
        rmdirSync(folder);
        rmdirSync(dirname(folder));
      }
    } finally {
      for (const left of [folder, dirname(folder)].filter(existsSync)) rmdirSync(left);
    }
  },
);

test.serial("a proxy's own connection is a new chain, chosen by the address that it binds", async (t) => {
  await putMesh(lab, mesh);
  t.regex(await fetchPage(lab, `${proxyAddress}:${ports.bound}`), /You are 10\.7\.0\.3,/);
  t.deepEqual((await pathsOf('gw', 'bound')).map(describe), [
    { from: proxyAddress, to: server, verdict: 'complete', nodes: ['fw', 'gw'] },
  ]);
});
