import { existsSync, readFileSync } from 'node:fs';
import { execa } from 'execa';
import type { AgentConfig } from './agent-config.js';
import { renderBackstop } from './backstop.js';
import { readDropped } from './backstop-table.js';
import { findCgroupRoot, findCgroups, listCgroups } from './cgroups.js';
import { diagnoseFunctions } from './diagnose-functions.js';
import { error, type Finding, ok, warning } from './diagnosis.js';
import { type Link, listLinks } from './interfaces.js';
import { ETHERNET_MTU } from './limits.js';
import type { MeshRule } from './mesh.js';
import { type Loaded, lastGoodFile, loadWanted } from './mesh-store.js';
import { loadNative } from './native.js';
import { requireNft } from './nft.js';
import { readSysctl } from './sysctl.js';

/** Probes what this host lets an agent do. Nothing is changed. */
export async function diagnose(config: AgentConfig | null): Promise<Finding[]> {
  const links = await listLinks();
  // The document that the daemon would start with.
  const loaded = config && loadWanted(config.mesh, lastGoodFile(config.store)).loaded;
  const managed = config
    ? links.filter(({ name }) => config.interfaces.some((port) => port.name === name))
    : [];
  return [
    checkKernel(),
    ...checkFeatures(),
    checkTcx(),
    ...checkCapabilities(),
    checkBpffs(),
    checkForwarding(),
    ...(config ? [await checkBackstop(config, loaded)] : []),
    ...checkSourceRoutes(managed),
    ...(config ? checkInterfaces(config, links) : []),
    ...(config && loaded ? diagnoseFunctions(loaded.mesh, config, links, readSysctl) : []),
    ...(config && loaded ? checkCgroups(loaded.mesh.rules, config.node) : []),
    ...(await Promise.all(managed.map(checkForeignPrograms))),
  ];
}

/** linux/bpf.h: BPF_PROG_TYPE_SCHED_CLS, map types and helpers that the programs use. */
const schedCls = 3;
const mapTypes = { hash: 1, array: 2, 'per-CPU array': 6, 'LPM trie': 11, 'ring buffer': 27 };
const helpers = {
  bpf_skb_adjust_room: 50,
  bpf_fib_lookup: 69,
  bpf_ktime_get_boot_ns: 125,
  bpf_ringbuf_reserve: 131,
  bpf_redirect_neigh: 152,
  bpf_loop: 181,
  bpf_skb_ancestor_cgroup_id: 83,
  bpf_ktime_get_tai_ns: 208,
};

function checkKernel(): Finding {
  const release = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
  const [major = 0, minor = 0] = release.split('.').map(Number);
  const enough = major > 6 || (major === 6 && minor >= 1);
  return enough
    ? ok('kernel', release)
    : error(
        'kernel',
        release,
        'Linux 6.1 or newer is needed (bpf_loop, bpf_ktime_get_tai_ns); Debian 12 has it',
      );
}

function checkCgroups(rules: readonly MeshRule[], node: string): Finding[] {
  const named = listCgroups(rules, node);
  const found = findCgroups(named);
  const root = findCgroupRoot();
  return named.map((cgroup) => {
    const check = `cgroup ${cgroup}`;
    if (found.has(cgroup)) return ok(check, `in ${root}`);
    const where = root === null ? 'cgroup2 is not mounted' : `not in ${root}`;
    return warning(check, where, 'until it is there, packets of its sockets match no rule that names it');
  });
}

function checkFeatures(): Finding[] {
  const native = loadNative();
  const missing = [
    ...(native.probeProgramType(schedCls) ? [] : ['tc programs']),
    ...Object.entries(mapTypes).flatMap(([name, type]) =>
      native.probeMapType(type) ? [] : [`${name} maps`],
    ),
    ...Object.entries(helpers).flatMap(([name, id]) => (native.probeHelper(schedCls, id) ? [] : [name])),
  ];
  const btf = existsSync('/sys/kernel/btf/vmlinux');
  return [
    missing.length === 0
      ? ok('BPF', 'program type, map types and helpers are there')
      : error('BPF', `missing or not allowed: ${missing.join(', ')}`, 'run as root, or on a newer kernel'),
    btf
      ? ok('BTF', '/sys/kernel/btf/vmlinux')
      : warning(
          'BTF',
          'the kernel has none',
          'verifier messages will name no source lines; CONFIG_DEBUG_INFO_BTF=y',
        ),
  ];
}

