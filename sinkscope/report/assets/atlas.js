"use strict";
// The sink atlas: a statistic by layer and head; a head's map, attention and value norms by position, and tokens.

const STATISTICS = { alpha: "attention received α", sink_rate: "sink rate", value_norm: "value norm ‖v‖", weighted_norm: "α · ‖v‖", entropy: "entropy (nats)", learned_sink: "mass on the learned sink" };
const SHARES = ["alpha", "sink_rate"]; // of 1, so that colours mean the same in all models
const named = (statistic) => STATISTICS[statistic] ?? statistic;

const DIVERGING = [[0, "#053061"], [0.25, "#4393c3"], [0.5, "#f7f7f7"], [0.75, "#d6604d"], [1, "#67001f"]];

const FRAME = "#e8590c"; // seen on all colour scales

const range = (bin, size) => (size === 1 ? String(bin) : `${bin * size}–${(bin + 1) * size - 1}`);
const binning = (size) => (size === 1 ? "" : `; bins of ${size} positions: sum over keys, mean over queries`);

const mapFigure = (cells, view, { diverging = false, limit = null } = {}) => {
  const size = view.pattern.bin;
  const ticks = cells.map((_, i) => (i + 0.5) * size - 0.5);
  const colours = diverging ? { colorscale: DIVERGING, zmin: -limit, zmax: limit } : { colorscale: "Viridis", zmin: 0, zmax: limit };
  const shapes = view.span ? [{ type: "rect", x0: view.span[0] - 0.5, x1: view.span[1] - 0.5, y0: 0, y1: 1, yref: "paper", line: { color: FRAME, width: 1.5 } }] : [];
  const places = cells.map((row, query) => row.map((_, key) => `query ${range(query, size)}, key ${range(key, size)}`));
  return {
    data: [{ type: "heatmap", z: cells, x: ticks, y: ticks, text: places, hovertemplate: "%{text}: %{z:.3f}<extra></extra>", ...colours }],
    layout: { height: 340, margin: { t: 10, r: 10, b: 45, l: 55 }, shapes, xaxis: { title: { text: "attended position" } }, yaxis: { title: { text: "query position" }, autorange: "reversed" } },
  };
};

const mapNumbers = (cells, view, what = "attention") => {
  const size = view.pattern.bin;
  const rows = [];
  cells.forEach((row, query) => row.forEach((value, key) => { if (key <= query) rows.push([range(query, size), range(key, size), value]); }));
  return { columns: ["query", "key", what], rows };
};

