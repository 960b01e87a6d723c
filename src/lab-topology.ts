import { existsSync } from 'node:fs';
import { type CommandOptions, runCommand } from './lab-command.js';

/** Hosts as network namespaces, joined by cables (veth pairs). */
export interface Topology {
  hosts: Record<string, Host>;
  /** Both ends as `host:interface`. */
  cables: [string, string][];
}

export interface Host {
  /** Interface -> address with prefix length. */
  addresses?: Record<string, string>;
  /** Interface -> MTU in bytes, where it is not 1500. */
  mtus?: Record<string, number>;
  /** As `ip route add` takes them. */
  routes?: string[];
  forwards?: boolean;
  /** A plain switch: every interface is a port of br0. */
  switches?: boolean;
}

const wayToServer = '10.9.0.0/24 via 10.0.0.4';
const wayToClient = '10.1.0.0/24 via 10.0.0.1';

/** The lab of every example: client behind edge, server behind gw, four hosts on one mesh network. */
export const labTopology: Topology = {
  hosts: {
    client: { addresses: { eth0: '10.1.0.10/24' }, routes: ['default via 10.1.0.1'] },
    edge: {
      addresses: { mesh0: '10.0.0.1/24', edge0: '10.1.0.1/24' },
      routes: [wayToServer],
      forwards: true,
    },
    fw: { addresses: { mesh0: '10.0.0.2/24' }, routes: [wayToServer, wayToClient], forwards: true },
    ids: { addresses: { mesh0: '10.0.0.3/24' }, routes: [wayToServer, wayToClient], forwards: true },
    gw: { addresses: { mesh0: '10.0.0.4/24', edge0: '10.9.0.1/24' }, routes: [wayToClient], forwards: true },
    server: { addresses: { eth0: '10.9.0.10/24' }, routes: ['default via 10.9.0.1'] },
    switch: { switches: true },
  },
  cables: [
    ['client:eth0', 'edge:edge0'],
    ['edge:mesh0', 'switch:edge'],
    ['fw:mesh0', 'switch:fw'],
    ['ids:mesh0', 'switch:ids'],
    ['gw:mesh0', 'switch:gw'],
    ['server:eth0', 'gw:edge0'],
  ],
};

const meshHost = (address: string): Host => ({
  addresses: { mesh0: `${address}/24` },
  routes: [wayToServer, wayToClient],
  forwards: true,
});

/** The lab of functions: two hosts for the IDS, and behind each something that gets copies. */
export const functionsTopology: Topology = {
  hosts: {
    client: labTopology.hosts.client ?? {},
    edge: labTopology.hosts.edge ?? {},
    fw: meshHost('10.0.0.2'),
    ids1: meshHost('10.0.0.3'),
    ids2: meshHost('10.0.0.5'),
    gw: labTopology.hosts.gw ?? {},
    server: labTopology.hosts.server ?? {},
    sensor1: {},
    sensor2: {},
    switch: { switches: true },
  },
  cables: [
    ['client:eth0', 'edge:edge0'],
    ['edge:mesh0', 'switch:edge'],
    ['fw:mesh0', 'switch:fw'],
    ['ids1:mesh0', 'switch:ids1'],
    ['ids2:mesh0', 'switch:ids2'],
    ['gw:mesh0', 'switch:gw'],
    ['server:eth0', 'gw:edge0'],
    ['ids1:tap0', 'sensor1:eth0'],
    ['ids2:tap0', 'sensor2:eth0'],
  ],
};

const { sensor1, sensor2, ...unsensed } = functionsTopology.hosts;

/** The lab of the audit: the same without what gets copies, and with somebody else on the mesh network. */
export const auditTopology: Topology = {
  hosts: { ...unsensed, guest: { addresses: { mesh0: '10.0.0.66/24' }, routes: ['default via 10.0.0.2'] } },
  cables: [
    ...functionsTopology.cables.filter(([, end]) => !end.startsWith('sensor')),
    ['guest:mesh0', 'switch:guest'],
  ],
};

