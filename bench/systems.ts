import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { callApi } from '../src/client.js';
import { agentHosts, apiSocket, hostFolder, meshFile } from '../src/lab-standing.js';
import { loadMesh } from '../src/mesh-file.js';
import { type BpfObject, loadNative } from '../src/native.js';
import type { TestLab } from '../tests/helpers/namespaces.js';
import { address, options, sourceRoute } from '../tests/helpers/packet.js';
import { attachAgents, detachAgents } from './road.js';

/** One way to have packets go over edge, fw, ids and gw. What `enter` has set up, `leave` takes back. */
export interface System {
  name: string;
  /** IPv4 destination and options of the packets that the client sends. */
  packet: { destination: string; options: Buffer };
  enter(lab: TestLab, tools: Tools): Promise<void>;
  leave(lab: TestLab): Promise<void>;
}

export interface Tools {
  /** forward.bpf.c, compiled. */
  object: string;
  signal: AbortSignal;
}

const server = '10.9.0.10';
const none = Buffer.alloc(0);
const plainPacket = { destination: server, options: none };
const nodes = { edge: '10.0.0.1', fw: '10.0.0.2', ids: '10.0.0.3', gw: '10.0.0.4' };

export const systems: readonly System[] = [
  {
    name: 'kernel forwarding',
    packet: plainPacket,
    enter: async () => undefined,
    leave: async () => undefined,
  },
  { name: 'redirect only', packet: plainPacket, enter: enterRedirect, leave: (lab) => leaveRedirect(lab) },
  {
    name: 'chain',
    packet: plainPacket,
    enter: (lab, { signal }) => attachAgents(lab, signal),
    leave: detachAgents,
  },
  { name: 'chain, past the stack', packet: plainPacket, enter: enterBypass, leave: leaveBypass },
  { name: 'chain, integrity', packet: plainPacket, enter: enterIntegrity, leave: leaveIntegrity },
  {
    name: "the kernel's LSRR",
    packet: {
      destination: '10.1.0.1',
      options: options(sourceRoute([nodes.fw, nodes.ids, nodes.gw, server])),
    },
    enter: (lab) => setSourceRoutes(lab, 1),
    leave: (lab) => setSourceRoutes(lab, 0),
  },
  { name: 'SRv6', packet: plainPacket, enter: enterSegments, leave: leaveSegments },
];

/** Where each host has a packet from its port in, and to. */
const onward = {
  edge: { input: 'edge0', output: 'mesh0', next: nodes.fw },
  fw: { input: 'mesh0', output: 'mesh0', next: nodes.ids },
  ids: { input: 'mesh0', output: 'mesh0', next: nodes.gw },
  gw: { input: 'mesh0', output: 'edge0', next: server },
} as const;

const opened: BpfObject[] = [];

async function enterRedirect(lab: TestLab, { object }: Tools): Promise<void> {
  for (const host of agentHosts) {
    const { input, output, next } = onward[host];
    const [link] = JSON.parse(await lab.on(host, 'ip', '-json', 'link', 'show', output)) as {
      ifindex: number;
    }[];
    const value = Buffer.alloc(8);
    value.writeUInt32LE(link?.ifindex ?? 0);
    address(next).copy(value, 4);
    const loaded = await attach(lab, host, input, object, 'redirect');
    loaded.map('onward').put(Buffer.alloc(4), value);
    opened.push(loaded);
  }
}

async function leaveRedirect(lab: TestLab): Promise<void> {
  for (const host of agentHosts)
    await lab.on(host, 'tc', 'qdisc', 'del', 'dev', onward[host].input, 'clsact');
  for (const object of opened.splice(0)) object.close();
}

/** Puts a program of forward.bpf.c on a device of a host. The caller closes what is returned. */
export async function attach(
  lab: TestLab,
  host: string,
  device: string,
  file: string,
  program: 'redirect' | 'sink',
): Promise<BpfObject> {
  const object = loadNative().openObject(file);
  object.load();
  const folder = join(lab.bpffs, 'bench');
  mkdirSync(folder, { recursive: true });
  const pin = join(folder, `${host}-${program}-${pins++}`);
  object.program(program).pin(pin);
  await lab.on(host, 'tc', 'qdisc', 'add', 'dev', device, 'clsact');
  await lab.on(
    host,
    'tc',
    'filter',
    'add',
    'dev',
    device,
    'ingress',
    'bpf',
    'direct-action',
    'object-pinned',
    pin,
  );
  return object;
}
let pins = 0;

