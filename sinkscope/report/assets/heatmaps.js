// Heatmaps in one of two color scales, and attention maps of heads, as figures and as tables.

import { COLOR_SCALES, colors } from "./colors.js";

const MAP_HEIGHT = 340;

export const mapBinNote = (size) => (size === 1 ? "" : `; bins of ${size} positions: sum over keys, mean over queries`);

// Colors reach from 0 to `limit`; those of a difference from -`limit`. `title` names the values.
export const heatmap = (z, limit, title, isDifference = false) => ({
  type: "heatmap", z, zmin: isDifference ? -limit : 0, zmax: limit,
  colorscale: COLOR_SCALES[isDifference ? "diverging" : "sequential"], colorbar: { title: { text: title, side: "right" } },
});

export const outline = (x0, x1, y0, y1, color, width, more = {}) =>
  ({ type: "rect", x0, x1, y0, y1, line: { color, width }, ...more });

// Of a map, or a note that there is none. A difference is colored around 0 up to `limit`, which is otherwise the maximum.
export const mapFigure = (cells, view, quantity = "attention", isDifference = false, limit = null) => {
  const hidden = { visible: false };
  if (!cells) {
    const annotations = [{ text: "no map", showarrow: false }];
    return { data: [], layout: { height: MAP_HEIGHT, xaxis: hidden, yaxis: hidden, annotations } };
  }
  const size = view.pattern.bin;
  const ticks = cells.map((_, bin) => (bin + 0.5) * size - 0.5);
  const label = (bin) => view.positionLabel(bin, size);
  const text = cells.map((row, query) => row.map((_, key) => `query ${label(query)}, key ${label(key)}`));
  const span = view.span?.map((position) => position - 0.5);
  return {
    data: [{
      ...heatmap(cells, limit ?? Math.max(...cells.flat()), quantity, isDifference),
      x: ticks, y: ticks, text, hovertemplate: "%{text}: %{z:.3f}<extra></extra>",
    }],
    layout: {
      height: MAP_HEIGHT, margin: { t: 10, r: 10, b: 45, l: 55 },
      shapes: span ? [outline(...span, 0, 1, colors.trigger, 1.5, { yref: "paper" })] : [],
      xaxis: { title: { text: "attended position" } },
      yaxis: { title: { text: "query position" }, autorange: "reversed" },
    },
  };
};

export const mapNumbers = (cells, view, quantity = "attention") => {
  const label = (bin) => view.positionLabel(bin, view.pattern.bin);
  const lower = (row, query) => row.slice(0, query + 1);
  const rows = (cells ?? []).flatMap((row, query) => lower(row, query).map((value, key) => [label(query), label(key), value]));
  return { columns: ["query", "key", quantity], rows };
};