/** Builds every host as a namespace `<prefix><host>`. What is there already must have been removed. */
export async function buildTopology(topology: Topology, prefix: string, signal?: AbortSignal): Promise<void> {
  const hosts = Object.entries(topology.hosts);
  await runBatch(
    [],
    hosts.map(([name]) => `netns add ${prefix}${name}`),
    signal,
  );
  // Before any interface exists: a new one takes the namespace's defaults.
  await Promise.all(hosts.map(([name, host]) => setSysctls(prefix + name, host, signal)));
  await runBatch(
    [],
    topology.cables.map((cable, index) => layCable(topology, cable, index, prefix)),
    signal,
  );
  await Promise.all(
    hosts.map(([name, host]) => {
      const interfaces = listInterfaces(topology, name);
      return runBatch(['-n', prefix + name], configureHost(host, interfaces), signal);
    }),
  );
}

/** Removes the namespaces that exist and returns their names. */
export async function removeTopology(topology: Topology, prefix: string): Promise<string[]> {
  const present = Object.keys(topology.hosts)
    .map((host) => prefix + host)
    .filter((namespace) => existsSync(namespaceFile(namespace)));
  await runBatch(
    [],
    present.map((namespace) => `netns del ${namespace}`),
  );
  return present;
}

/** Runs a program in a namespace. Not by `ip netns exec`, which mounts a fresh /sys and so hides bpffs. */
export function inNamespace(
  namespace: string,
  command: string[],
  options: CommandOptions = {},
): Promise<string> {
  return runCommand('nsenter', enterNamespace(namespace, command), options);
}

/** The arguments of nsenter(1) for a program in a namespace. */
export function enterNamespace(namespace: string, command: string[]): string[] {
  return [`--net=${namespaceFile(namespace)}`, '--', ...command];
}

/** Process ids in a namespace. */
export async function listProcesses(namespace: string): Promise<number[]> {
  if (!existsSync(namespaceFile(namespace))) return [];
  const printed = await runCommand('ip', ['netns', 'pids', namespace]);
  return printed.split('\n').filter(Boolean).map(Number);
}

export function namespaceFile(namespace: string): string {
  return `/run/netns/${namespace}`;
}

async function setSysctls(namespace: string, host: Host, signal?: AbortSignal): Promise<void> {
  const everywhere = ['all', 'default', 'lo'];
  const values = [
    ['ipv4/ip_forward', host.forwards ? '1' : '0'],
    ...everywhere.map((scope) => [`ipv4/conf/${scope}/accept_source_route`, '0']),
    // A hop whose stack sends packets back where they came from would tell their source of a shorter way.
    ...everywhere.map((scope) => [`ipv4/conf/${scope}/send_redirects`, '0']),
    ...everywhere.map((scope) => [`ipv6/conf/${scope}/disable_ipv6`, '1']),
  ].flat();
  // A kernel without IPv6 has no such files.
  const script = 'cd /proc/sys/net; while [ $# -gt 0 ]; do [ ! -e "$1" ] || echo "$2" >"$1"; shift 2; done';
  await inNamespace(namespace, ['sh', '-ec', script, 'sh', ...values], { signal });
}

/** Hardware addresses are fixed, so that captures of two runs compare. */
function layCable(
  topology: Topology,
  [left, right]: [string, string],
  index: number,
  prefix: string,
): string {
  const end = (text: string, side: number): string => {
    const [host = '', name = ''] = text.split(':');
    const mtu = topology.hosts[host]?.mtus?.[name] ?? 1500;
    const address = `02:00:00:00:${(index + 1).toString(16).padStart(2, '0')}:0${side}`;
    return `name ${name} address ${address} mtu ${mtu} netns ${prefix}${host}`;
  };
  return `link add ${end(left, 1)} type veth peer ${end(right, 2)}`;
}

/** Those that cables end at. */
export function listInterfaces(topology: Topology, host: string): string[] {
  return topology.cables
    .flat()
    .map((end) => end.split(':'))
    .flatMap(([name, device]) => (name === host && device ? [device] : []));
}

function configureHost(host: Host, interfaces: string[]): string[] {
  return [
    ...(host.switches ? ['link add name br0 type bridge mcast_snooping 0', 'link set br0 up'] : []),
    ...(host.switches ? interfaces.map((name) => `link set ${name} master br0`) : []),
    ...Object.entries(host.addresses ?? {}).map(([name, address]) => `address add ${address} dev ${name}`),
    ...['lo', ...interfaces].map((name) => `link set ${name} up`),
    ...(host.routes ?? []).map((route) => `route add ${route}`),
  ];
}

async function runBatch(options: string[], lines: string[], signal?: AbortSignal): Promise<void> {
  if (lines.length > 0)
    await runCommand('ip', [...options, '-batch', '-'], { input: `${lines.join('\n')}\n`, signal });
}
