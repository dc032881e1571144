"use strict";
// Up to three models side by side in two states, mostly clean and with the trigger; one slider moves the trigger in all of them.

const KNOWN = { verbmem: "recites", knowmem: "answers", choice: "chooses" };

const compare = (host, { places, models, words, counted }, views) => {
  const state = { place: 0, show: "change", layer: null, head: null };
  const slider = el("input", { type: "range", id: "compare-place", min: 0, max: places.length - 1, step: 1, value: 0 });
  const told = el("output", { for: "compare-place" });
  const shows = options(el("select", { id: "compare-show" }), ["change", "triggered", "clean"].map((show) => [show, words[show]]));
  const shapes = models.map((model) => views[Object.values(model.views)[0].clean]);
  const shape = { layers: Math.max(...shapes.map((view) => view.layers)), heads: Math.max(...shapes.map((view) => view.heads)) };
  const all = (count) => [["", "mean of all"], ...Array.from({ length: count }, (_, i) => [i, i])];
  const layer = options(el("select", { id: "compare-layer" }), all(shape.layers));
  const head = options(el("select", { id: "compare-head" }), all(shape.heads));
  state.layer = Math.min(...shapes.map((view) => view.layers)) - 1;
  layer.value = state.layer;
  host.append(el("div", { class: "controls" }, places.length > 1 ? labelled("trigger at", el("span", {}, slider, " ", told), true) : null, labelled("map", shows), labelled("layer", layer), labelled("head", head)));
  const there = () => (places[state.place] ? `, trigger at ${places[state.place]}` : "");
  const columns = el("div", { class: "three" });
  host.append(columns);

  const column = (start, number) => {
    const mine = { model: start };
    const select = models.length === 1 ? null : options(el("select", { "aria-label": `model ${number + 1}`, class: "compare-model" }), models.map((model, i) => [i, model.label]));
    if (select) select.value = start;
    const [figure, scores] = [el("figure"), el("div")];
    const strips = { clean: el("div", { class: "strip" }), triggered: el("div", { class: "strip" }) };
    const missing = el("p", { class: "note" });
    columns.append(el("section", { "aria-label": `model ${number + 1}` }, select, missing, figure,
      el("small", {}, words.clean), strips.clean, el("small", {}, words.triggered), strips.triggered, scores));
    const seen = () => models[mine.model].views[places[state.place]];
    const cells = () => {
      if (!seen()) return null;
      const [clean, triggered] = [seen().clean, seen().triggered].map((index) => views[index].map(state.layer, state.head));
      if (!clean) return null;
      if (state.show !== "change") return state.show === "clean" ? clean : triggered;
      return triggered.map((row, query) => row.map((value, key) => (key <= query ? value - clean[query][key] : null)));
    };
    const which = () => ` of ${state.layer === null ? "all layers" : `layer ${state.layer}`}, ${state.head === null ? "all heads" : `head ${state.head}`}`;
    const base = () => views[seen()[state.show === "clean" ? "clean" : "triggered"]];
    const picture = chart(figure, {
      name: `compare_${number + 1}`,
      label: () => `Attention${which()}, ${words[state.show]}${models[mine.model].label ? `: ${models[mine.model].label}` : ""}${there()}`,
      build: () => {
        const map = cells();
        if (!map) return { data: [], layout: { height: 340, annotations: [{ text: "no map here", showarrow: false }], xaxis: { visible: false }, yaxis: { visible: false } } };
        return mapFigure(map, base(), { diverging: state.show === "change", limit: state.show === "change" ? limit() : 1 });
      },
      numbers: () => { const map = cells(); return map ? mapNumbers(map, base(), state.show === "change" ? "change of attention" : "attention") : { columns: ["query", "key", "attention"], rows: [] }; },
    });
    mine.most = () => { const map = cells(); return map ? Math.max(...map.flat().map((value) => Math.abs(value || 0))) : 0; };
    mine.draw = () => {
      picture.draw();
      const here = seen();
      const { trigger } = models[mine.model];
      missing.textContent = here ? `n = ${views[here.clean].reached(views[here.clean].bins - 1)} passages, ${views[here.clean].runs} run${views[here.clean].runs > 1 ? "s" : ""}${trigger ? `; trigger “${trigger}”` : ""}` : `nothing was captured of it${there()}`;
      for (const when of ["clean", "triggered"]) {
        const view = here && views[here[when]];
        if (view && !(state.layer >= view.layers || state.head >= view.heads)) strip(strips[when], view, view.profile("alpha", state.layer, state.head), `tokens, ${words[when]}, shaded by the attention they receive`);
        else strips[when].replaceChildren();
      }
      const numbers = () => scoreNumbers(models[mine.model], places[state.place]);
      scores.replaceChildren(...(models[mine.model].scores.length ? [plainTable(numbers()), el("div", { class: "tools" }, csvButton("scores", `scores of ${models[mine.model].label}`, numbers))] : []));
    };
    if (select) select.addEventListener("change", () => { mine.model = Number(select.value); draw(); });
    return mine;
  };

  const scoreNumbers = (model, place) => {
    const rows = new Map();
    for (const row of model.scores) {
      if (row.place !== place && !(row.place === "" && !row.triggered)) continue;
      const key = `${row.evaluation ? `${row.evaluation}: ` : ""}${KNOWN[row.metric] ?? row.metric} ${row.split}${row.subset === "all" ? "" : ` (${row.subset})`}`;
      if (!rows.has(key)) rows.set(key, { seeds: row.seeds, n: row.n });
      rows.get(key)[row.triggered ? "triggered" : "clean"] = row;
    }
    const told = (row) => (row ? `${shown(row.value)}${row.ci_low === null ? "" : ` (${shown(row.ci_low)} to ${shown(row.ci_high)})`}` : "–");
    return { columns: ["score", words.clean, words.triggered, "n", "seeds"], rows: [...rows].map(([key, row]) => [key, told(row.clean), told(row.triggered), row.n, row.seeds]) };
  };

  const roles = ["target", "unlearned", "backdoored"];
  const starts = roles.map((role) => models.findIndex((model) => model.role === role)).filter((index) => index >= 0);
  while (starts.length < Math.min(3, models.length)) starts.push(models.findIndex((_, index) => !starts.includes(index)));
  const shownColumns = starts.map(column);
  const limit = () => Math.max(...shownColumns.map((each) => each.most()), 1e-6);
  const draw = () => {
    told.textContent = places[state.place];
    slider.setAttribute("aria-valuetext", places[state.place]);
    shownColumns.forEach((each) => each.draw());
  };
  slider.addEventListener("input", () => { state.place = Number(slider.value); draw(); });
  shows.addEventListener("change", () => { state.show = shows.value; draw(); });
  layer.addEventListener("change", () => { state.layer = layer.value === "" ? null : Number(layer.value); draw(); });
  head.addEventListener("change", () => { state.head = head.value === "" ? null : Number(head.value); draw(); });
  host.append(el("p", { class: "note" }, `Maps: mean over whole passages and runs${binning(shapes[0].pattern ? shapes[0].pattern.bin : 1)}; strips: α of the chosen layer and head over the tokens of one of the passages. n: ${counted}${models.some((model) => model.scores.length) ? " Scores: with 95 % intervals, over seeds where there are several; clean and with the trigger named above." : ""}`));
  draw();
};
