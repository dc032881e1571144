"use strict";
const report = JSON.parse(document.getElementById("report-data").textContent);
const views = report.views.map((payload) => new View(payload));

document.getElementById("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((each) => each.draw()));

const section = (id) => document.querySelector(`#${id} > .body`);

if (report.atlas.length) atlas(section("atlas"), report.atlas, views);
if (report.compare) compare(section("compare"), report.compare, views);

for (const picture of report.pictures) {
  const figure = el("figure", { "data-picture": picture.name });
  const heading = el("h3");
  heading.textContent = picture.title;
  section("pictures").append(heading, figure);
  const axes = Object.entries(picture.figure.layout).filter(([key]) => /^xaxis\d*$/.test(key));
  const across = new Set(axes.map(([, axis]) => axis.domain?.[0] ?? 0)).size;
  const least = Math.max(680, 230 * across);
  chart(figure, { name: picture.name, label: picture.title, build: () => picture.figure, numbers: () => picture.numbers, least });
}

const opened = (row, columns, scores) => {
  const host = document.getElementById("opened");
  const facts = el("dl", {}, ...columns.flatMap((column, i) => {
    const [term, value] = [el("dt"), el("dd")];
    [term.textContent, value.textContent] = [column, shown(row[i])];
    return row[i] === null ? [] : [term, value];
  }));
  host.replaceChildren(facts);
  if (scores) {
    const keys = columns.map((key, here) => [scores.columns.indexOf(key), here]).filter(([there]) => there >= 0);
    const mine = scores.rows.filter((each) => keys.every(([there, here]) => each[there] === row[here]));
    const name = row[columns.indexOf("run")];
    table(host, { name: `scores_${name}`, title: `Scores of ${name}`, columns: scores.columns, rows: mine });
  }
  host.focus();
};

for (const each of report.tables) {
  const host = section(each.section);
  if (each.name !== "runs") table(host, each);
  else {
    table(host, { ...each, open: (row) => opened(row, each.columns, report.tables.find((other) => other.name === "scores")) });
    host.append(el("div", { id: "opened", tabindex: -1, role: "region", "aria-label": "the opened run" }));
  }
}
addEventListener("beforeprint", () => charts.forEach((each) => { each.visible = true; each.draw(); }));
document.documentElement.dataset.ready = "yes";
