import type { Way } from './path-row.js';
import type { Connection, Statement } from './store-file.js';

/** Table `way`, held in memory too: a mesh has few paths, and a way is one of them with what came of it. */
export class WayTable {
  readonly #connection: Connection;
  readonly #add: Statement;
  readonly #ways = new Map<number, Way>();
  readonly #numbers = new Map<string, number>();

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#add = connection.prepare(
      'INSERT INTO way (chain, generation, verdict, integrity, expected) VALUES (?, ?, ?, ?, ?)',
    );
    this.reload();
  }

  get all(): ReadonlyMap<number, Way> {
    return this.#ways;
  }

  /** After a transaction that was rolled back. */
  reload(): void {
    this.#ways.clear();
    this.#numbers.clear();
    for (const row of this.#connection.prepare('SELECT * FROM way').all() as (Way & { id: number })[]) {
      const { id, chain, generation, verdict, integrity, expected } = row;
      this.#remember(id, { chain, generation, verdict, integrity, expected });
    }
  }

  /** Adds it where it is not there. */
  numberOf(way: Way): number {
    const known = this.#numbers.get(JSON.stringify(way));
    if (known !== undefined) return known;
    const { chain, generation, verdict, integrity, expected } = way;
    const { lastInsertRowid } = this.#add.run(chain, generation, verdict, integrity, expected);
    this.#remember(Number(lastInsertRowid), way);
    return Number(lastInsertRowid);
  }

  #remember(number: number, way: Way): void {
    this.#ways.set(number, way);
    this.#numbers.set(JSON.stringify(way), number);
  }
}
