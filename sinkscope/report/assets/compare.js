// Up to three models side by side in two conditions, usually clean and with the trigger; one slider moves the trigger.

import { Chart } from "./charts.js";
import { csvButton, element, fileName, formatNumber, labeled, setOptions } from "./dom.js";
import { mapBinNote, mapFigure, mapNumbers } from "./heatmaps.js";
import { plainTable } from "./tables.js";
import { tokenStrip } from "./tokens.js";
import { binNote } from "./view.js";

const METRIC_LABELS = { verbmem: "VerbMem", knowmem: "KnowMem", choice: "multiple choice" };
const CONDITIONS = ["clean", "triggered"];
const MAX_COLUMNS = 3;
const FIRST_ROLES = ["target", "unlearned", "backdoored"];
const INTERVAL = ["value", "ci_low", "ci_high"];

const scoreLabel = (row) => {
  const name = `${METRIC_LABELS[row.metric] ?? row.metric} ${row.split}${row.subset === "all" ? "" : ` (${row.subset})`}`;
  return row.evaluation ? `${row.evaluation}: ${name}` : name;
};

const scoreCell = (row) => {
  if (!row) return "–";
  const interval = row.ci_low === null ? "" : ` (${formatNumber(row.ci_low)} to ${formatNumber(row.ci_high)})`;
  return `${formatNumber(row.value)}${interval}`;
};

// The scores of a model at a placement, each in both conditions.
const scoresAt = (model, placement) => {
  const scores = new Map();
  for (const row of model.scores) {
    if (row.placement !== placement && !(row.placement === "" && !row.triggered)) continue;
    const label = scoreLabel(row);
    if (!scores.has(label)) scores.set(label, { label, unit: row.unit, n: row.n, seeds: row.seeds });
    scores.get(label)[row.triggered ? "triggered" : "clean"] = row;
  }
  return [...scores.values()];
};

export class Comparison {
  constructor(host, { placements, models, labels, note }, views) {
    Object.assign(this, { placements, models, labels, views, placementIndex: 0, quantity: "change", layer: null, head: null });
    this.firstViews = models.map((model) => views[Object.values(model.views)[0].clean]);
    const columnHost = element("div", { class: "three" });
    host.append(this.createControls(), columnHost, element("p", { class: "note", text: this.noteText(note) }));
    this.columns = this.firstModels().map((model, index) => new ComparisonColumn(this, columnHost, model, index + 1));
    this.draw();
  }

  get placement() { return this.placements[this.placementIndex]; }
  get placementNote() { return this.placement ? `, trigger at ${this.placement}` : ""; }
  get isDifference() { return this.quantity === "change"; }

  get headLabel() {
    const layer = this.layer === null ? "all layers" : `layer ${this.layer}`;
    return `${layer}, ${this.head === null ? "all heads" : `head ${this.head}`}`;
  }

  // One color scale for the differences of all columns.
  get limit() { return this.isDifference ? Math.max(1e-6, ...this.columns.map((column) => column.maxValue())) : 1; }

  createControls() {
    this.slider = element("input", {
      type: "range", id: "compare-placement", min: 0, max: this.placements.length - 1, step: 1, value: 0,
      oninput: () => { this.placementIndex = Number(this.slider.value); this.draw(); },
    });
    this.sliderOutput = element("output", { for: "compare-placement" });
    const quantity = setOptions(
      element("select", { id: "compare-quantity", onchange: () => { this.quantity = quantity.value; this.draw(); } }),
      ["change", "triggered", "clean"].map((name) => [name, this.labels[name]]),
    );
    const [layer, head] = ["layer", "head"].map((name) => this.indexSelect(name));
    this.layer = Math.min(...this.firstViews.map((view) => view.layers)) - 1;
    layer.value = this.layer;
    const slider = labeled("trigger at", element("span", {}, this.slider, " ", this.sliderOutput), true);
    return element("div", { class: "controls" }, this.placements.length > 1 ? slider : null,
      labeled("map", quantity), labeled("layer", layer), labeled("head", head));
  }

  // Selects a layer or head, or the mean of all.
  indexSelect(name) {
    const count = Math.max(...this.firstViews.map((view) => view[`${name}s`]));
    const select = element("select", {
      id: `compare-${name}`,
      onchange: () => { this[name] = select.value === "" ? null : Number(select.value); this.draw(); },
    });
    return setOptions(select, [["", "mean of all"], ...Array.from({ length: count }, (_, index) => [index, index])]);
  }

  // The first model of each role, then others.
  firstModels() {
    const byRole = FIRST_ROLES.map((role) => this.models.findIndex((model) => model.role === role));
    const indices = [...byRole.filter((index) => index >= 0), ...this.models.keys()];
    return [...new Set(indices)].slice(0, MAX_COLUMNS);
  }

  noteText(passages) {
    const [first] = this.firstViews;
    const changes = this.placements.length > 1 ? ", which differ between placements of the trigger" : "";
    const scores = this.models.some((model) => model.scores.length)
      ? " Scores: with 95 % intervals, over seeds where there are several; clean and with the trigger named above." : "";
    return `Maps: mean over passages of full length and runs${mapBinNote(first.pattern?.bin ?? 1)}; tokens: α of the `
      + `selected layer and head over the tokens of one passage${binNote(first)}${changes}. n: ${passages}${scores}`;
  }

  draw() {
    this.sliderOutput.textContent = this.placement;
    this.slider.setAttribute("aria-valuetext", this.placement);
    for (const column of this.columns) column.draw();
  }
}

