// Fills the sections of the page.

import { Atlas } from "./atlas.js";
import { followWindow, isDark, setTheme } from "./charts.js";
import { Comparison } from "./compare.js";
import { report } from "./data.js";
import { element, figureButtons, formatNumber, saveFile, savePng } from "./dom.js";
import { DataTable, numbersFold } from "./tables.js";
import { View } from "./view.js";

const section = (id) => document.querySelector(`#${id} > .body`);

// A run with its metadata, and those rows of the table of scores that belong to it.
const showRun = (host, row, columns, scores) => {
  const entries = columns.flatMap((text, index) => (row[index] === null ? []
    : [element("dt", { text }), element("dd", { text: formatNumber(row[index]) })]));
  host.replaceChildren(element("dl", {}, ...entries));
  if (scores) {
    const shared = columns.map((column, index) => [scores.columns.indexOf(column), index]).filter(([other]) => other >= 0);
    const rows = scores.rows.filter((score) => shared.every(([other, index]) => score[other] === row[index]));
    const name = row[columns.indexOf("run")];
    new DataTable(host, { name: `scores_${name}`, title: `Scores of ${name}`, columns: scores.columns, rows });
  }
  host.focus();
};

const addRunTable = (host, table) => {
  const details = element("div", { id: "run-details", tabindex: -1, role: "region", "aria-label": "details of a run" });
  const scores = report.tables.find((other) => other.name === "scores");
  new DataTable(host, { ...table, onOpen: (row) => showRun(details, row, table.columns, scores) });
  host.append(details);
};

const addFigureTools = (figure, { name, data }) => {
  const image = figure.querySelector("img");
  const download = (format) => {
    if (format === "png") savePng(name, image, image.naturalWidth, image.naturalHeight);
    else saveFile(`${name}.svg`, "image/svg+xml", Uint8Array.from(atob(image.src.split(",")[1]), (text) => text.charCodeAt(0)));
  };
  const buttons = figureButtons(name, download, () => name, () => data);
  figure.append(element("div", { class: "tools" }, ...buttons), numbersFold(() => data, name).details);
};

const views = report.views.map((payload) => new View(payload));
document.getElementById("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
if (report.atlas.length) new Atlas(section("atlas"), report.atlas, views);
if (report.comparison) new Comparison(section("comparison"), report.comparison, views);
const figures = document.querySelectorAll("figure[data-figure]");
report.figures.forEach((figure, index) => addFigureTools(figures[index], figure));
for (const table of report.tables) {
  if (table.name === "runs") addRunTable(section(table.section), table);
  else new DataTable(section(table.section), table);
}
followWindow();
document.documentElement.dataset.ready = "yes";
