/** What the audit can say about a flow's way. */
export const verdicts = ['complete', 'detour', 'skipped', 'truncated', 'forged'] as const;
export type Verdict = (typeof verdicts)[number];
