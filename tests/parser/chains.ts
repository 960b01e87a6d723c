/** Chains of every shape, as host fw of tests/helpers/testbed.ts sees them. */
import { formatAddress, parseAddress } from '../../src/address.js';
import { type Keys, readKeys } from '../../src/keys.js';
import { OPTION_BYTES_MAX, TAG_BYTES } from '../../src/limits.js';
import type { Mesh } from '../../src/mesh.js';
import { headerAt } from '../../src/path.js';
import { pathsOf, type Rendered, renderMesh } from '../../src/render.js';
import { type Ipv4, ipv4, udp } from '../helpers/packet.js';

export const node = 'fw';
export const client = '10.1.0.10';
export const server = '10.9.0.10';

const hops = ['edge', 'fw', 'ids', 'gw', 'n5', 'n6', 'n7', 'n8', 'n9'] as const;

export const mesh: Mesh = {
  version: 1,
  nodes: {
    ...Object.fromEntries(hops.map((name, i) => [name, { address: `10.0.0.${i + 1}` }])),
    far: { address: '10.0.7.7' },
    lost: { address: '10.77.0.1' },
    aside: { address: '10.1.0.77' },
    origin: { address: '10.0.0.20' },
  },
  chains: {
    through: { hops: ['edge', 'fw', 'ids', 'gw'], record: 2 },
    'through-strict': { hops: ['fw', 'gw'], mode: 'strict' },
    'through-far': { hops: ['fw', 'far'], mode: 'strict' },
    'through-lost': { hops: ['edge', 'fw', 'lost'] },
    'through-aside': { hops: ['fw', 'aside'], record: 1 },
    'from-aside': { hops: ['aside', 'fw', 'ids'] },
    sealed: { hops: ['edge', 'fw', 'ids'], record: 1, integrity: 'require' },
    'sealed-in': { hops: ['ids', 'fw'], integrity: 'verify', binding: 'addresses' },
    longest: { hops: [...hops] },
    'longest-recorded': { hops: ['edge', 'ids', 'gw', 'fw'], record: 4 },
    in: { hops: ['edge', 'ids', 'fw'], record: 2 },
    only: { hops: ['fw'], record: 7 },
    'only-strict': { hops: ['fw'], mode: 'strict' },
    out: { hops: ['ids', 'gw'], record: 1 },
  },
  rules: [],
};
mesh.rules = Object.keys(mesh.chains).map((chain, index) => ({
  name: chain,
  at: [chain === 'out' ? 'fw' : 'origin'],
  match: { destination: '10.9.0.0/24', destinationPorts: [1000 + index], protocol: 'udp' },
  chain,
  priority: index + 1,
}));

/** In slot 0, and run out in slot 2: no packet here is signed with them. */
export const keysText = JSON.stringify({
  sending: 0,
  keys: [
    { slot: 0, key: '5a'.repeat(16) },
    { slot: 2, key: '6b'.repeat(16), until: '2020-01-01T00:00:00Z' },
  ],
});
export const keys: Keys = readKeys(keysText, 'keys');

export const rendered: Rendered = renderMesh(mesh);

/** The packets of all chains as they arrive at each hop, their tags zero: whole, as the first fragment, as a later one, and
 * without a tag that they should have, or with one that they should not. */
export function makeChainPackets(): Buffer[] {
  return rendered.chains.flatMap(pathsOf).flatMap((path) =>
    path.hops.flatMap((_, index) => {
      const header = headerAt(path, index + 1, parseAddress(server) ?? 0);
      const whole: Ipv4 = {
        source: client,
        destination: formatAddress(header.destination),
        options: header.options,
        payload: udp(),
      };
      const packets = [
        whole,
        { ...whole, fragment: 0x2000 },
        { ...blank(whole), fragment: 0x0001 },
        { ...whole, options: toggleTag(header.options) },
      ];
      return packets
        .filter(({ options = [] }) => options.length <= OPTION_BYTES_MAX)
        .map((packet) => Buffer.from(ipv4(packet)));
    }),
  );
}

/** Without its integrity option, or with one. */
const toggleTag = (options: Uint8Array): Uint8Array =>
  options[0] === 158
    ? options.subarray(TAG_BYTES)
    : Buffer.concat([Buffer.from([158, TAG_BYTES]), Buffer.alloc(TAG_BYTES - 2), options]);

/** As Linux leaves Record Route in a later fragment (net/ipv4/ip_options.c, ip_options_fragment). */
function blank(packet: Ipv4): Ipv4 {
  const bytes = Buffer.from(packet.options ?? []);
  const route = bytes[0] === 158 ? 12 : 0;
  const at = route + (bytes[route + 1] ?? 0);
  return { ...packet, options: bytes.fill(1, at, at + (bytes[at + 1] ?? 0)) };
}
