import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const unitFile = fileURLToPath(new URL('../../systemd/lsr-agent.service', import.meta.url));

/** All values of a setting of the shipped unit, one a line of the file. */
export function readUnit(setting: string): string[] {
  return readFileSync(unitFile, 'utf8')
    .split('\n')
    .flatMap((line) => (line.startsWith(`${setting}=`) ? [line.slice(setting.length + 1)] : []));
}

/** `CAP_BPF CAP_NET_ADMIN` as setpriv(1) takes them. */
export function readCapabilities(setting: string): string[] {
  return readUnit(setting).flatMap((value) =>
    value.split(' ').map((name) => name.replace(/^CAP_/, '').toLowerCase()),
  );
}