function checkTcx(): Finding {
  try {
    return loadNative().queryTcx(1, 'ingress') === null
      ? ok('attach', 'clsact filters; the kernel has no tcx (6.6 and newer have)')
      : ok('attach', 'tcx links');
  } catch (refused) {
    return error('attach', (refused as Error).message, 'run as root, or with CAP_BPF and CAP_NET_ADMIN');
  }
}

const capabilities = { CAP_NET_ADMIN: 12n, CAP_BPF: 39n };

function checkCapabilities(): Finding[] {
  const [, hex = '0'] = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  const effective = BigInt(`0x${hex}`);
  return Object.entries(capabilities).map(([name, bit]) =>
    (effective >> bit) & 1n
      ? ok(name, 'held')
      : error(name, 'missing', 'run as root, or give the service this capability'),
  );
}

function checkBpffs(): Finding {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '));
  const found = mounts.find(([, , type]) => type === 'bpf');
  return found
    ? ok('bpffs', `mounted on ${found[1]}`)
    : error('bpffs', 'not mounted', 'mount -t bpf bpf /sys/fs/bpf; systemd does so by itself');
}

function checkForwarding(): Finding {
  const value = readSysctl('net/ipv4/ip_forward');
  return value === '1'
    ? ok('ip_forward', '1')
    : error(
        'ip_forward',
        value ?? 'unknown',
        'sysctl -w net.ipv4.ip_forward=1; without, hops have no route to the next',
      );
}

async function checkBackstop(config: AgentConfig, loaded: Loaded | null): Promise<Finding> {
  const guarded = { node: config.node, ports: config.interfaces, mtu: ETHERNET_MTU };
  const { chains } = (loaded && renderBackstop([loaded.mesh], guarded)) ?? { chains: [] };
  if (chains.length === 0) return ok('nftables', 'not needed: no chain of this node has `onMissing: drop`');
  const found = `needed by chain ${chains.join(', ')}`;
  try {
    await requireNft();
    const dropped = await readDropped();
    return dropped === null
      ? error(
          'nftables',
          `${found}; there is no backstop`,
          'start the daemon, or run `lsr-agent backstop --config FILE`',
        )
      : ok('nftables', `${found}; the backstop stands`);
  } catch (refused) {
    return error(
      'nftables',
      `${found}: ${(refused as Error).message}`,
      'apt-get install nftables; run as root',
    );
  }
}

/** The kernel takes the AND of `all` and the interface (include/linux/inetdevice.h, IN_DEV_SOURCE_ROUTE). */
function checkSourceRoutes(managed: readonly Link[]): Finding[] {
  if (readSysctl('net/ipv4/conf/all/accept_source_route') !== '1') {
    return [ok('accept_source_route', 'off: the kernel itself honours no source route')];
  }
  const open = managed.filter(({ name }) => readSysctl(`net/ipv4/conf/${name}/accept_source_route`) === '1');
  return [
    error(
      'accept_source_route',
      `on for all${open.length > 0 ? ` and ${open.map(({ name }) => name).join(', ')}` : ''}`,
      'sysctl -w net.ipv4.conf.all.accept_source_route=0; lsr-agent never needs it, and it lets outsiders route through this host',
    ),
  ];
}

function checkInterfaces(config: AgentConfig, links: readonly Link[]): Finding[] {
  return config.interfaces.map(({ name, role }) => {
    const link = links.find((candidate) => candidate.name === name);
    const check = `interface ${name}`;
    if (!link) {
      const known = links.map((candidate) => candidate.name).join(', ');
      return error(check, 'does not exist', `correct agent.yaml; this host has ${known}`);
    }
    const found = `${role}, MTU ${link.mtu}`;
    if (role === 'mesh' && link.mtu < 1540) {
      return warning(
        check,
        found,
        'packets of 1500 bytes do not fit once options are in them: TCP is clamped, other full-size packets are dropped as too_big. An MTU of 1540 on the mesh avoids that',
      );
    }
    return ok(check, found);
  });
}

async function checkForeignPrograms({ name }: Link): Promise<Finding> {
  const check = `tc filters on ${name}`;
  const listed = await Promise.all(
    ['ingress', 'egress'].map((side) =>
      execa('tc', ['-j', 'filter', 'show', 'dev', name, side], { reject: false }),
    ),
  );
  const filters = listed.flatMap(
    ({ stdout }) => JSON.parse(stdout || '[]') as { options?: { bpf_name?: string } }[],
  );
  const foreign = filters
    .flatMap(({ options }) => options?.bpf_name ?? [])
    .filter((bpf) => !bpf.startsWith('lsr_'));
  return foreign.length === 0
    ? ok(check, 'none but ours')
    : warning(
        check,
        foreign.join(', '),
        'they see packets before or after ours; check that they expect IPv4 options',
      );
}
