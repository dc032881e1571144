// The sink atlas: a statistic by layer and head, and of one head its map, its attention by position and its tokens.

import { Chart } from "./charts.js";
import { colors } from "./colors.js";
import { constants } from "./data.js";
import { announce, element, escapeLabel, fileName, formatNumber, labeled, setOptions } from "./dom.js";
import { heatmap, mapBinNote, mapFigure, mapNumbers, outline } from "./heatmaps.js";
import { tokenStrip } from "./tokens.js";
import { binNote, decodeUint16 } from "./view.js";

const STATISTIC_LABELS = {
  alpha: "attention received α", sink_rate: "sink rate", value_norm: "value norm ‖v‖", weighted_norm: "α · ‖v‖",
  entropy: "entropy (nats)", learned_sink: "mass on the learned sink",
  attention_distance: "attention distance (tokens)", key_norm: "key norm ‖k‖",
};
const NORM = "‖v‖";
const MAX_LABELED_HEADS = 16; // with more layers or heads plotly chooses the ticks

const statisticLabel = (name) => STATISTIC_LABELS[name] ?? name;
const seedNote = (view) => (view.runs > 1 ? ` and ${view.runs} seeds` : "");
const SHARES = ["alpha", "sink_rate"];
const clamp = (value, count) => Math.min(count - 1, Math.max(0, Math.round(value) || 0));
const tickStep = (count) => (count <= MAX_LABELED_HEADS ? 1 : undefined);
const sourceNote = (view) => (view.passageAlpha ? "of the first passage" : `mean over passages${seedNote(view)}`);

export class Atlas {
  constructor(host, entries, views) {
    Object.assign(this, { entries, views, entry: 0, statistic: "alpha", bin: 0, exact: null, layer: 0, head: 0 });
    this.createControls();
    this.about = element("p", { class: "note" });
    this.textNote = element("p", { class: "note" });
    const [gridHost, mapHost, profileHost] = [element("figure"), element("figure"), element("figure")];
    const tokenHost = element("div", { class: "strip" });
    host.append(
      this.mainControls(), this.about, gridHost, element("h3", { text: "One head" }), this.headControls(),
      element("div", { class: "pair" }, mapHost, profileHost), element("h3", { text: "Tokens" }), this.textNote, tokenHost,
    );
    this.selectStrongest();
    this.gridChart = this.createGridChart(gridHost);
    this.mapChart = entries.some((entry) => views[entry.view].pattern) ? this.createMapChart(mapHost) : null;
    this.profileChart = this.createProfileChart(profileHost);
    this.mapNote = element("figcaption");
    if (this.mapChart) mapHost.append(this.mapNote);
    profileHost.append(element("figcaption", { text: "attention received and value norms, by position" }));
    this.tokens = tokenStrip(tokenHost, "tokens, shaded by the attention they receive");
    this.selectModel(0);
    this.gridChart.plot.on("plotly_click", ({ points: [{ x, y }] }) => this.selectHead(y, x));
  }

  get view() { return this.views[this.entries[this.entry].view]; }
  get label() { return this.entries[this.entry].label; }
  get headLabel() { return `layer ${this.layer}, head ${this.head}`; }

  get positionLabel() {
    if (this.exact !== null) return `position ${this.view.exact.positions[this.exact]}`;
    return `position${this.view.bin > 1 ? "s" : ""} ${this.view.positionLabel(this.bin)}`;
  }

  get cells() { return this.view.grid(this.statistic, this.bin, this.exact); }
  get map() { return this.view.map(this.layer, this.head); }

  // The same colors at all positions and for all models of the page. Those of shares reach to 1: weak ones look weak.
  get maxValue() {
    if (SHARES.includes(this.statistic)) return 1;
    const views = this.entries.map((entry) => this.views[entry.view]).filter((view) => view.statistics[this.statistic]);
    return Math.max(...views.map((view) => view.maxValue(this.statistic))) || 1;
  }

  createControls() {
    this.modelSelect = setOptions(
      element("select", { id: "atlas-view", onchange: () => this.selectModel(Number(this.modelSelect.value)) }),
      this.entries.map((entry, index) => [index, entry.label]),
    );
    this.statisticSelect = element("select", {
      id: "atlas-statistic", onchange: () => { this.statistic = this.statisticSelect.value; this.drawGrid(); },
    });
    this.slider = element("input", {
      type: "range", id: "atlas-position", min: 0, step: 1, oninput: () => this.selectBin(Number(this.slider.value)),
    });
    this.sliderOutput = element("output", { for: "atlas-position" });
    this.exactSelect = element("select", { id: "atlas-exact", onchange: () => this.selectExact(this.exactSelect.value) });
    const select = () => this.selectHead(Number(this.layerInput.value), Number(this.headInput.value));
    [this.layerInput, this.headInput] = ["layer", "head"].map((name) =>
      element("input", { type: "number", id: `atlas-${name}`, min: 0, step: 1, class: "index", onchange: select }));
  }

