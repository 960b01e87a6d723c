import type { ApplyResult, ChainView, DropsView, Status } from './api-schemas.js';
import type { Drains } from './drains.js';
import type { KeysView } from './keys.js';
import type { Mesh } from './mesh.js';
import type { Summary } from './summary.js';
import type { Trace, TraceQuery } from './trace.js';
import type { Watch, WatchQuery } from './watch.js';

export type { ApplyResult, ChainView, DropsView, Status } from './api-schemas.js';

/** The mesh document in force: `text` as it was written, `document` as it was understood. */
export interface AppliedMesh {
  generation: number;
  text: string;
  document: Mesh;
  /** The file it came from, or "API". */
  source: string;
}

/** What the API may ask of the running daemon. */
export interface Agent {
  status(): Promise<Status>;
  /** null before the first good document. */
  mesh(): AppliedMesh | null;
  /** Puts a checked document in force. Throws MESH_INVALID (details.problems), CAPACITY or KERNEL. */
  applyMesh(document: Mesh, text: string): Promise<ApplyResult>;
  /** The integrity keys, without the keys themselves. */
  keys(): KeysView;
  /** Puts keys in force. Throws KEYS_INVALID, which quotes none of them, or STORE. */
  applyKeys(text: string): KeysView;
  /** The nodes that flows are sent past. */
  drains(): Drains;
  /** Puts others in their place. Throws REQUEST_INVALID or STORE. */
  applyDrains(text: string): Drains;
  chains(): ChainView[];
  /** Sends probes down a path that begins here. Throws REQUEST_INVALID or MESH_ABSENT. */
  trace(query: TraceQuery): Promise<Trace>;
  /** What became of a flow's packets here since it was first asked for. Throws USAGE or TOO_MANY_REQUESTS. */
  watch(query: WatchQuery): Watch;
  /** What became of a chain's packets here. Throws REQUEST_INVALID or MESH_ABSENT. */
  summary(chain: string): Summary;
  drops(): Promise<DropsView>;
  /** Carries the kernel's flow counters into the store, so that a query sees them. */
  flush(): Promise<void>;
  /** Prometheus text format. */
  metrics(): Promise<string>;
}
