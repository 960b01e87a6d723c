import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { IcmpPolicy } from './agent-config.js';
import { callApi } from './client.js';
import { runCommand } from './lab-command.js';
import { type LabProcess, startProcess, stopProcesses } from './lab-processes.js';
import { buildTopology, labTopology, listInterfaces, removeTopology, type Topology } from './lab-topology.js';
import { type PortRole, portRoles } from './role.js';

/** A lab by name. The users' one is `lab`; tests take other names and so never meet it. */
export interface Lab {
  name: string;
  topology: Topology;
  /** Namespace of a host = prefix + host. */
  prefix: string;
  /** Configuration, sockets, logs: a folder a host. */
  folder: string;
  bpffs: string;
}

export interface LabOptions {
  /** Mesh document that every agent starts with. */
  mesh?: string;
  /** Hosts that run an agent. */
  agents?: readonly string[];
  /** The ICMP policy of every agent; its default where not given. */
  icmp?: IcmpPolicy;
  /** Chains begin and end past the hosts' own stacks. */
  bypass?: boolean;
  /** Starts what the server serves; a small web server where not given. */
  serve?: (lab: Lab, signal?: AbortSignal) => Promise<void>;
  signal?: AbortSignal;
}

export const agentHosts = ['edge', 'fw', 'ids', 'gw'] as const;
export const meshFile = packageFile('lab/mesh.yaml');
export const directMeshFile = packageFile('lab/mesh-direct.yaml');
export const program = packageFile('dist/cli.js');

const bpffsMount = '/sys/fs/bpf';

export function describeLab(name = 'lab', topology = labTopology): Lab {
  const prefix = name === 'lab' ? 'lsr-' : `lsr-${name}-`;
  return {
    name,
    topology,
    prefix,
    folder: `/run/lsr-agent/${name}`,
    bpffs: `${bpffsMount}/lsr-agent/${name}`,
  };
}

/** Builds the lab anew: hosts, agents with their own configuration, the web server. Removes an earlier one first. */
export async function raiseLab(lab: Lab, options: LabOptions = {}): Promise<void> {
  const { mesh = meshFile, agents = agentHosts, icmp, bypass, serve = startWebServer, signal } = options;
  await razeLab(lab);
  mkdirSync(lab.folder, { recursive: true });
  await mountBpffs();
  await buildTopology(lab.topology, lab.prefix, signal);
  for (const host of agents) configureAgent(lab, host, mesh, { icmp, bypass });
  await Promise.all([...agents.map((host) => startAgent(lab, host, signal)), serve(lab, signal)]);
}

/** Removes the lab, whatever is left of it, and returns what that was. */
export async function razeLab(lab: Lab): Promise<string[]> {
  const removed: string[] = [];
  for (const host of Object.keys(lab.topology.hosts)) {
    const pids = await stopProcesses(lab.prefix + host, hostFolder(lab, host));
    removed.push(...pids.map((pid) => `process ${pid} in ${lab.prefix}${host}`));
  }
  const namespaces = await removeTopology(lab.topology, lab.prefix);
  removed.push(...namespaces.map((name) => `namespace ${name}`));
  for (const folder of [lab.bpffs, lab.folder].filter(existsSync)) {
    rmSync(folder, { recursive: true });
    removed.push(folder);
    removeIfEmpty(dirname(folder));
  }
  return removed;
}

/** Starts a host's agent with the configuration that raiseLab wrote; returns its process id once it is ready. */
export function startAgent(lab: Lab, host: string, signal?: AbortSignal): Promise<number> {
  const folder = hostFolder(lab, host);
  const command = [process.execPath, program, 'daemon', '--config', `${folder}/agent.yaml`];
  const agent: LabProcess = { namespace: lab.prefix + host, folder, command };
  const isReady = async (): Promise<boolean> => {
    const status = await callApi<{ state: string }>(apiSocket(lab, host), { path: '/v1/status' }).catch(
      () => null,
    );
    return status?.state === 'ready';
  };
  return startProcess(agent, isReady, signal);
}

/** Puts a mesh document in force on the hosts with agents: the hops first, the edges last, so that nothing is sent early. */
export async function applyMesh(lab: Lab, mesh: string, signal?: AbortSignal): Promise<void> {
  const apply = (host: string): Promise<string> =>
    runCommand(process.execPath, [program, '--api', apiSocket(lab, host), 'apply', mesh], { signal });
  await Promise.all(agentHosts.filter((host) => host !== 'edge').map(apply));
  await apply('edge');
}

export function apiSocket(lab: Lab, host: string): string {
  return `${hostFolder(lab, host)}/api.sock`;
}

export function hostFolder(lab: Lab, host: string): string {
  return `${lab.folder}/${host}`;
}

/** Names of labs that were raised and not razed. */
export function listLabs(): string[] {
  const folder = '/run/lsr-agent';
  return existsSync(folder)
    ? readdirSync(folder, { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? e.name : []))
    : [];
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // Other labs or the host's own agent live there.
  }
}

function configureAgent(
  lab: Lab,
  host: string,
  mesh: string,
  { icmp, bypass }: { icmp?: IcmpPolicy | undefined; bypass?: boolean | undefined },
): void {
  const folder = hostFolder(lab, host);
  mkdirSync(folder, { recursive: true });
  copyFileSync(mesh, `${folder}/mesh.yaml`);
  const roles = listInterfaces(lab.topology, host).map((name) => {
    const role = roleOf(name);
    const skips = bypass && (role === 'edge' || role === 'mesh');
    return `${name}: ${skips ? `{ role: ${role}, stack: bypass }` : role}`;
  });
  const lines = [
    `node: ${host}`,
    `mesh: ${folder}/mesh.yaml`,
    `interfaces: { ${roles.join(', ')} }`,
    `api: { socket: ${folder}/api.sock, listen: 127.0.0.1:7913 }`,
    `store: ${folder}/audit.db`,
    `bpffs: ${lab.bpffs}/${host}`,
    ...(icmp ? [`icmp: ${icmp}`] : []),
  ];
  writeFileSync(`${folder}/agent.yaml`, `${lines.join('\n')}\n`);
}

/** Interfaces of the lab are called after what is behind them. */
const roleOf = (name: string): PortRole => portRoles.find((role) => name.startsWith(role)) ?? 'mesh';

async function startWebServer(lab: Lab, signal?: AbortSignal): Promise<void> {
  if (!lab.topology.hosts.server) return;
  const folder = hostFolder(lab, 'server');
  mkdirSync(folder, { recursive: true });
  const command = [process.execPath, packageFile('dist/lab-server.js'), `${folder}/ready`];
  const isReady = async (): Promise<boolean> => existsSync(`${folder}/ready`);
  await startProcess({ namespace: `${lab.prefix}server`, folder, command }, isReady, signal);
}

async function mountBpffs(): Promise<void> {
  const mounted = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[1] === bpffsMount && line.split(' ')[2] === 'bpf');
  if (!mounted) await runCommand('mount', ['-t', 'bpf', 'bpf', bpffsMount]);
}

/** A file beside package.json, from src/ as from dist/. */
export function packageFile(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}