  mainControls() {
    this.exactControl = labeled("exact position", this.exactSelect);
    return element(
      "div", { class: "controls" }, this.entries.length > 1 ? labeled("model", this.modelSelect) : null,
      labeled("statistic", this.statisticSelect), this.exactControl,
      labeled("position", element("span", {}, this.slider, " ", this.sliderOutput), true),
    );
  }

  headControls() {
    const hint = element("span", { class: "note", text: "or click a cell above" });
    return element("div", { class: "controls" }, labeled("layer", this.layerInput), labeled("head", this.headInput), hint);
  }

  // Start at the position with the highest mean α and the head with the highest α there.
  selectStrongest() {
    const strongest = this.view.strongest();
    const { exact, bin, heads } = this.view;
    this.exact = exact ? strongest : null;
    this.bin = exact ? Math.floor(exact.positions[strongest] / bin) : strongest;
    const alpha = this.cells.flat().map((value) => (Number.isNaN(value) ? -1 : value));
    const best = alpha.indexOf(Math.max(...alpha));
    [this.layer, this.head] = [Math.floor(best / heads), best % heads];
  }

  selectBin(bin) {
    this.bin = bin;
    this.exact = null;
    this.exactSelect.value = "";
    this.drawGrid();
  }

  selectExact(value) {
    this.exact = value === "" ? null : Number(value);
    if (this.exact !== null) this.bin = Math.floor(this.view.exact.positions[this.exact] / this.view.bin);
    this.drawGrid();
  }

  selectHead(layer, head) {
    this.layer = clamp(layer, this.view.layers);
    this.head = clamp(head, this.view.heads);
    this.drawGrid();
    this.drawHead();
  }

  // Adapt the controls to a model, then draw everything.
  selectModel(entry) {
    this.entry = entry;
    const { view } = this;
    setOptions(this.statisticSelect, Object.keys(view.statistics).map((name) => [name, statisticLabel(name)]));
    if (!view.statistics[this.statistic]) this.statistic = "alpha";
    this.statisticSelect.value = this.statistic;
    this.exactControl.hidden = !view.exact;
    this.exact = view.exact ? view.strongest() : null;
    if (view.exact) {
      setOptions(this.exactSelect, [["", "– (bins)"], ...view.exact.positions.map((position, index) => [index, position])]);
      this.exactSelect.value = this.exact;
    }
    this.bin = Math.min(this.bin, view.bins - 1);
    [this.slider.max, this.layerInput.max, this.headInput.max] = [view.bins - 1, view.layers - 1, view.heads - 1];
    this.selectHead(this.layer, this.head);
  }

  createGridChart(host) {
    return new Chart(host, {
      name: "sink_atlas",
      isEager: true,
      file: () => fileName("sink_atlas", this.label, this.statistic, this.positionLabel),
      label: () => `${this.label}: ${statisticLabel(this.statistic)} at ${this.positionLabel}, ${this.view.layers} layers by `
        + `${this.view.heads} heads; layer ${this.layer} head ${this.head} is selected: `
        + formatNumber(this.cells[this.layer][this.head]),
      build: () => this.gridFigure(),
      numbers: () => ({
        columns: ["layer", "head", this.statistic],
        rows: this.cells.flatMap((row, layer) => row.map((value, head) => [layer, head, value])),
      }),
    });
  }

  gridFigure() {
    const { layer, head, view: { layers, heads } } = this;
    const hovertemplate = "layer %{y}, head %{x}: %{z:.4f}<extra></extra>";
    const title = escapeLabel(statisticLabel(this.statistic));
    return {
      data: [{ ...heatmap(this.cells, this.maxValue, title), xgap: 1, ygap: 1, hovertemplate }],
      layout: {
        height: Math.min(640, Math.max(240, 90 + 22 * layers)), margin: { t: 10, r: 10, b: 45, l: 50 },
        xaxis: { title: { text: "head" }, dtick: tickStep(heads) },
        yaxis: { title: { text: "layer" }, dtick: tickStep(layers) },
        shapes: [outline(head - 0.5, head + 0.5, layer - 0.5, layer + 0.5, colors.selected, 3)],
      },
    };
  }

  createMapChart(host) {
    return new Chart(host, {
      name: "head_map",
      file: () => fileName("head_map", this.label, this.headLabel),
      label: () => `${this.label}: attention map of ${this.headLabel}, ${sourceNote(this.view)}`,
      build: () => mapFigure(this.map, this.view),
      numbers: () => mapNumbers(this.map, this.view),
    });
  }

