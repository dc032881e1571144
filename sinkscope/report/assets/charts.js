// Plotly charts: drawn when they scroll into view and again when the theme changes, with SVG, PNG and CSV downloads.

import { THEMES } from "./colors.js";
import { element, escapeLabel, figureButtons, wrapText } from "./dom.js";
import { numbersFold } from "./tables.js";

const CONFIG = { displayModeBar: false, displaylogo: false };
const MIN_WIDTH = 500;
const DEFAULT_HEIGHT = 400;
export const TITLE_LINE = 16;
export const FONT = "system-ui, DejaVu Sans, Arial, sans-serif";
const charts = [];

export const isDark = () => {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

const plotlyTemplate = ({ text, line }) => {
  const axis = {
    showline: true, linecolor: line, ticks: "outside", tickcolor: line, showgrid: false, zeroline: false, automargin: true,
  };
  const transparent = "rgba(0,0,0,0)";
  return {
    layout: {
      font: { color: text, size: 12, family: FONT }, paper_bgcolor: transparent, plot_bgcolor: transparent,
      xaxis: axis, yaxis: axis, hoverlabel: { font: { family: FONT } },
    },
    data: { heatmap: [{ colorbar: { outlinewidth: 0, ticks: "outside", tickcolor: line, thickness: 12 } }] },
  };
};

// A figure with a title above it, in as many lines as fit the width.
const withTitle = ({ data, layout }, title, width) => {
  const lines = wrapText(title, width - 30, `12px ${FONT}`).map(escapeLabel);
  const space = TITLE_LINE * (lines.length + 1);
  return {
    data,
    layout: {...layout,
      height: (layout.height ?? DEFAULT_HEIGHT) + space,
      margin: { ...layout.margin, t: (layout.margin?.t ?? 0) + space },
      title: {
        text: lines.join("<br>"), font: { size: 12 }, x: 0, xref: "container", y: 1, yref: "container",
        yanchor: "top", pad: { t: TITLE_LINE, l: 10 },
      },
    },
  };
};

// `name` names the chart for its buttons; `label` returns what it displays, `file` its file name, `numbers` its data;
// `build` returns {data, layout} in the colors of a theme.
export class Chart {
  constructor(host, { name, label, file, build, numbers, isEager = false }) {
    Object.assign(this, { label, file, build, isVisible: isEager });
    this.plot = element("div", { class: "plot", role: "img" });
    this.fold = numbersFold(numbers, name);
    const buttons = figureButtons(name, (format) => this.download(format), file, numbers);
    host.append(this.plot, element("div", { class: "tools" }, ...buttons), this.fold.details);
    charts.push(this);
    if (!isEager) this.drawWhenVisible();
  }

  figure(theme, width) {
    const { data, layout } = this.build(theme);
    return { data, layout: { ...layout, width, template: plotlyTemplate(theme) } };
  }

  download(format) {
    const width = Math.max(MIN_WIDTH, this.plot.clientWidth);
    const { data, layout } = withTitle(this.figure(THEMES.light, width), this.label(), width);
    const size = { width, height: layout.height, scale: format === "png" ? 2 : 1 };
    Plotly.downloadImage({ data, layout: { ...layout, paper_bgcolor: "white" } }, { format, filename: this.file(), ...size });
  }

  draw() {
    this.plot.setAttribute("aria-label", this.label());
    this.fold.refresh();
    if (!this.isVisible) return;
    const { data, layout } = this.figure(THEMES[isDark() ? "dark" : "light"], this.plot.clientWidth || MIN_WIDTH);
    Plotly.react(this.plot, data, layout, CONFIG);
    document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true"); // where plotly measures text
    this.plot.dataset.drawn = "yes";
  }

  drawWhenVisible() {
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      this.isVisible = true;
      this.draw();
    }, { rootMargin: "400px" }).observe(this.plot);
  }
}

const redraw = () => charts.forEach((chart) => chart.draw());

export const setTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
  redraw();
};

export const followWindow = () => {
  let timer = null;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(redraw, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => {
    for (const chart of charts) chart.isVisible = true;
    redraw();
  });
};
