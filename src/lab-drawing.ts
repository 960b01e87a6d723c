import { existsSync } from 'node:fs';
import { relative } from 'node:path';
import { colors } from './colors.js';
import { apiSocket, directMeshFile, type Lab, meshFile } from './lab-standing.js';

/** The lab, and the two ways through it. */
export function drawLab(): string {
  return `
     client                                                  server
    10.1.0.10                                               10.9.0.10
       │ eth0                                                  │ eth0
       │ edge0 10.1.0.1                                        │ edge0 10.9.0.1
   ┌───┴────┐        ┌────────┐        ┌────────┐          ┌───┴────┐
   │  edge  │        │   fw   │        │  ids   │          │   gw   │   an lsr-agent runs
   └───┬────┘        └───┬────┘        └───┬────┘          └───┬────┘   in each of these
       │ mesh0           │ mesh0           │ mesh0             │ mesh0
       │ 10.0.0.1        │ 10.0.0.2        │ 10.0.0.3          │ 10.0.0.4
   ────┴─────────────────┴─────────────────┴───────────────────┴────── switch, 10.0.0.0/24

   without a chain:  client → edge ─────────────→ gw → server
   chain "web":      client → edge → fw → ids ──→ gw → server`.slice(1);
}

/** A command of this project as it can be typed in the clone. */
export function showProgram(...words: string[]): string {
  return ['npx lsr-agent', ...words].join(' ');
}

/** A file as it can be named from the current folder. */
export function showFile(file: string): string {
  const path = relative(process.cwd(), file);
  return path.startsWith('..') ? file : path;
}

/** What a user can do with a lab that stands. */
export function listCommandsToTry(lab: Lab): string {
  const inside = (host: string, command: string): string => `ip netns exec ${lab.prefix}${host} ${command}`;
  const agent = (host: string, words: string): string => showProgram('--api', apiSocket(lab, host), words);
  const hasIperf = ['/usr/bin/iperf3', '/usr/local/bin/iperf3'].some(existsSync);
  const groups: [string, string[]][] = [
    [
      'Send something through the chain',
      [
        inside('client', 'curl http://10.9.0.10/'),
        inside('client', 'ping -c 3 10.9.0.10'),
        ...(hasIperf
          ? [`${inside('server', 'iperf3 -s -D -1')} && ${inside('client', 'iperf3 -c 10.9.0.10 -t 3')}`]
          : []),
      ],
    ],
    ['See which way it went', [inside('gw', 'curl -s http://127.0.0.1:7913/v1/paths'), agent('gw', 'paths')]],
    [
      'Look at the packets, the chains, the drops',
      [inside('fw', 'tcpdump -n -v -i mesh0 host 10.1.0.10'), agent('edge', 'chains'), agent('fw', 'drops')],
    ],
    [
      'Take the chain away at the edge, and put it back',
      [agent('edge', `apply ${showFile(directMeshFile)}`), agent('edge', `apply ${showFile(meshFile)}`)],
    ],
    ['Remove the lab', [showProgram('lab', 'down')]],
  ];
  return groups
    .map(([title, lines]) => `${title}:\n${lines.map((line) => `  ${line}`).join('\n')}`)
    .join('\n\n');
}

/** Indented, but an object or list without another inside stays on its line. */
export function formatJson(value: unknown): string {
  const text = JSON.stringify(value, null, 2);
  return text.replace(/[{[]\n[^{}[\]]*[}\]]/g, (inner) => inner.replace(/\n\s*/g, ' '));
}

export function formatHeading(text: string): string {
  return `\n${colors.bold(text)}`;
}

export function formatPrompt(command: string): string {
  return colors.cyan(`# ${command}`);
}