  createProfileChart(host) {
    return new Chart(host, {
      name: "head_positions",
      file: () => fileName("head_positions", this.label, this.headLabel),
      label: () => `${this.label}: attention received and value norms by position, ${this.headLabel}, `
        + `mean over passages${seedNote(this.view)}`,
      build: (theme) => this.profileFigure(theme),
      numbers: () => this.profileNumbers(),
    });
  }

  // Name, values and line of every curve by position.
  profiles(theme = {}) {
    const { view, layer, head } = this;
    const uniform = decodeUint16(view.uniform).subarray(layer * view.bins, (layer + 1) * view.bins);
    const curves = [
      { name: "this head", values: view.profile("alpha", layer, head), line: { color: colors.head } },
      { name: "all heads", values: view.profile("alpha", null, null), line: { color: colors.all } },
      { name: "uniform in this layer", values: uniform, line: { color: theme.text, dash: "dot" } },
    ];
    if (view.statistics.value_norm) {
      const values = view.profile("value_norm", layer, head);
      curves.push({ name: NORM, values, line: { color: colors.valueNorm }, yaxis: "y2" });
    }
    return curves;
  }

  binCenters() {
    return Array.from({ length: this.view.bins }, (_, bin) => (bin + 0.5) * this.view.bin - 0.5);
  }

  profileFigure(theme) {
    const { view } = this;
    const data = this.profiles(theme).map(({ name, values, line, yaxis = "y" }) => (
      { x: this.binCenters(), y: values, name, yaxis, mode: "lines", line: { width: 1.5, ...line } }));
    if (view.exact) {
      const y = view.exactAlpha(this.layer, this.head);
      const marker = { color: colors.head, size: 7 };
      data.push({ x: view.exact.positions, y, name: "this head, exact", mode: "markers", marker });
    }
    return {
      data,
      layout: {
        height: 370, margin: { t: 40, r: 10, b: 45, l: 55 }, legend: { orientation: "h", y: 1, yanchor: "bottom" },
        xaxis: { title: { text: "position" }, anchor: "y2" },
        yaxis: { title: { text: "α" }, domain: [0.36, 1], rangemode: "tozero" },
        yaxis2: { title: { text: NORM }, domain: [0, 0.28], rangemode: "tozero" },
      },
    };
  }

  profileNumbers() {
    const profiles = this.profiles();
    const columns = ["position", "alpha_head", "alpha_all", "alpha_uniform", "value_norm_head"].slice(0, profiles.length + 1);
    const row = (bin) => [this.view.positionLabel(bin), ...profiles.map(({ values }) => values[bin])];
    return { columns, rows: this.binCenters().map((_, bin) => row(bin)) };
  }

  // Everything that depends on the statistic and the position.
  drawGrid() {
    const { view, statistic, positionLabel } = this;
    const value = formatNumber(this.cells[this.layer][this.head]);
    this.slider.value = this.bin;
    this.slider.setAttribute("aria-valuetext", positionLabel);
    this.sliderOutput.textContent = positionLabel;
    const count = `mean over n = ${view.passageCount(this.bin, this.exact)} passages${seedNote(view)}`;
    const bins = this.exact === null && view.bin > 1 ? `; mean of ${view.bin} positions` : "";
    this.about.textContent = `${this.label}: ${statisticLabel(statistic)} at ${positionLabel}, ${count}${bins}`;
    this.gridChart.draw();
    announce(`${this.headLabel}: ${statisticLabel(statistic)} ${value}`);
  }

  // Everything that depends on the selected head only.
  drawHead() {
    const { view } = this;
    [this.layerInput.value, this.headInput.value] = [this.layer, this.head];
    this.mapChart?.draw();
    this.profileChart.draw();
    this.mapNote.textContent = view.pattern
      ? `attention map, ${sourceNote(view)}${mapBinNote(view.pattern.bin)}` : "no map was stored";
    const source = view.passageAlpha ? "of this passage" : `mean over all passages${seedNote(view)}`;
    const shades = `shaded by √α in ${this.headLabel}, ${source}${binNote(view)}${view.span ? "; trigger underlined" : ""}`;
    this.textNote.textContent = view.tokens.length ? `${shades}${this.tokenNotes()}` : "no text was stored";
    const alpha = view.tokenAlpha(this.layer, this.head);
    this.tokens.draw(view, alpha, `${this.label}: tokens, ${shades}`, fileName("tokens", this.label, this.headLabel));
  }

  tokenNotes() {
    const { minQueries, tokenPart } = constants;
    const hasParts = this.view.tokens.some((token) => token.includes(tokenPart));
    const parts = hasParts ? `; ${tokenPart}: a part of the character before` : "";
    return `; the last ${minQueries - 1} are not shaded, since too few queries attend to them${parts}`;
  }
}
