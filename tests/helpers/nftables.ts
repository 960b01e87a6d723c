import type { TestLab } from './namespaces.js';

/** Adds nftables rules on a host. */
export async function addRules(lab: TestLab, host: string, rules: string): Promise<void> {
  await lab.on(host, 'sh', '-c', 'printf "%s\\n" "$1" | nft -f -', 'sh', rules);
}

/** Adds a table, `family name`, for the time of an action. */
export async function withTable(
  lab: TestLab,
  host: string,
  table: string,
  rules: string,
  action: () => Promise<void>,
): Promise<void> {
  await addRules(lab, host, `table ${table} {\n${rules}\n}`);
  try {
    await action();
  } finally {
    await lab.on(host, 'nft', 'delete', 'table', ...table.split(' '));
  }
}

/** Packets that a named counter of nftables has counted; `table` with its family. */
export async function readCounter(lab: TestLab, host: string, table: string, name: string): Promise<number> {
  const printed = await lab.on(host, 'nft', 'list', 'counter', ...table.split(' '), name);
  return Number(/packets (\d+)/.exec(printed)?.[1] ?? Number.NaN);
}
