/** How long records stay, and how much they may take up; the oldest go first. */
export interface Retention {
  days: number;
  /** 10^6 bytes. */
  megabytes: number;
}

export const defaultRetention: Retention = { days: 30, megabytes: 1000 };