/** `stack: bypass` on each port. */
async function enterBypass(lab: TestLab, { signal }: Tools): Promise<void> {
  for (const host of agentHosts) {
    const file = configFile(lab, host);
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, text.replaceAll(/(edge0|mesh0): (\w+)/g, '$1: { role: $2, stack: bypass }'));
  }
  await attachAgents(lab, signal);
}

async function leaveBypass(lab: TestLab): Promise<void> {
  await detachAgents(lab);
  for (const host of agentHosts) {
    const file = configFile(lab, host);
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, text.replaceAll(/\{ role: (\w+), stack: bypass \}/g, '$1'));
  }
}

const configFile = (lab: TestLab, host: string): string => `${hostFolder(lab, host)}/agent.yaml`;

async function enterIntegrity(lab: TestLab, { signal }: Tools): Promise<void> {
  await attachAgents(lab, signal);
  const keys = { sending: 0, keys: [{ slot: 0, key: '00112233445566778899aabbccddeeff' }] };
  await putEverywhere(lab, '/v1/keys', keys);
  await putEverywhere(lab, '/v1/mesh', { ...loadMesh(meshFile).mesh, integrity: 'require' });
}

/** An agent keeps the document that it was given last. */
async function leaveIntegrity(lab: TestLab): Promise<void> {
  await putEverywhere(lab, '/v1/mesh', loadMesh(meshFile).mesh);
  await detachAgents(lab);
}

/** The edge last, so that nothing is sent early. */
async function putEverywhere(lab: TestLab, path: string, document: unknown): Promise<void> {
  const body = JSON.stringify(document);
  const request = { method: 'PUT', path, body, contentType: 'application/json' } as const;
  for (const host of agentHosts.toReversed()) await callApi(apiSocket(lab, host), request);
}

async function setSourceRoutes(lab: TestLab, value: 0 | 1): Promise<void> {
  const loop = `for file in /proc/sys/net/ipv4/conf/*/accept_source_route; do echo ${value} >$file; done`;
  await Promise.all(agentHosts.map((host) => lab.on(host, 'sh', '-ec', loop)));
}

/** RFC 8986: H.Encaps at edge, End at fw and ids, End.DX4 at gw. */
async function enterSegments(lab: TestLab): Promise<void> {
  const [edge, fw, ids, gw] = ['fd00::1', 'fd00::2', 'fd00::3', 'fd00::4'] as const;
  const segments = { fw: 'fd00:2::1', ids: 'fd00:3::1', gw: 'fd00:4::1' };
  const addresses = { edge, fw, ids, gw };
  const allow =
    'for n in default lo mesh0 all; do echo 0 >/proc/sys/net/ipv6/conf/$n/dad_transmits; echo 0 >/proc/sys/net/ipv6/conf/$n/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/$n/seg6_enabled; echo 1 >/proc/sys/net/ipv6/conf/$n/forwarding; done';
  for (const host of agentHosts) {
    await lab.on(host, 'sh', '-ec', allow);
    await lab.on(host, 'ip', 'address', 'add', `${addresses[host]}/64`, 'dev', 'mesh0', 'nodad');
  }
  const route = (host: string, ...words: string[]) => lab.on(host, 'ip', '-6', 'route', 'add', ...words);
  const local = (host: 'fw' | 'ids' | 'gw', ...action: string[]) =>
    route(host, `${segments[host]}/128`, 'encap', 'seg6local', 'action', ...action, 'dev', 'mesh0');
  await route('edge', `${segments.fw}/128`, 'via', fw);
  await route('fw', `${segments.ids}/128`, 'via', ids);
  await route('ids', `${segments.gw}/128`, 'via', gw);
  await local('fw', 'End');
  await local('ids', 'End');
  await local('gw', 'End.DX4', 'nh4', server);
  for (const [host, next] of [
    ['edge', fw],
    ['fw', ids],
    ['ids', gw],
  ] as const)
    await lab.on(host, 'ping', '-6', '-n', '-c', '1', '-w', '5', next);
  const list = Object.values(segments).join();
  const steer = ['10.9.0.0/24', 'encap', 'seg6', 'mode', 'encap', 'segs', list, 'dev', 'mesh0'];
  await lab.on('edge', 'ip', 'route', 'replace', ...steer);
}

async function leaveSegments(lab: TestLab): Promise<void> {
  await lab.on('edge', 'ip', 'route', 'replace', '10.9.0.0/24', 'via', nodes.fw);
  for (const host of agentHosts)
    await lab.on(host, 'ip', '-6', 'address', 'flush', 'dev', 'mesh0', 'scope', 'global');
  for (const host of agentHosts) await lab.on(host, 'ip', '-6', 'route', 'flush', 'proto', 'boot');
}
