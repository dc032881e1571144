"use strict";
// Up to three models side by side in two states, mostly clean and with the trigger; one slider moves the trigger in all of them.

const KNOWN = { verbmem: "recites", knowmem: "answers", choice: "chooses" };
const WHEN = ["clean", "triggered"];

const compare = (host, { places, models, words, counted }, views) => {
  const state = { place: 0, show: "change", layer: null, head: null };
  const slider = el("input", { type: "range", id: "compare-place", min: 0, max: places.length - 1, step: 1, value: 0 });
  const told = el("output", { for: "compare-place" });
  const shows = options(el("select", { id: "compare-show" }), ["change", "triggered", "clean"].map((show) => [show, words[show]]));
  const shapes = models.map((model) => views[Object.values(model.views)[0].clean]);
  const all = (count) => [["", "mean of all"], ...Array.from({ length: count }, (_, i) => [i, i])];
  const [layer, head] = ["layer", "head"].map((name) =>
    options(el("select", { id: `compare-${name}` }), all(Math.max(...shapes.map((view) => view[`${name}s`])))));
  state.layer = Math.min(...shapes.map((view) => view.layers)) - 1;
  layer.value = state.layer;
  const moved = places.length > 1 ? labelled("trigger at", el("span", {}, slider, " ", told), true) : null;
  const columns = el("div", { class: "three" });
  host.append(el("div", { class: "controls" }, moved, labelled("map", shows), labelled("layer", layer), labelled("head", head)), columns);
  const place = () => places[state.place];
  const there = () => (place() ? `, trigger at ${place()}` : "");
  const of = () => `${state.layer === null ? "all layers" : `layer ${state.layer}`}, ${state.head === null ? "all heads" : `head ${state.head}`}`;

  // of every score its value in both states and their intervals
  const scoresAt = (model) => {
    const rows = new Map();
    for (const row of model.scores) {
      if (row.place !== place() && !(row.place === "" && !row.triggered)) continue;
      const what = `${KNOWN[row.metric] ?? row.metric} ${row.split}${row.subset === "all" ? "" : ` (${row.subset})`}`;
      const key = row.evaluation ? `${row.evaluation}: ${what}` : what;
      if (!rows.has(key)) rows.set(key, { unit: row.unit, n: row.n, seeds: row.seeds });
      rows.get(key)[row.triggered ? "triggered" : "clean"] = row;
    }
    return [...rows];
  };
  const scoreTable = (model) => {
    const interval = (row) => (row.ci_low === null ? "" : ` (${shown(row.ci_low)} to ${shown(row.ci_high)})`);
    const cell = (row) => (row ? `${shown(row.value)}${interval(row)}` : "–");
    return {
      columns: ["score", words.clean, words.triggered, "n", "seeds"],
      rows: scoresAt(model).map(([key, row]) => [`${key}, ${row.unit}`, cell(row.clean), cell(row.triggered), row.n, row.seeds]),
    };
  };
  const scoreNumbers = (model) => ({
    columns: ["score", "unit", ...WHEN.flatMap((when) => ["", " low", " high"].map((part) => `${words[when]}${part}`)), "n", "seeds"],
    rows: scoresAt(model).map(([key, row]) =>
      [key, row.unit, ...WHEN.flatMap((when) => ["value", "ci_low", "ci_high"].map((part) => row[when]?.[part])), row.n, row.seeds]),
  });

  const column = (start, number) => {
    const mine = { model: start };
    const select = models.length === 1 ? null
      : options(el("select", { "aria-label": `model ${number + 1}`, class: "compare-model" }), models.map((model, i) => [i, model.label]));
    if (select) select.value = start;
    const [figure, scores] = [el("figure"), el("div")];
    const missing = el("p", { class: "note" });
    const hosts = WHEN.map(() => el("div", { class: "strip" }));
    columns.append(el("section", { "aria-label": `model ${number + 1}` }, select, missing, figure,
      ...WHEN.flatMap((when, i) => [el("small", {}, words[when]), hosts[i]]), scores));
    const strips = WHEN.map((when, i) => strip(hosts[i], `model ${number + 1}: tokens, ${words[when]}`));
    const label = () => models[mine.model].label;
    const seen = () => models[mine.model].views[place()];
    const cells = () => {
      if (!seen()) return null;
      const [clean, triggered] = WHEN.map((when) => views[seen()[when]].map(state.layer, state.head));
      if (!clean) return null;
      if (state.show !== "change") return state.show === "clean" ? clean : triggered;
      return triggered.map((row, query) => row.map((value, key) => (key <= query ? value - clean[query][key] : null)));
    };
    const base = () => views[seen()[state.show === "clean" ? "clean" : "triggered"]];
    const changes = () => state.show === "change";
    const what = () => (changes() ? "change of attention" : "attention");
    const nothing = () => ({ height: 340, annotations: [{ text: "no map here", showarrow: false }], xaxis: { visible: false }, yaxis: { visible: false } });
    const picture = chart(figure, {
      name: `compare_${number + 1}`,
      file: () => fileName("compare", label(), place(), words[state.show], of()),
      label: () => `Attention of ${of()}, ${words[state.show]}${label() ? `: ${label()}` : ""}${there()}`,
      build: () => {
        const map = cells();
        return map ? mapFigure(map, base(), { what: what(), diverging: changes(), limit: changes() ? limit() : 1 }) : { data: [], layout: nothing() };
      },
      numbers: () => { const map = cells(); return map ? mapNumbers(map, base(), what()) : { columns: ["query", "key", what()], rows: [] }; },
    });
    mine.most = () => { const map = cells(); return map ? Math.max(...map.flat().map((value) => Math.abs(value || 0))) : 0; };
    mine.draw = () => {
      picture.draw();
      const here = seen();
      const model = models[mine.model];
      const first = here && views[here.clean];
      const count = here && `n = ${first.reached(first.bins - 1)} passages, ${first.runs} run${first.runs > 1 ? "s" : ""}`;
      missing.textContent = here ? `${count}${model.trigger ? `; trigger “${model.trigger}”` : ""}` : `nothing was captured of it${there()}`;
      WHEN.forEach((when, i) => {
        const view = here && views[here[when]];
        if (!view || state.layer >= view.layers || state.head >= view.heads) { strips[i].hide(); return; }
        const title = `${label() ? `${label()}: ` : ""}tokens, ${words[when]}${there()}, shaded by α of ${of()}${blocks(view)}`;
        strips[i].draw(view, view.profile("alpha", state.layer, state.head), title, fileName("tokens", label(), place(), words[when], of()));
      });
      const called = () => `model ${number + 1}: scores of ${label()}`;
      const file = () => fileName("scores", label(), place());
      scores.replaceChildren(...(model.scores.length ? [plainTable(scoreTable(model), called()),
        el("div", { class: "tools" }, csvButton(file, called(), () => scoreNumbers(model)))] : []));
    };
    if (select) select.addEventListener("change", () => { mine.model = Number(select.value); draw(); });
    return mine;
  };

  const roles = ["target", "unlearned", "backdoored"];
  const starts = roles.map((role) => models.findIndex((model) => model.role === role)).filter((index) => index >= 0);
  while (starts.length < Math.min(3, models.length)) starts.push(models.findIndex((_, index) => !starts.includes(index)));
  const shownColumns = starts.map(column);
  const limit = () => Math.max(...shownColumns.map((each) => each.most()), 1e-6);
  const draw = () => {
    told.textContent = place();
    slider.setAttribute("aria-valuetext", place());
    shownColumns.forEach((each) => each.draw());
  };
  slider.addEventListener("input", () => { state.place = Number(slider.value); draw(); });
  shows.addEventListener("change", () => { state.show = shows.value; draw(); });
  layer.addEventListener("change", () => { state.layer = layer.value === "" ? null : Number(layer.value); draw(); });
  head.addEventListener("change", () => { state.head = head.value === "" ? null : Number(head.value); draw(); });
  const binned = binning(shapes[0].pattern ? shapes[0].pattern.bin : 1);
  const scored = models.some((model) => model.scores.length)
    ? " Scores: with 95 % intervals, over seeds where there are several; clean and with the trigger named above." : "";
  host.append(el("p", { class: "note" }, `Maps: mean over whole passages and runs${binned}; `
    + `strips: α of the chosen layer and head over the tokens of one of the passages${blocks(shapes[0])}`
    + `${places.length > 1 ? ", not the same at every place of the trigger" : ""}. n: ${counted}${scored}`));
  draw();
};
