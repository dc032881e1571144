// Attention maps of heads, as figures and as tables.

import { constants } from "./data.js";

const MAP_HEIGHT = 340;
export const EMPTY_FIGURE = {
  data: [],
  layout: {
    height: MAP_HEIGHT, xaxis: { visible: false }, yaxis: { visible: false },
    annotations: [{ text: "no map", showarrow: false }],
  },
};
export const EMPTY_TABLE = { columns: [], rows: [] };

export const mapBinNote = (size) => (size === 1 ? "" : `; bins of ${size} positions: sum over keys, mean over queries`);

const triggerShape = (span) => ({
  type: "rect", x0: span[0] - 0.5, x1: span[1] - 0.5, y0: 0, y1: 1, yref: "paper",
  line: { color: constants.colors.trigger, width: 1.5 },
});

// `quantity` names the values; a difference is colored around 0. Colors reach to `limit`, by default to the maximum.
export const mapFigure = (cells, view, { quantity = "attention", isDifference = false, limit = null } = {}) => {
  const size = view.pattern.bin;
  const ticks = cells.map((_, bin) => (bin + 0.5) * size - 0.5);
  const zmax = limit ?? Math.max(...cells.flat());
  const colors = isDifference ? { colorscale: constants.colors.diverging, zmin: -zmax, zmax }
    : { colorscale: "Viridis", zmin: 0, zmax };
  const text = cells.map((row, query) => row.map((_, key) =>
    `query ${view.positionLabel(query, size)}, key ${view.positionLabel(key, size)}`));
  return {
    data: [{
      type: "heatmap", z: cells, x: ticks, y: ticks, text, hovertemplate: "%{text}: %{z:.3f}<extra></extra>",
      colorbar: { title: { text: quantity, side: "right" } }, ...colors,
    }],
    layout: {
      height: MAP_HEIGHT, margin: { t: 10, r: 10, b: 45, l: 55 }, shapes: view.span ? [triggerShape(view.span)] : [],
      xaxis: { title: { text: "attended position" } },
      yaxis: { title: { text: "query position" }, autorange: "reversed" },
    },
  };
};

export const mapNumbers = (cells, view, quantity = "attention") => {
  const label = (bin) => view.positionLabel(bin, view.pattern.bin);
  const lower = (row, query) => row.slice(0, query + 1);
  return {
    columns: ["query", "key", quantity],
    rows: cells.flatMap((row, query) => lower(row, query).map((value, key) => [label(query), label(key), value])),
  };
};