const atlas = (host, entries, views) => {
  const state = { entry: 0, statistic: "alpha", bin: 0, exact: null, layer: 0, head: 0 };
  const view = () => views[entries[state.entry].view];
  const which = options(el("select", { id: "atlas-view" }), entries.map((entry, i) => [i, entry.label]));
  const statistic = el("select", { id: "atlas-statistic" });
  const position = el("input", { type: "range", id: "atlas-position", min: 0, step: 1 });
  const told = el("output", { for: "atlas-position" });
  const exact = el("select", { id: "atlas-exact" });
  const exactLabel = labelled("exact position", exact);
  const [layer, head] = ["layer", "head"].map((name) => el("input", { type: "number", id: `atlas-${name}`, min: 0, step: 1, style: "width:5rem" }));
  const about = el("p", { class: "note" });
  host.append(el("div", { class: "controls" }, entries.length > 1 ? labelled("model", which) : null, labelled("statistic", statistic), exactLabel,
    labelled("position", el("span", {}, position, " ", told), true)));
  const grid = el("figure");
  host.append(about, grid, el("h3", {}, "One head"), el("div", { class: "controls" }, labelled("layer", layer), labelled("head", head), el("span", { class: "note" }, "or click a cell above")));
  const panels = el("div", { class: "pair" });
  const [mapHost, curveHost] = [el("figure"), el("figure")];
  panels.append(mapHost, curveHost);
  const text = el("div", { class: "strip" });
  const textNote = el("p", { class: "note" });
  host.append(panels, el("h3", {}, "Tokens"), textNote, text);

  const where = () => (state.exact !== null ? `position ${view().exact.positions[state.exact]}` : `position${view().bin > 1 ? "s" : ""} ${view().place(state.bin)}`);
  const cells = () => view().grid(state.statistic, state.bin, state.exact);
  const gridChart = chart(grid, {
    name: "sink_atlas",
    eager: true,
    label: () => `${entries[state.entry].label}: ${named(state.statistic)} at ${where()}, ${view().layers} layers by ${view().heads} heads; layer ${state.layer} head ${state.head} is chosen: ${shown(cells()[state.layer][state.head])}`,
    build: () => ({
      data: [{ type: "heatmap", z: cells(), colorscale: "Viridis", zmin: 0, zmax: SHARES.includes(state.statistic) ? 1 : undefined, xgap: 1, ygap: 1, colorbar: { title: { text: plain(named(state.statistic)), side: "right" } },
        hovertemplate: `layer %{y}, head %{x}: %{z:.4f}<extra></extra>` }],
      layout: { height: Math.min(640, Math.max(240, 90 + 22 * view().layers)), margin: { t: 10, r: 10, b: 45, l: 50 }, xaxis: { title: { text: "head" }, dtick: view().heads <= 16 ? 1 : undefined },
        yaxis: { title: { text: "layer" }, dtick: view().layers <= 16 ? 1 : undefined },
        shapes: [{ type: "rect", x0: state.head - 0.5, x1: state.head + 0.5, y0: state.layer - 0.5, y1: state.layer + 0.5, line: { color: "#d55e00", width: 3 } }] },
    }),
    numbers: () => ({ columns: ["layer", "head", state.statistic], rows: cells().flatMap((row, l) => row.map((value, h) => [l, h, value])) }),
  });
  gridChart.plot.on("plotly_click", (event) => choose(event.points[0].y, event.points[0].x));
  const mapChart = entries.some((entry) => views[entry.view].pattern) ? chart(mapHost, {
    name: "head_map",
    label: () => `${entries[state.entry].label}: attention map of layer ${state.layer}, head ${state.head}`,
    build: () => { const map = view().map(state.layer, state.head); return map ? mapFigure(map, view()) : { data: [], layout: {} }; },
    numbers: () => { const map = view().map(state.layer, state.head); return map ? mapNumbers(map, view()) : { columns: [], rows: [] }; },
  }) : null;
  const mapNote = el("figcaption");
  if (mapChart) mapHost.append(mapNote);
  const profiles = () => {
    const norms = view().statistics.value_norm;
    return [["this head", view().profile("alpha", state.layer, state.head)], ["all heads", view().profile("alpha", null, null)], ["uniform in this layer", unpack(view().uniform).subarray(state.layer * view().bins, (state.layer + 1) * view().bins)],
      ...(norms ? [["‖v‖", view().profile("value_norm", state.layer, state.head)]] : [])];
  };
  const places = () => Array.from({ length: view().bins }, (_, bin) => (bin + 0.5) * view().bin - 0.5);
  const alone = () => {
    if (!view().exact) return [];
    const { positions, statistics } = view().exact;
    return [{ x: positions, y: view().mean(unpack(statistics.alpha), positions.length, state.layer, state.head), name: "this head, exact", mode: "markers", marker: { color: "#0173b2", size: 7 } }];
  };
  const curveChart = chart(curveHost, {
    name: "head_positions",
    label: () => `${entries[state.entry].label}: attention received by position, layer ${state.layer}, head ${state.head}`,
    build: () => ({
      data: profiles().map(([name, values]) => ({ x: places(), y: values, name, mode: "lines", yaxis: name === "‖v‖" ? "y2" : "y",
        line: { width: 1.5, dash: name === "uniform in this layer" ? "dot" : "solid", color: { "this head": "#0173b2", "all heads": "#949494", "uniform in this layer": "#333333", "‖v‖": "#d55e00" }[name] } })).concat(alone()),
      layout: { height: 340, margin: { t: 10, r: 10, b: 45, l: 55 }, legend: { orientation: "h", y: 1.12 }, xaxis: { title: { text: "position" }, anchor: "y2" },
        yaxis: { title: { text: "α" }, domain: [0.36, 1], rangemode: "tozero" }, yaxis2: { title: { text: "‖v‖" }, domain: [0, 0.28], rangemode: "tozero" } },
    }),
    numbers: () => ({ columns: ["position", "alpha_head", "alpha_all", "alpha_uniform", ...(profiles().length > 3 ? ["value_norm_head"] : [])],
      rows: places().map((_, i) => [view().place(i), ...profiles().map(([, values]) => values[i])]) }),
  });
  curveHost.append(el("figcaption", {}, "attention received and value norms, by position"));

  const choose = (l, h) => {
    state.layer = Math.min(view().layers - 1, Math.max(0, Math.round(l) || 0));
    state.head = Math.min(view().heads - 1, Math.max(0, Math.round(h) || 0));
    [layer.value, head.value] = [state.layer, state.head];
    gridChart.draw();
    if (mapChart) mapChart.draw();
    curveChart.draw();
    const own = view().own;
    const over = own ? "of this passage alone" : `mean over the passages of which this is one${view().runs > 1 ? ` and ${view().runs} seeds` : ""}`;
    strip(text, view(), view().profile("alpha", state.layer, state.head, own ?? view().statistics.alpha), "tokens, shaded by the attention they receive");
    textNote.textContent = view().tokens.length ? `shaded by α in layer ${state.layer}, head ${state.head}, ${over}${view().span ? "; trigger underlined" : ""}; the last seven, which too few queries see, are not shaded` : "no text was kept";
    mapNote.textContent = view().pattern ? `attention map, ${own ? "of the first passage" : "mean over passages"}${view().runs > 1 ? ` and ${view().runs} seeds` : ""}${binning(view().pattern.bin)}` : "no map was kept";
    say(`layer ${state.layer}, head ${state.head}: ${named(state.statistic)} ${shown(cells()[state.layer][state.head])}`);
  };
  const renew = () => {
    const now = view();
    state.bin = Math.min(state.bin, now.bins - 1);
    Object.assign(position, { max: now.bins - 1 });
    position.value = state.bin;
    told.textContent = where();
    position.setAttribute("aria-valuetext", where());
    about.textContent = `${entries[state.entry].label}: ${named(state.statistic)} at ${where()}, mean over n = ${state.exact === null ? now.reached(state.bin) : now.reached(Math.floor(now.exact.positions[state.exact] / now.bin))} passages${now.runs > 1 ? ` and ${now.runs} seeds` : ""}${state.exact === null && now.bin > 1 ? `; mean of ${now.bin} positions` : ""}`;
    choose(state.layer, state.head);
  };
  const arrive = () => {
    const now = view();
    options(statistic, Object.keys(now.statistics).map((name) => [name, named(name)]));
    if (!now.statistics[state.statistic]) state.statistic = "alpha";
    statistic.value = state.statistic;
    exactLabel.hidden = !now.exact;
    if (now.exact) options(exact, [["", "– (bins)"], ...now.exact.positions.map((place, i) => [i, place])]);
    state.exact = now.exact ? now.strongest() : null;
    if (now.exact) exact.value = state.exact;
    [layer.max, head.max] = [now.layers - 1, now.heads - 1];
    renew();
  };
  which.addEventListener("change", () => { state.entry = Number(which.value); arrive(); });
  statistic.addEventListener("change", () => { state.statistic = statistic.value; renew(); });
  position.addEventListener("input", () => { state.bin = Number(position.value); state.exact = null; exact.value = ""; renew(); });
  exact.addEventListener("change", () => {
    state.exact = exact.value === "" ? null : Number(exact.value);
    if (state.exact !== null) position.value = state.bin = Math.floor(view().exact.positions[state.exact] / view().bin);
    renew();
  });
  for (const control of [layer, head]) control.addEventListener("change", () => choose(Number(layer.value), Number(head.value)));
  if (view().exact) state.bin = Math.floor(view().exact.positions[view().strongest()] / view().bin);
  else state.bin = view().strongest();
  const first = view().grid("alpha", state.bin, view().exact ? view().strongest() : null).flat().map((value) => (Number.isNaN(value) ? -1 : value));
  const best = first.indexOf(Math.max(...first));
  [state.layer, state.head] = [Math.floor(best / view().heads), best % view().heads];
  arrive();
};
