/** Bytes of an IPv4 header without options; IHL is at most 15 words, which leaves 40 for options (RFC 791 §3.1). */
export const BASE_HEADER_BYTES = 20;
export const OPTION_BYTES_MAX = 40;

/** Type, length and pointer of a source route or Record Route; then come addresses of 4 bytes. */
export const ROUTE_HEAD_BYTES = 3;
export const ADDRESS_BYTES = 4;

/** The integrity option. */
export const TAG_BYTES = 12;

/** Entries of a source route that is alone. */
export const ROUTE_ENTRIES_MAX = 9;

/** Record Route slots beside a source route of one entry. */
export const RECORD_SLOTS_MAX = 7;

/** Ways over the nodes of a chain's services, where the document does not say how many. */
export const PATHS_OF_CHAIN = 64;
export const PATHS_OF_CHAIN_MAX = 256;
/** Distinct paths of a chain, with those for services that are away. */
export const PATHS_RENDERED_MAX = 1024;

/** IP MTU of Ethernet, bytes. */
export const ETHERNET_MTU = 1500;

/** What every host must be able to receive, bytes (RFC 791 §3.2). */
export const NODE_MTU_MIN = 576;

/** IPv4 and TCP header without options, which an MSS never counts (RFC 9293 §3.7.1). */
export const TCP_IP_HEADER_BYTES = 40;

export const NAME_LENGTH_MAX = 63;

export const DOCUMENT_BYTES_MAX = 1024 * 1024;
/** Maps and lists within each other; a mesh document needs 5. */
export const DOCUMENT_DEPTH_MAX = 32;
/** Values that aliases may add to a document. */
export const ALIAS_VALUES_MAX = 10_000;
/** Problems told of one document. */
export const PROBLEMS_MAX = 100;

/** What a client of the API may use. The counts hold for each of the two listeners by itself. */
export const API_LIMITS = {
  bodyBytes: DOCUMENT_BYTES_MAX,
  /** Words, marks and gaps of a document, as the YAML lexer cuts it: a rule has 45. Reading so many takes 0.8 s of CPU. */
  bodyParts: 300_000,
  /** For reading a document, in a thread of its own; only a backstop, since a busy host is slow. */
  readMs: 10_000,
  readMegabytes: 256,

  headerBytes: 16 * 1024,
  headers: 64,
  /** Until the header is there, from the first byte or from the connection on. */
  headerMs: 3_000,
  /** Until the body is there. */
  requestMs: 8_000,
  /** Until the client has taken the answer; of an export, `exportBytes` more of it. */
  answerMs: 30_000,
  /** Exports at once. */
  exports: 4,
  /** What a client must take of an export in each `answerMs`, bytes. */
  exportBytes: 64 * 1024,
  /** Streams of records at once. */
  streams: 16,
  /** Records that wait for the reader of a stream; beyond that it is cut off. */
  streamBacklog: 1_000,
  /** Until a client that was refused has read why. */
  lingerMs: 500,
  /** Between two requests of a connection. */
  idleMs: 5_000,

  connections: 64,
  /** Requests that one connection may send before the answer to the first. */
  pipelined: 4,
  /** Characters of one message in a problem document; what a client sent may be quoted there. */
  messageLength: 500,
} as const;
