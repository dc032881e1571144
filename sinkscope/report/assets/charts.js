"use strict";
// Charts: drawn when they come into view, drawn again when the theme changes, with what is in them as SVG, PNG and CSV.

const CONFIG = { displayModeBar: false, displaylogo: false };
const DARK = { "#333333": "#d8d8d8", black: "#e8e8e8", "#000000": "#e8e8e8", white: "#161616", "#ffffff": "#161616", "#e8e8e8": "#3a3a3a", "#f7ef9f": "#5a5320" };
const charts = [];

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

// strings under keys that name colours; text is left alone
const recoloured = (value, key = "") => {
  if (typeof value === "string") return /color$/i.test(key) ? (Object.hasOwn(DARK, value.toLowerCase()) ? DARK[value.toLowerCase()] : value) : value;
  if (Array.isArray(value)) return value.map((each) => recoloured(each, key));
  if (value && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, recoloured(each, name)]));
  }
  return value;
};

const template = (dark) => {
  const [text, line] = dark ? ["#e8e8e8", "#666666"] : ["#1b1b1b", "#999999"];
  const axis = { showline: true, linecolor: line, ticks: "outside", tickcolor: line, showgrid: false, zeroline: false, automargin: true };
  const colorbar = { outlinewidth: 0, ticks: "outside", tickcolor: line, thickness: 12 };
  return {
    layout: {
      font: { color: text, size: 12, family: "system-ui, DejaVu Sans, Arial, sans-serif" },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis, coloraxis: { colorbar },
      colorway: ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"],
      hoverlabel: { font: { family: "system-ui, DejaVu Sans, Arial, sans-serif" } },
    },
    data: { heatmap: [{ colorbar }] },
  };
};

const themed = (figure, dark) => {
  const { data, layout } = dark ? recoloured(figure) : figure;
  return { data, layout: { ...layout, template: template(dark) } };
};

// `build` gives {data, layout}, `numbers` {columns, rows}; `label` tells what the picture shows to those who do not see it.
// `least` is the width that its panels need; on a narrower screen it scrolls by itself.
const chart = (host, { name, label, build, numbers, eager = false, height = null, least = 0 }) => {
  const plot = el("div", { class: "plot", role: "img" });
  const { details, refresh } = folded(numbers);
  const tools = el("div", { class: "tools" });
  const told = () => (typeof label === "function" ? label() : label);
  const picture = (format) => {
    const figure = themed(build(), false);
    const size = { width: Math.max(500, plot.clientWidth), height: plot.clientHeight || 400 };
    const own = figure.layout.title;
    const title = own ? {} : { title: { text: plain(told()), x: 0, xref: "paper", font: { size: 12 } }, margin: { ...figure.layout.margin, t: 45 } };
    Plotly.downloadImage({ data: figure.data, layout: { ...figure.layout, ...title, paper_bgcolor: "white", ...size } }, { format, filename: name, scale: format === "png" ? 2 : 1, ...size });
  };
  for (const format of ["svg", "png"]) tools.append(el("button", { type: "button", "data-format": format, "aria-label": `${name} as ${format.toUpperCase()}`, onclick: () => picture(format) }, format.toUpperCase()));
  tools.append(csvButton(name, name, numbers));
  host.append(plot, tools, details);
  const self = {
    plot,
    visible: eager,
    draw() {
      plot.setAttribute("aria-label", told());
      refresh();
      if (!self.visible) return;
      const figure = themed(build(), isDark());
      if (height) figure.layout.height = height;
      figure.layout.width = Math.max(least, plot.clientWidth || 500);
      Plotly.react(plot, figure.data, figure.layout, CONFIG);
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
