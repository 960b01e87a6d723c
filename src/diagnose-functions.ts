import type { AgentConfig } from './agent-config.js';
import { error, type Finding, ok, warning } from './diagnosis.js';
import { describeFunctions } from './functions.js';
import { findPorts, type Link } from './interfaces.js';
import { type Mesh, type MeshService, runsOn } from './mesh.js';

/** Of a sysctl under /proc/sys, or null. */
type Read = (path: string) => string | null;

/** What the functions of this host need of it: their devices, and a kernel that lets their packets pass. */
export function diagnoseFunctions(
  mesh: Mesh,
  config: AgentConfig,
  links: readonly Link[],
  read: Read,
): Finding[] {
  const services = Object.entries(mesh.services ?? {}).filter(([name]) => runsOn(mesh, name, config.node));
  const present = findPorts(config.interfaces, links).map(({ name }) => name);
  const meshPorts = config.interfaces
    .filter(({ name, role }) => role === 'mesh' && present.includes(name))
    .map(({ name }) => name);
  const hasStack = services.some(([, { function: kind }]) => kind === 'stack');
  const last = findLastHops(mesh, config.node);
  const lastReturns = findReturnDevices(services.filter(([name]) => last.includes(name)));
  const returns = findReturnDevices(services).filter((name) => present.includes(name));
  return [
    ...diagnoseDevices(mesh, config, present),
    ...(hasStack || last.length > 0 ? diagnoseForwarding([...meshPorts, ...lastReturns], read) : []),
    ...diagnoseFilter(hasStack ? meshPorts : [], returns, lastReturns, read),
    ...(hasStack ? diagnoseRedirects(meshPorts, read) : []),
  ];
}

/** Names of the services that end a chain on this node and leave the packet to its stack; the node's own where it has none. */
function findLastHops(mesh: Mesh, node: string): string[] {
  return Object.values(mesh.chains).flatMap((chain) => {
    const name = chain.hops.at(-1);
    if (name === undefined || !runsOn(mesh, name, node)) return [];
    return mesh.services?.[name]?.function === 'terminate' ? [] : [name];
  });
}

const findReturnDevices = (services: readonly [string, MeshService][]): string[] => [
  ...new Set(
    services.flatMap(([, { function: kind, device, returnDevice = device }]) =>
      kind === 'inline' && returnDevice !== undefined ? [returnDevice] : [],
    ),
  ),
];

function diagnoseDevices(mesh: Mesh, config: AgentConfig, present: readonly string[]): Finding[] {
  return describeFunctions(mesh, config.node, config.interfaces, present).map(
    ({ service, function: kind, error: fault, advice }) =>
      fault === undefined ? ok(`service ${service}`, kind) : error(`service ${service}`, fault, advice ?? ''),
  );
}

/** The kernel asks the interface that a packet came in at (include/linux/inetdevice.h, IN_DEV_FORWARD). */
function diagnoseForwarding(ports: readonly string[], read: Read): Finding[] {
  return [...new Set(ports)]
    .filter((name) => read(`net/ipv4/conf/${name}/forwarding`) === '0')
    .map((name) =>
      error(
        `forwarding on ${name}`,
        '0',
        `sysctl -w net.ipv4.conf.${name}.forwarding=1; this host's stack has to forward packets of its functions, and of chains that end here`,
      ),
    );
}

/** The greater of `all` and the interface holds (IN_DEV_RPFILTER); 1 is strict, RFC 3704 §2.2. */
function diagnoseFilter(
  stack: readonly string[],
  returns: readonly string[],
  lastReturns: readonly string[],
  read: Read,
): Finding[] {
  const strict = (name: string): boolean =>
    ['all', name]
      .map((scope) => Number(read(`net/ipv4/conf/${scope}/rp_filter`) ?? 0))
      .sort()
      .at(-1) === 1;
  return [...new Set([...stack, ...returns])].filter(strict).map((name) => {
    const check = `rp_filter on ${name}`;
    const advice = `sysctl -w net.ipv4.conf.${name}.rp_filter=2`;
    if (lastReturns.includes(name))
      return error(
        check,
        'strict (1)',
        `${advice}; a chain ends behind it, and its sources are never routed there: the kernel drops all its packets`,
      );
    return warning(
      check,
      'strict (1)',
      `${advice}; else the kernel drops packets whose source is routed by another interface, and nothing of ours counts them`,
    );
  });
}

/** On where either `all` or the interface says so (IN_DEV_TX_REDIRECTS). */
function diagnoseRedirects(ports: readonly string[], read: Read): Finding[] {
  const open = ['all', ...ports].filter((name) => read(`net/ipv4/conf/${name}/send_redirects`) === '1');
  if (open.length === 0) return [ok('send_redirects', 'off')];
  return [
    warning(
      'send_redirects',
      `on for ${open.join(', ')}`,
      `sysctl -w ${open.map((name) => `net.ipv4.conf.${name}.send_redirects=0`).join(' ')}; packets that pass a function in the stack leave by the port that they came in at, so a source on the same network would be told to go around this host`,
    ),
  ];
}
