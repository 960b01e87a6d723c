/** One line of a bar chart. */
export interface Bar {
  label: string;
  median: number;
  min: number;
  max: number;
  /** Bars of one group stand together. */
  group: string;
}

const [width, left, row, gap, top] = [900, 220, 20, 14, 48];

/** Horizontal bars from zero, with a line from the least to the most of each, as SVG. */
export function plotBars(title: string, bars: readonly Bar[], note: string): string {
  const most = Math.max(...bars.map(({ max }) => max));
  const scale = (value: number): number => (value / most) * (width - left - 80);
  let y = top;
  let group = bars[0]?.group;
  const lines = bars.flatMap((bar) => {
    if (bar.group !== group) y += gap;
    group = bar.group;
    const middle = y + row / 2;
    const [from, to] = [left + scale(bar.min), left + scale(bar.max)];
    const drawn = [
      `<text x="${left - 8}" y="${middle + 4}" text-anchor="end">${escapeText(bar.label)}</text>`,
      `<rect x="${left}" y="${y + 2}" width="${scale(bar.median).toFixed(1)}" height="${row - 4}" fill="#4a7ebb"/>`,
      `<line x1="${from.toFixed(1)}" x2="${to.toFixed(1)}" y1="${middle}" y2="${middle}" stroke="#111"/>`,
      `<text x="${(to + 6).toFixed(1)}" y="${middle + 4}">${Math.round(bar.median)}</text>`,
    ];
    y += row;
    return drawn;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y + 40}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="${left}" y="24" font-size="15">${escapeText(title)}</text>
${lines.join('\n')}
<text x="${left}" y="${y + 26}" fill="#555">${escapeText(note)}</text>
</svg>
`;
}

const escapeText = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
