/**
 * What other programs need in their environment. Root by plain `su` lacks the sbin folders; and npm puts the programs of
 * its packages before the host's, one of which is called nft.
 */
export const commandEnvironment = {
  PATH: [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
    .filter((folder) => !folder.endsWith('node_modules/.bin'))
    .join(':'),
};