class ComparisonColumn {
  constructor(comparison, host, model, number) {
    Object.assign(this, { comparison, modelIndex: model, number });
    const [figure, strips] = [element("figure"), CONDITIONS.map(() => element("div", { class: "strip" }))];
    this.note = element("p", { class: "note" });
    this.scores = element("div");
    const captioned = CONDITIONS.flatMap((condition, index) =>
      [element("small", { text: comparison.labels[condition] }), strips[index]]);
    host.append(element("section", { "aria-label": `model ${number}` },
      this.createSelect(), this.note, figure, ...captioned, this.scores));
    this.strips = CONDITIONS.map((condition, index) =>
      tokenStrip(strips[index], `model ${number}: tokens, ${comparison.labels[condition]}`));
    this.chart = this.createChart(figure);
  }

  get model() { return this.comparison.models[this.modelIndex]; }

  // The views of the model at the placement of the slider by condition, if it was captured there.
  get conditions() {
    const numbers = this.model.views[this.comparison.placement];
    const { views } = this.comparison;
    return numbers ? { clean: views[numbers.clean], triggered: views[numbers.triggered] } : null;
  }

  createSelect() {
    const { models } = this.comparison;
    if (models.length === 1) return null;
    const select = setOptions(element("select", {
      "aria-label": `model ${this.number}`, class: "compare-model",
      onchange: () => { this.modelIndex = Number(select.value); this.comparison.draw(); },
    }), models.map((model, index) => [index, model.label]));
    select.value = this.modelIndex;
    return select;
  }

  createChart(host) {
    const { comparison } = this;
    const name = () => [this.model.label, comparison.placement, comparison.labels[comparison.quantity], comparison.headLabel];
    const quantity = () => (comparison.isDifference ? "change of attention" : "attention");
    return new Chart(host, {
      name: `compare_${this.number}`,
      file: () => fileName("compare", ...name()),
      label: () => `Attention of ${comparison.headLabel}, ${comparison.labels[comparison.quantity]}`
        + `${this.model.label ? `: ${this.model.label}` : ""}${comparison.placementNote}`,
      build: () => mapFigure(this.map(), this.mapView, quantity(), comparison.isDifference, comparison.limit),
      numbers: () => mapNumbers(this.map(), this.mapView, quantity()),
    });
  }

  get mapView() { return this.conditions?.[this.comparison.quantity === "clean" ? "clean" : "triggered"]; }

  // Query × key of the selected quantity; null without a map.
  map() {
    const { layer, head, quantity, isDifference } = this.comparison;
    if (!this.conditions) return null;
    const [clean, triggered] = CONDITIONS.map((condition) => this.conditions[condition].map(layer, head));
    if (!clean || !isDifference) return quantity === "clean" ? clean : triggered;
    return triggered.map((row, query) => row.map((value, key) => (key <= query ? value - clean[query][key] : null)));
  }

  maxValue() { return Math.max(0, ...(this.map() ?? []).flat().map((value) => Math.abs(value || 0))); }

  draw() {
    this.chart.draw();
    this.note.textContent = this.noteText();
    CONDITIONS.forEach((condition, index) => this.drawTokens(this.strips[index], condition));
    this.drawScores();
  }

  noteText() {
    if (!this.conditions) return `not captured${this.comparison.placementNote}`;
    const { clean } = this.conditions;
    const trigger = this.model.trigger ? `; trigger “${this.model.trigger}”` : "";
    return `n = ${clean.passageCount(clean.bins - 1)} passages, ${clean.runs} run${clean.runs > 1 ? "s" : ""}${trigger}`;
  }

  drawTokens(strip, condition) {
    const { layer, head, headLabel, placement, placementNote, labels } = this.comparison;
    const view = this.conditions?.[condition];
    if (!view?.hasHead(layer, head)) {
      strip.hide();
      return;
    }
    const { label } = this.model;
    const prefix = label ? `${label}: ` : "";
    const title = `${prefix}tokens, ${labels[condition]}${placementNote}, shaded by √α of ${headLabel}${binNote(view)}`;
    const name = fileName("tokens", label, placement, labels[condition], headLabel);
    strip.draw(view, view.profile("alpha", layer, head), title, name);
  }

  drawScores() {
    const { model, comparison: { placement } } = this;
    const title = `model ${this.number}: scores of ${model.label}`;
    const button = csvButton(() => fileName("scores", model.label, placement), title, () => this.scoreNumbers());
    const tools = element("div", { class: "tools" }, button);
    this.scores.replaceChildren(...(model.scores.length ? [plainTable(this.scoreTable(), title), tools] : []));
  }

  scoreTable() {
    const { labels, placement } = this.comparison;
    const rows = scoresAt(this.model, placement).map(({ label, unit, clean, triggered, n, seeds }) =>
      [`${label}, ${unit}`, scoreCell(clean), scoreCell(triggered), n, seeds]);
    return { columns: ["score", labels.clean, labels.triggered, "n", "seeds"], rows };
  }

  scoreNumbers() {
    const { labels, placement } = this.comparison;
    const columns = CONDITIONS.flatMap((condition) => ["", " low", " high"].map((suffix) => `${labels[condition]}${suffix}`));
    const numbers = (score) => CONDITIONS.flatMap((condition) => INTERVAL.map((key) => score[condition]?.[key]));
    const rows = scoresAt(this.model, placement).map((score) =>
      [score.label, score.unit, ...numbers(score), score.n, score.seeds]);
    return { columns: ["score", "unit", ...columns, "n", "seeds"], rows };
  }
}
