/**
 * What is behind a managed port: the network outside, other nodes, a function that packets come back from, or one that
 * gets copies.
 */
export const portRoles = ['edge', 'mesh', 'function', 'tap'] as const;
export type PortRole = (typeof portRoles)[number];
