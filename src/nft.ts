import { execa } from 'execa';
import { commandEnvironment } from './command-environment.js';
import { LsrError } from './errors.js';

/** Puts a text in force as one transaction: all of it, or nothing. */
export async function runNft(text: string): Promise<void> {
  await callNft(['-f', '-'], text);
}

/** Throws BACKSTOP where there is no nft. */
export async function requireNft(): Promise<void> {
  await callNft(['--version']);
}

/** What `nft -j` lists; null where there is no such thing, or no nft that could have made it. */
export async function listNft<Item>(...words: string[]): Promise<Item[] | null> {
  try {
    return (JSON.parse(await callNft(['-j', 'list', ...words])) as { nftables: Item[] }).nftables;
  } catch (error) {
    if (error instanceof LsrError && error.details.missing === true) return null;
    throw error;
  }
}

async function callNft(words: string[], input?: string): Promise<string> {
  try {
    // For `cleanup` see listLinks().
    const { stdout } = await execa('nft', words, {
      cleanup: false,
      env: commandEnvironment,
      ...(input === undefined ? { stdin: 'ignore' as const } : { input }),
    });
    return stdout;
  } catch (error) {
    const { code, stderr, message } = error as { code?: string; stderr?: string; message: string };
    if (code === 'ENOENT') {
      const what =
        'nft is not installed, and chains with `onMissing: drop` need it: apt-get install nftables';
      throw new LsrError('BACKSTOP', what, { missing: true });
    }
    const said = stderr?.split('\n')[0] || message;
    if (said.includes('Operation not permitted')) {
      throw new LsrError(
        'PRIVILEGES',
        `nft has no right to look or write: CAP_NET_ADMIN is needed (${said})`,
      );
    }
    throw new LsrError('BACKSTOP', `nft refuses: ${said}`, {
      missing: said.includes('No such file or directory'),
    });
  }
}
