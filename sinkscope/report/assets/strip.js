"use strict";
// Tokens shaded by the attention they receive, on the page and as pictures.

const INK = { shade: "76, 155, 232", text: "#1b1b1b", mark: "#b54708" }; // as on the light page
const LETTERS = '13px ui-monospace, "DejaVu Sans Mono", monospace';
const [WIDE, LINE, EDGE] = [760, 24, 10];

// How many bins of the shown passage are seen by enough queries to be shaded.
const shadedBins = (view) => Math.max(0, Math.floor((view.text - 7) / view.bin));

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

const svgNode = (tag, attributes, text = null) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
};

// The strip as an SVG document, in lines of a page's width.
const stripSvg = (tokens) => {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = LETTERS;
  const nodes = [];
  let [x, y] = [EDGE, EDGE];
  for (const { words, shade, trigger } of tokens) {
    const text = words.toWellFormed().replace(/[\u0000-\u001f\ufffe\uffff]/g, "\ufffd"); // what XML has no place for
    const width = pen.measureText(text).width;
    if (x + width > WIDE - EDGE && x > EDGE) [x, y] = [EDGE, y + LINE];
    if (shade !== null) nodes.push(svgNode("rect", { x, y: y + 3, width, height: LINE - 5, fill: `rgba(${INK.shade}, ${shade})` }));
    if (trigger) nodes.push(svgNode("rect", { x, y: y + LINE - 3, width, height: 2, fill: INK.mark }));
    nodes.push(svgNode("text", { x, y: y + 16, fill: INK.text, style: `font: ${LETTERS}; white-space: pre` }, text));
    x += width;
  }
  const [width, height] = [WIDE, y + LINE + EDGE];
  const root = svgNode("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  root.append(svgNode("rect", { width, height, fill: "white" }), ...nodes);
  return { width, height, text: new XMLSerializer().serializeToString(root) };
};

const stripPicture = async (tokens, format) => {
  const { width, height, text } = stripSvg(tokens);
  if (format === "svg") { save("tokens.svg", "image/svg+xml", text); return; }
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
  canvas.toBlob((blob) => save("tokens.png", "image/png", blob));
};

// Tokens of a view, shaded by the square root of the attention they receive; those of the trigger are underlined. The same as a table below.
const strip = (host, view, alpha, label) => {
  const tokens = stripTokens(view, alpha);
  const text = el("div", { class: "text", tabindex: 0, role: "group", "aria-label": label });
  text.replaceChildren(...tokens.map((each) => {
    const node = el("span", { title: `${view.bin === 1 ? "position" : "positions"} ${each.place}, α ${shown(each.alpha)}${each.trigger ? ", trigger" : ""}` });
    node.textContent = each.words;
    if (each.shade !== null) node.style.backgroundColor = `rgba(var(--shade), ${each.shade})`;
    if (each.trigger) node.classList.add("trigger");
    return node;
  }));
  const numbers = () => ({ columns: ["position", "token", "alpha", "trigger"], rows: tokens.map((each) => [each.place, each.token, each.alpha, each.trigger ? "yes" : ""]) });
  const pictures = ["svg", "png"].map((format) =>
    el("button", { type: "button", "data-format": format, "aria-label": `${label} as ${format.toUpperCase()}`, onclick: () => stripPicture(tokens, format) }, format.toUpperCase()));
  host.replaceChildren(text, ...(tokens.length ? [el("div", { class: "tools" }, ...pictures, csvButton("tokens", label, numbers), el("small", {}, `darkest: α ${shown(Math.max(...tokens.map((each) => (each.shade === null ? 0 : each.alpha))))}`), folded(numbers).details)] : []));
};
