"use strict";
// The sink atlas: a statistic by layer and head; a head's map, attention and value norms by position, and tokens.

const STATISTICS = {
  alpha: "attention received α", sink_rate: "sink rate", value_norm: "value norm ‖v‖", weighted_norm: "α · ‖v‖", entropy: "entropy (nats)",
  learned_sink: "mass on the learned sink",
};
const CURVES = { "this head": "#0173b2", "all heads": "#949494", "uniform in this layer": "#333333", "‖v‖": "#d55e00" };
const CHOSEN = "#d55e00";
const named = (statistic) => STATISTICS[statistic] ?? statistic;

const binning = (size) => (size === 1 ? "" : `; bins of ${size} positions: sum over keys, mean over queries`);
const blocks = (view) => (view.bin === 1 ? "" : `, mean of each ${view.bin} tokens`);
const seeds = (view) => (view.runs > 1 ? ` and ${view.runs} seeds` : "");

// A map in the colors of what it is (`what`): of a change around 0, to `limit`; of attention from 0 to `limit`, or to the largest there.
const mapFigure = (cells, view, { what = "attention", diverging = false, limit = null } = {}) => {
  const size = view.pattern.bin;
  const ticks = cells.map((_, i) => (i + 0.5) * size - 0.5);
  const most = limit ?? Math.max(...cells.flat());
  const colors = diverging ? { colorscale: report.constants.diverging, zmin: -most, zmax: most } : { colorscale: "Viridis", zmin: 0, zmax: most };
  const frame = { line: { color: report.constants.frame, width: 1.5 } };
  const shapes = view.span ? [{ type: "rect", x0: view.span[0] - 0.5, x1: view.span[1] - 0.5, y0: 0, y1: 1, yref: "paper", ...frame }] : [];
  const places = cells.map((row, query) => row.map((_, key) => `query ${view.place(query, size)}, key ${view.place(key, size)}`));
  return {
    data: [{
      type: "heatmap", z: cells, x: ticks, y: ticks, text: places, hovertemplate: "%{text}: %{z:.3f}<extra></extra>",
      colorbar: { title: { text: what, side: "right" } }, ...colors,
    }],
    layout: {
      height: 340, margin: { t: 10, r: 10, b: 45, l: 55 }, shapes,
      xaxis: { title: { text: "attended position" } }, yaxis: { title: { text: "query position" }, autorange: "reversed" },
    },
  };
};

const mapNumbers = (cells, view, what = "attention") => {
  const rows = [];
  const place = (bin) => view.place(bin, view.pattern.bin);
  cells.forEach((row, query) => row.forEach((value, key) => { if (key <= query) rows.push([place(query), place(key), value]); }));
  return { columns: ["query", "key", what], rows };
};

