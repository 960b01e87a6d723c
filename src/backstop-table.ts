import {
  type Backstop,
  chainOfCounter,
  type Guarded,
  renderBackstop,
  renderPrograms,
  setName,
  tableName,
} from './backstop.js';
import type { Link } from './interfaces.js';
import type { Mesh } from './mesh.js';
import { listNft, runNft } from './nft.js';

/** Packets that the backstop dropped, by chain. */
export type Dropped = Record<string, { packets: number; bytes: number }>;

/** The backstop of this host in the kernel. Remembers what it put there, to write only what has changed. */
export class BackstopTable {
  #chains: readonly string[] = [];
  /** Null where there is no table, or one that an earlier daemon has written. */
  #text: string | null = null;
  /** The ports in force, as they were last written; null where nobody knows. */
  #indexes: readonly number[] | null = null;
  #rendered: { mesh: Mesh | undefined; mtu: number; backstop: Backstop | null } | null = null;
  /** Whether the kernel has the table; null before the first look. */
  #stands: boolean | null = null;

  /** The chains that are guarded. */
  get chains(): readonly string[] {
    return this.#chains;
  }

  /** Guards what any of these meshes asks for, but for packets between the ports in force. False where none asks. */
  async guard(meshes: readonly Mesh[], guarded: Guarded, indexes: readonly number[]): Promise<boolean> {
    const backstop = this.#render(meshes, guarded);
    if (backstop === null) return false;
    if (backstop.text === this.#text && (await this.#tryAdmit(indexes))) return true;
    await runNft(backstop.text + renderPrograms(indexes));
    this.#chains = backstop.chains;
    this.#text = backstop.text;
    this.#indexes = indexes;
    this.#stands = true;
    return true;
  }

  /** Makes these, and no others, the ports in force. */
  async admit(indexes: readonly number[]): Promise<void> {
    if (String(indexes) === String(this.#indexes) || !(await this.#look())) return;
    await runNft(renderPrograms(indexes));
    this.#indexes = indexes;
  }

  /** False where somebody else took the table away. */
  async #tryAdmit(indexes: readonly number[]): Promise<boolean> {
    return this.admit(indexes).then(
      () => true,
      () => false,
    );
  }

  async remove(): Promise<void> {
    if (await this.#look()) await removeTable();
    this.#chains = [];
    this.#forget(false);
  }

  /** Whether all is as it was written, for all that others may do to nftables; if not, it is written anew the next time. */
  async verify(links: readonly Link[]): Promise<boolean> {
    if (this.#indexes === null) return true;
    const found = await readPrograms(links);
    if (String(found) === String([...this.#indexes].sort((a, b) => a - b))) return true;
    this.#forget(found !== null);
    return false;
  }

  async readDropped(): Promise<Dropped | null> {
    return (await this.#look()) ? readDropped() : null;
  }

  /** Of 10,000 rules this takes 0.3 s, which an interface that comes back need not wait for. */
  #render([mesh, ...more]: readonly Mesh[], guarded: Guarded): Backstop | null {
    const { mtu } = guarded;
    if (more.length > 0 && mesh) return renderBackstop([mesh, ...more], guarded);
    if (this.#rendered?.mesh !== mesh || this.#rendered?.mtu !== mtu) {
      this.#rendered = { mesh, mtu, backstop: mesh ? renderBackstop([mesh], guarded) : null };
    }
    return this.#rendered.backstop;
  }

  async #look(): Promise<boolean> {
    this.#stands ??= (await readPrograms([])) !== null;
    return this.#stands;
  }

  #forget(stands: boolean): void {
    this.#text = null;
    this.#indexes = null;
    this.#stands = stands;
  }
}

/** Takes the backstop away; packets of all chains may leave un-chained from now on. */
export const removeTable = (): Promise<void> =>
  runNft(`add table ip ${tableName}\ndelete table ip ${tableName}\n`);

/** From now on everything that is guarded is dropped. Returns the chains; null where there is no backstop. */
export async function closeBackstop(): Promise<string[] | null> {
  const dropped = await readDropped();
  if (dropped === null) return null;
  await runNft(renderPrograms([]));
  return Object.keys(dropped);
}

/** What was dropped since the table was made, by chain; null where there is none. */
export async function readDropped(): Promise<Dropped | null> {
  const items = await listNft<{ counter?: { name: string; packets: number; bytes: number } }>(
    ...['counters', 'table', 'ip', tableName],
  );
  if (items === null) return null;
  const counters = items.flatMap(({ counter }) => counter ?? []);
  return Object.fromEntries(
    counters.map(({ name, packets, bytes }) => [chainOfCounter(name), { packets, bytes }]),
  );
}

/** The ifindexes in the set, in order; null where there is none. nft shows those that have a name by it. */
async function readPrograms(links: readonly Link[]): Promise<number[] | null> {
  const items = await listNft<{ set?: { elem?: string[] } }>('set', 'ip', tableName, setName);
  const found = items?.flatMap(({ set }) => set ?? [])[0];
  if (!found) return null;
  const indexOf = (name: string): number => links.find((link) => link.name === name)?.index ?? Number(name);
  return (found.elem ?? []).map(indexOf).sort((a, b) => a - b);
}
