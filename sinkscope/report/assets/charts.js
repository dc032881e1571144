"use strict";
// Charts: drawn when they come into view, drawn again when the theme changes, with what is in them as SVG, PNG and CSV.

const CONFIG = { displayModeBar: false, displaylogo: false };
const DARK = {
  "#333333": "#d8d8d8", black: "#e8e8e8", "#000000": "#e8e8e8", white: "#161616", "#ffffff": "#161616",
  "#e8e8e8": "#3a3a3a", "#f7ef9f": "#5a5320", "#6b4423": "#b58a63",
};
const FONT = "system-ui, DejaVu Sans, Arial, sans-serif";
const charts = [];

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

// strings under keys that name colors; text is left alone
const recolored = (value, key = "") => {
  if (typeof value === "string") return /color$/i.test(key) ? (Object.hasOwn(DARK, value.toLowerCase()) ? DARK[value.toLowerCase()] : value) : value;
  if (Array.isArray(value)) return value.map((each) => recolored(each, key));
  if (value && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, recolored(each, name)]));
  }
  return value;
};

const template = (dark) => {
  const [text, line] = dark ? ["#e8e8e8", "#666666"] : ["#1b1b1b", "#999999"];
  const axis = { showline: true, linecolor: line, ticks: "outside", tickcolor: line, showgrid: false, zeroline: false, automargin: true };
  const colorbar = { outlinewidth: 0, ticks: "outside", tickcolor: line, thickness: 12 };
  return {
    layout: {
      font: { color: text, size: 12, family: FONT },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis, coloraxis: { colorbar },
      colorway: ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"],
      hoverlabel: { font: { family: FONT } },
    },
    data: { heatmap: [{ colorbar }] },
  };
};

const themed = (figure, dark) => {
  const { data, layout } = dark ? recolored(figure) : figure;
  return { data, layout: { ...layout, template: template(dark) } };
};

const TITLE = 16; // pixels of a line

// A figure of a width, its title in lines that fit `seen`, and as much more room above and in all as these take; `title` if it brings none.
const fitted = ({ data, layout }, width, seen, title = null) => {
  if (!layout.title && title === null) return { data, layout: { ...layout, width } };
  const own = layout.title ? layout.title.text.split("<br>") : [];
  const font = `12px ${layout.font?.family ?? FONT}`;
  const lines = own.length ? wrapped(own.join(" "), seen - 30, font) : wrapped(title, seen - 30, font).map(plain);
  const more = TITLE * (lines.length - own.length) + (own.length ? 0 : TITLE);
  const place = { x: 0, xref: "container", y: 1, yref: "container", yanchor: "top", pad: { t: TITLE, l: 10 }, font: { size: 12 } };
  return {
    data,
    layout: {
      ...layout,
      width,
      height: (layout.height || 400) + more,
      title: { ...(layout.title ?? place), text: lines.join("<br>") },
      margin: { ...layout.margin, t: (layout.margin?.t ?? 0) + more },
    },
  };
};

// `build` gives {data, layout}, `numbers` {columns, rows}; `label` tells what the picture shows to those who do not see it, `file` what its files are called.
// `least` is the width that its panels need; on a narrower screen it scrolls by itself.
const chart = (host, { name, label, build, numbers, file = () => name, eager = false, least = 0 }) => {
  const plot = el("div", { class: "plot", role: "img" });
  const { details, refresh } = folded(numbers, name);
  const tools = el("div", { class: "tools" });
  const told = () => (typeof label === "function" ? label() : label);
  const picture = (format) => {
    const width = Math.max(500, least, plot.clientWidth);
    const { data, layout } = fitted(themed(build(), false), width, width, told());
    const { height } = layout;
    Plotly.downloadImage({ data, layout: { ...layout, paper_bgcolor: "white" } }, { format, filename: file(), scale: format === "png" ? 2 : 1, width, height });
  };
  tools.append(...pictureButtons(name, picture), csvButton(file, name, numbers));
  host.append(plot, tools, details);
  const self = {
    plot,
    visible: eager,
    draw() {
      plot.setAttribute("aria-label", told());
      refresh();
      if (!self.visible) return;
      const width = Math.max(least, plot.clientWidth || 500);
      const figure = fitted(themed(build(), isDark()), width, plot.clientWidth || width);
      Plotly.react(plot, figure.data, figure.layout, CONFIG);
      document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true"); // where plotly measures text
      plot.dataset.drawn = "yes";
    },
  };
  charts.push(self);
  if (eager) self.draw();
  else {
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      self.visible = true;
      self.draw();
    }, { rootMargin: "400px" }).observe(plot);
    self.draw();
  }
  return self;
};

let resized = null;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => charts.forEach((each) => each.draw()), 150);
});

const setTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
  charts.forEach((each) => each.draw());
};
