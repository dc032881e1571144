"use strict";
// Tokens shaded by the attention they receive, on the page and as pictures.

const INK = { shade: "76, 155, 232", text: "#1b1b1b", mark: "#b54708" }; // as on the light page
const LETTERS = '13px ui-monospace, "DejaVu Sans Mono", monospace';
const [WIDE, LINE, EDGE] = [760, 24, 10];

// How many bins of the shown passage are seen by enough queries to be shaded.
const shadedBins = (view) => Math.max(0, Math.floor((view.text - report.constants.queries + 1) / view.bin));

// Tokens as they are shown, each with how strong its shade is (null: not shaded) and whether the trigger covers it.
const stripTokens = (view, alpha) => {
  const last = shadedBins(view);
  const shades = view.tokens.map((_, bin) => (bin < last ? alpha[bin] : NaN));
  const most = Math.max(...shades.filter((value) => !Number.isNaN(value)), 1e-9);
  return view.tokens.map((token, bin) => ({
    place: view.place(bin),
    token,
    words: token.replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅",
    alpha: shades[bin],
    shade: Number.isNaN(shades[bin]) ? null : (0.85 * Math.sqrt(Math.min(1, shades[bin] / most))).toFixed(3),
    trigger: Boolean(view.span && bin * view.bin < view.span[1] && (bin + 1) * view.bin > view.span[0]),
  }));
};

const strongest = (tokens) => `strongest: α ${shown(Math.max(0, ...tokens.map((each) => (each.shade === null ? 0 : each.alpha))))}`;

const svgNode = (tag, attributes, text = null) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text.toWellFormed().replace(/[\u0000-\u001f\ufffe\uffff]/g, "\ufffd"); // what XML has no place for
  return node;
};

// The strip as an SVG document, in lines of a page's width below a title.
const stripSvg = (tokens, title = "") => {
  const heading = `12px ${FONT}`;
  const titles = title ? wrapped(title, WIDE - 2 * EDGE, heading) : [];
  const placed = (i) => ({ class: "title", x: EDGE, y: EDGE + 12 + TITLE * i, fill: INK.text, style: `font: ${heading}` });
  const nodes = titles.map((line, i) => svgNode("text", placed(i), line));
  pen.font = LETTERS;
  let [x, y] = [EDGE, EDGE + TITLE * titles.length];
  for (const { words, shade, trigger } of tokens) {
    const text = svgNode("text", { fill: INK.text, style: `font: ${LETTERS}; white-space: pre` }, words);
    const width = pen.measureText(text.textContent).width;
    if (x + width > WIDE - EDGE && x > EDGE) [x, y] = [EDGE, y + LINE];
    if (shade !== null) nodes.push(svgNode("rect", { x, y: y + 3, width, height: LINE - 5, fill: `rgba(${INK.shade}, ${shade})` }));
    if (trigger) nodes.push(svgNode("rect", { x, y: y + LINE - 3, width, height: 2, fill: INK.mark }));
    text.setAttribute("x", x);
    text.setAttribute("y", y + 16);
    nodes.push(text);
    x += width;
  }
  const [width, height] = [WIDE, y + LINE + EDGE];
  const root = svgNode("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  root.append(svgNode("rect", { width, height, fill: "white" }), ...nodes);
  return { width, height, text: new XMLSerializer().serializeToString(root) };
};

const stripPicture = async (tokens, title, name, format) => {
  const { width, height, text } = stripSvg(tokens, title);
  if (format === "svg") { save(`${name}.svg`, "image/svg+xml", text); return; }
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
  canvas.toBlob((blob) => save(`${name}.png`, "image/png", blob));
};

// Tokens of a view, shaded by the square root of the attention they receive; those of the trigger are underlined. The same as a table below.
// `label` is what stays the same of what they show; `draw` takes the rest: which view, α, what it is in words (`title`), what its files are called.
const strip = (host, label) => {
  let now = { tokens: [], title: "", name: "tokens" };
  const text = el("div", { class: "text", tabindex: 0, role: "group" });
  const most = el("small");
  const numbers = () => ({
    columns: ["position", "token", "alpha", "trigger"],
    rows: now.tokens.map((each) => [each.place, each.token, each.alpha, each.trigger ? "yes" : ""]),
  });
  const { details, refresh } = folded(numbers, label);
  const take = (format) => stripPicture(now.tokens, `${now.title}; ${strongest(now.tokens)}`, now.name, format);
  const tools = el("div", { class: "tools" }, ...pictureButtons(label, take), csvButton(() => now.name, label, numbers), most, details);
  host.append(text, tools);
  const hide = () => { host.hidden = true; };
  const draw = (view, alpha, title, name) => {
    now = { tokens: stripTokens(view, alpha), title, name };
    host.hidden = !now.tokens.length;
    text.setAttribute("aria-label", title);
    text.replaceChildren(...now.tokens.map((each) => {
      const place = `${view.bin === 1 ? "position" : "positions"} ${each.place}`;
      const node = el("span", { title: `${place}, α ${shown(each.alpha)}${each.trigger ? ", trigger" : ""}` });
      node.textContent = each.words;
      if (each.shade !== null) node.style.backgroundColor = `rgba(var(--shade), ${each.shade})`;
      if (each.trigger) node.classList.add("trigger");
      return node;
    }));
    most.textContent = strongest(now.tokens);
    refresh();
  };
  return { draw, hide };
};
