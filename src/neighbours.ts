import { execa } from 'execa';
import { type Address, parseAddress } from './address.js';

/** MAC address, as `ip` writes it -> IPv4 address, of the neighbours that the kernel knows now. */
export async function listNeighbours(): Promise<Map<string, Address>> {
  const { stdout } = await execa('ip', ['-j', '-4', 'neigh', 'show']);
  const rows = JSON.parse(stdout || '[]') as { dst: string; lladdr?: string }[];
  return new Map(
    rows.flatMap(({ dst, lladdr }) => {
      const address = parseAddress(dst);
      return lladdr === undefined || address === null ? [] : [[lladdr, address] as const];
    }),
  );
}