const atlas = (host, entries, views) => {
  const state = { entry: 0, statistic: "alpha", bin: 0, exact: null, layer: 0, head: 0 };
  const view = () => views[entries[state.entry].view];
  const label = () => entries[state.entry].label;
  const which = options(el("select", { id: "atlas-view" }), entries.map((entry, i) => [i, entry.label]));
  const statistic = el("select", { id: "atlas-statistic" });
  const position = el("input", { type: "range", id: "atlas-position", min: 0, step: 1 });
  const told = el("output", { for: "atlas-position" });
  const exact = el("select", { id: "atlas-exact" });
  const exactLabel = labelled("exact position", exact);
  const [layer, head] = ["layer", "head"].map((name) => el("input", { type: "number", id: `atlas-${name}`, min: 0, step: 1, style: "width:5rem" }));
  const about = el("p", { class: "note" });
  const [grid, mapHost, curveHost] = [el("figure"), el("figure"), el("figure")];
  const textNote = el("p", { class: "note" });
  const text = el("div", { class: "strip" });
  host.append(
    el("div", { class: "controls" }, entries.length > 1 ? labelled("model", which) : null, labelled("statistic", statistic), exactLabel,
      labelled("position", el("span", {}, position, " ", told), true)),
    about, grid, el("h3", {}, "One head"),
    el("div", { class: "controls" }, labelled("layer", layer), labelled("head", head), el("span", { class: "note" }, "or click a cell above")),
    el("div", { class: "pair" }, mapHost, curveHost), el("h3", {}, "Tokens"), textNote, text);

  const where = () =>
    (state.exact !== null ? `position ${view().exact.positions[state.exact]}` : `position${view().bin > 1 ? "s" : ""} ${view().place(state.bin)}`);
  const of = () => `layer ${state.layer}, head ${state.head}`;
  const cells = () => view().grid(state.statistic, state.bin, state.exact);
  // so that colors mean the same at all positions and in all models of the page
  const most = () =>
    Math.max(...entries.map((entry) => views[entry.view]).filter((each) => each.statistics[state.statistic]).map((each) => each.most(state.statistic))) || 1;
  const steps = (count) => (count <= 16 ? 1 : undefined);
  const gridChart = chart(grid, {
    name: "sink_atlas",
    file: () => fileName("sink_atlas", label(), state.statistic, where()),
    eager: true,
    label: () => `${label()}: ${named(state.statistic)} at ${where()}, ${view().layers} layers by ${view().heads} heads; `
      + `layer ${state.layer} head ${state.head} is chosen: ${shown(cells()[state.layer][state.head])}`,
    build: () => ({
      data: [{
        type: "heatmap", z: cells(), colorscale: "Viridis", zmin: 0, zmax: most(), xgap: 1, ygap: 1,
        colorbar: { title: { text: plain(named(state.statistic)), side: "right" } }, hovertemplate: "layer %{y}, head %{x}: %{z:.4f}<extra></extra>",
      }],
      layout: {
        height: Math.min(640, Math.max(240, 90 + 22 * view().layers)), margin: { t: 10, r: 10, b: 45, l: 50 },
        xaxis: { title: { text: "head" }, dtick: steps(view().heads) }, yaxis: { title: { text: "layer" }, dtick: steps(view().layers) },
        shapes: [{ type: "rect", x0: state.head - 0.5, x1: state.head + 0.5, y0: state.layer - 0.5, y1: state.layer + 0.5, line: { color: CHOSEN, width: 3 } }],
      },
    }),
    numbers: () => ({ columns: ["layer", "head", state.statistic], rows: cells().flatMap((row, l) => row.map((value, h) => [l, h, value])) }),
  });
  gridChart.plot.on("plotly_click", (event) => choose(event.points[0].y, event.points[0].x));

  const ofMap = () => (view().own ? "of the first passage" : `mean over passages${seeds(view())}`);
  const map = () => view().map(state.layer, state.head);
  const mapChart = entries.some((entry) => views[entry.view].pattern) ? chart(mapHost, {
    name: "head_map",
    file: () => fileName("head_map", label(), of()),
    label: () => `${label()}: attention map of ${of()}, ${ofMap()}`,
    build: () => { const here = map(); return here ? mapFigure(here, view()) : { data: [], layout: {} }; },
    numbers: () => { const here = map(); return here ? mapNumbers(here, view()) : { columns: [], rows: [] }; },
  }) : null;
  const mapNote = el("figcaption");
  if (mapChart) mapHost.append(mapNote);

  const profiles = () => {
    const uniform = unpack(view().uniform).subarray(state.layer * view().bins, (state.layer + 1) * view().bins);
    const norms = view().statistics.value_norm ? [["‖v‖", view().profile("value_norm", state.layer, state.head)]] : [];
    const [mine, all] = [[state.layer, state.head], [null, null]].map(([l, h]) => view().profile("alpha", l, h));
    return [["this head", mine], ["all heads", all], ["uniform in this layer", uniform], ...norms];
  };
  const places = () => Array.from({ length: view().bins }, (_, bin) => (bin + 0.5) * view().bin - 0.5);
  const alone = () => {
    if (!view().exact) return [];
    const { positions, statistics } = view().exact;
    const values = view().mean(unpack(statistics.alpha), positions.length, state.layer, state.head);
    return [{ x: positions, y: values, name: "this head, exact", mode: "markers", marker: { color: CURVES["this head"], size: 7 } }];
  };
  const curveChart = chart(curveHost, {
    name: "head_positions",
    file: () => fileName("head_positions", label(), of()),
    label: () => `${label()}: attention received and value norms by position, ${of()}, mean over passages${seeds(view())}`,
    build: () => ({
      data: profiles().map(([name, values]) => ({
        x: places(), y: values, name, mode: "lines", yaxis: name === "‖v‖" ? "y2" : "y",
        line: { width: 1.5, dash: name === "uniform in this layer" ? "dot" : "solid", color: CURVES[name] },
      })).concat(alone()),
      layout: {
        height: 370, margin: { t: 40, r: 10, b: 45, l: 55 }, legend: { orientation: "h", y: 1.12 },
        xaxis: { title: { text: "position" }, anchor: "y2" }, yaxis: { title: { text: "α" }, domain: [0.36, 1], rangemode: "tozero" },
        yaxis2: { title: { text: "‖v‖" }, domain: [0, 0.28], rangemode: "tozero" },
      },
    }),
    numbers: () => ({
      columns: ["position", "alpha_head", "alpha_all", "alpha_uniform", ...(profiles().length > 3 ? ["value_norm_head"] : [])],
      rows: places().map((_, i) => [view().place(i), ...profiles().map(([, values]) => values[i])]),
    }),
  });
  curveHost.append(el("figcaption", {}, "attention received and value norms, by position"));
  const tokens = strip(text, "tokens, shaded by the attention they receive");

  // what belongs to the chosen head
  const drawHead = () => {
    [layer.value, head.value] = [state.layer, state.head];
    if (mapChart) mapChart.draw();
    curveChart.draw();
    const { own, pattern, span } = view();
    mapNote.textContent = pattern ? `attention map, ${ofMap()}${binning(pattern.bin)}` : "no map was kept";
    const over = own ? "of this passage alone" : `mean over the passages of which this is one${seeds(view())}`;
    const shades = `shaded by α in ${of()}, ${over}${blocks(view())}${span ? "; trigger underlined" : ""}`;
    const last = `the last ${report.constants.queries - 1}, which too few queries see, are not shaded`;
    const { part } = report.constants;
    const parts = view().tokens.some((token) => token.includes(part)) ? `; ${part}: a part of the character before` : "";
    textNote.textContent = view().tokens.length ? `${shades}; ${last}${parts}` : "no text was kept";
    const values = view().profile("alpha", state.layer, state.head, own ?? view().statistics.alpha);
    tokens.draw(view(), values, `${label()}: tokens, ${shades}`, fileName("tokens", label(), of()));
  };
  // what belongs to the statistic and the position
  const drawGrid = () => {
    const [now, at] = [view(), where()];
    position.value = state.bin;
    told.textContent = at;
    position.setAttribute("aria-valuetext", at);
    const over = `mean over n = ${now.reached(state.bin, state.exact)} passages${seeds(now)}`;
    about.textContent = `${label()}: ${named(state.statistic)} at ${at}, ${over}${state.exact === null && now.bin > 1 ? `; mean of ${now.bin} positions` : ""}`;
    gridChart.draw();
    say(`${of()}: ${named(state.statistic)} ${shown(cells()[state.layer][state.head])}`);
  };
  const choose = (l, h) => {
    state.layer = Math.min(view().layers - 1, Math.max(0, Math.round(l) || 0));
    state.head = Math.min(view().heads - 1, Math.max(0, Math.round(h) || 0));
    drawGrid();
    drawHead();
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
    state.bin = Math.min(state.bin, now.bins - 1);
    [position.max, layer.max, head.max] = [now.bins - 1, now.layers - 1, now.heads - 1];
    [state.layer, state.head] = [Math.min(state.layer, now.layers - 1), Math.min(state.head, now.heads - 1)];
    drawGrid();
    drawHead();
  };
  which.addEventListener("change", () => { state.entry = Number(which.value); arrive(); });
  statistic.addEventListener("change", () => { state.statistic = statistic.value; drawGrid(); });
  position.addEventListener("input", () => { state.bin = Number(position.value); state.exact = null; exact.value = ""; drawGrid(); });
  exact.addEventListener("change", () => {
    state.exact = exact.value === "" ? null : Number(exact.value);
    if (state.exact !== null) state.bin = Math.floor(view().exact.positions[state.exact] / view().bin);
    drawGrid();
  });
  for (const control of [layer, head]) control.addEventListener("change", () => choose(Number(layer.value), Number(head.value)));

  const strongest = view().strongest();
  state.bin = view().exact ? Math.floor(view().exact.positions[strongest] / view().bin) : strongest;
  const first = view().grid("alpha", state.bin, view().exact ? strongest : null).flat().map((value) => (Number.isNaN(value) ? -1 : value));
  const best = first.indexOf(Math.max(...first));
  [state.layer, state.head] = [Math.floor(best / view().heads), best % view().heads];
  arrive();
};
