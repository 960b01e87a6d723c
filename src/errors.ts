/** Every error a user can meet: its HTTP status, the command's exit code (DESIGN: 1 failed, 2 wrong input) and its title. */
export const errorTable = {
  USAGE: { status: 400, exit: 2, title: 'Wrong usage' },
  CONFIG_INVALID: { status: 422, exit: 2, title: 'The agent configuration is not valid' },
  KEYS_INVALID: { status: 422, exit: 2, title: 'The keys are not valid' },
  MESH_INVALID: { status: 422, exit: 2, title: 'The mesh document is not valid' },
  MESH_UNREADABLE: { status: 422, exit: 2, title: 'The mesh document cannot be read' },
  CAPTURE_UNREADABLE: { status: 422, exit: 2, title: 'The capture cannot be read' },
  REQUEST_INVALID: { status: 400, exit: 2, title: 'The request is not valid' },
  BODY_TOO_LARGE: { status: 413, exit: 2, title: 'The request body is too large' },
  MEDIA_TYPE: { status: 415, exit: 2, title: 'The media type is not supported' },
  HEADER_TOO_LARGE: { status: 431, exit: 2, title: 'The request header is too large' },
  HOST_REFUSED: { status: 421, exit: 2, title: 'The request is meant for another host' },
  REQUEST_TIMEOUT: { status: 408, exit: 1, title: 'The request did not arrive in time' },
  TOO_MANY_REQUESTS: { status: 429, exit: 1, title: 'Too many requests at once' },
  METHOD_NOT_ALLOWED: { status: 405, exit: 2, title: 'The method is not allowed here' },
  NOT_FOUND: { status: 404, exit: 1, title: 'There is nothing here' },
  READ_ONLY: { status: 403, exit: 1, title: 'This listener is read-only' },
  MESH_ABSENT: { status: 404, exit: 1, title: 'No mesh document has been applied' },
  CAPACITY: { status: 507, exit: 1, title: 'A table of the data path is too small' },
  AGENT_UNREACHABLE: { status: 503, exit: 1, title: 'The agent cannot be reached' },
  COLLECTOR: { status: 502, exit: 1, title: 'The collector cannot be used' },
  OUTPUT: { status: 500, exit: 1, title: 'The output cannot be written' },
  AGENT_RUNNING: { status: 409, exit: 1, title: 'Another agent runs on this host' },
  PRIVILEGES: { status: 403, exit: 1, title: 'A right is missing' },
  KERNEL: { status: 500, exit: 1, title: 'The kernel refused' },
  BACKSTOP: { status: 503, exit: 1, title: 'The backstop of a chain cannot be put in place' },
  LAYOUT_STALE: { status: 500, exit: 1, title: 'The BPF object and this build do not belong together' },
  INTERFACE_MISSING: { status: 409, exit: 1, title: 'An interface does not exist' },
  ADDRESS_IN_USE: { status: 409, exit: 1, title: 'An address is in use' },
  STORE: { status: 503, exit: 1, title: 'The audit store does not work' },
  LAB: { status: 500, exit: 1, title: 'The lab cannot be built' },
  INTERNAL: { status: 500, exit: 1, title: 'This is a defect of lsr-agent' },
} as const satisfies Record<string, { status: number; exit: 1 | 2; title: string }>;

export type ErrorCode = keyof typeof errorTable;

/** An error with a stable code; the message says which value was wrong and what would be right. */
export class LsrError extends Error {
  readonly code: ErrorCode;
  readonly details: Record<string, unknown>;

  constructor(code: ErrorCode, message: string, details: Record<string, unknown> = {}) {
    super(message);
    this.name = 'LsrError';
    this.code = code;
    this.details = details;
  }
}
