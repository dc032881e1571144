// Tokens shaded by the attention they receive, on the page and as images.

import { FONT, TITLE_LINE } from "./charts.js";
import { INK } from "./colors.js";
import { constants } from "./data.js";
import { element, figureButtons, formatNumber, measureContext, saveFile, savePng, wrapText } from "./dom.js";
import { numbersFold } from "./tables.js";

const TOKEN_FONT = '13px ui-monospace, "DejaVu Sans Mono", monospace';
const IMAGE_WIDTH = 760;
const LINE_HEIGHT = 24;
const PADDING = 10;

// The tokens of a view, with their shade (null for the last positions, which have few queries) and the trigger.
const shadedTokens = (view, alpha) => {
  const end = Math.max(0, Math.floor((view.tokenCount - constants.minQueries + 1) / view.bin));
  const isShaded = (bin) => bin < end && !Number.isNaN(alpha[bin]);
  const inTrigger = (bin) => view.span && bin * view.bin < view.span[1] && (bin + 1) * view.bin > view.span[0];
  return view.tokens.map((token, bin) => ({
    position: view.positionLabel(bin),
    token,
    text: token.replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅",
    alpha: bin < end ? alpha[bin] : NaN,
    shade: isShaded(bin) ? (0.85 * Math.sqrt(alpha[bin])).toFixed(3) : null,
    isTrigger: Boolean(inTrigger(bin)),
  }));
};

const strongestNote = (tokens) =>
  `strongest: α ${formatNumber(Math.max(0, ...tokens.map((token) => (token.shade === null ? 0 : token.alpha))))}`;

const svgNode = (tag, attributes, text = null) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  // XML has no control characters
  if (text !== null) node.textContent = text.toWellFormed().replace(/[\u0000-\u001f\ufffe\uffff]/g, "\ufffd");
  return node;
};

const titleNode = (line, index) => svgNode("text", {
  class: "title", x: PADDING, y: PADDING + 12 + TITLE_LINE * index, fill: INK.text, style: `font: 12px ${FONT}`,
}, line);

// The nodes of all tokens in lines below `top`, and where the last line ends.
const tokenNodes = (tokens, top) => {
  measureContext.font = TOKEN_FONT;
  const nodes = [];
  let [x, y] = [PADDING, top];
  for (const { text, shade, isTrigger } of tokens) {
    const node = svgNode("text", { fill: INK.text, style: `font: ${TOKEN_FONT}; white-space: pre` }, text);
    const { width } = measureContext.measureText(node.textContent);
    if (x + width > IMAGE_WIDTH - PADDING && x > PADDING) [x, y] = [PADDING, y + LINE_HEIGHT];
    if (shade !== null) {
      nodes.push(svgNode("rect", { x, y: y + 3, width, height: LINE_HEIGHT - 5, fill: `rgba(${INK.shade}, ${shade})` }));
    }
    if (isTrigger) nodes.push(svgNode("rect", { x, y: y + LINE_HEIGHT - 3, width, height: 2, fill: INK.mark }));
    node.setAttribute("x", x);
    node.setAttribute("y", y + 16);
    nodes.push(node);
    x += width;
  }
  return { nodes, bottom: y + LINE_HEIGHT };
};

const tokenSvg = (tokens, title = "") => {
  const titles = title ? wrapText(title, IMAGE_WIDTH - 2 * PADDING, `12px ${FONT}`) : [];
  const { nodes, bottom } = tokenNodes(tokens, PADDING + TITLE_LINE * titles.length);
  const [width, height] = [IMAGE_WIDTH, bottom + PADDING];
  const root = svgNode("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  root.append(svgNode("rect", { width, height, fill: "white" }), ...titles.map(titleNode), ...nodes);
  return { width, height, text: new XMLSerializer().serializeToString(root) };
};

const saveTokens = async (tokens, title, name, format) => {
  const { width, height, text } = tokenSvg(tokens, title);
  if (format === "svg") {
    saveFile(`${name}.svg`, "image/svg+xml", text);
    return;
  }
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(text)}`;
  await image.decode();
  savePng(name, image, width, height);
};

const tokenElement = (token, view) => {
  const position = `${view.bin === 1 ? "position" : "positions"} ${token.position}`;
  const title = `${position}, α ${formatNumber(token.alpha)}${token.isTrigger ? ", trigger" : ""}`;
  const node = element("span", { title, text: token.text, class: token.isTrigger ? "trigger" : null });
  if (token.shade !== null) node.style.backgroundColor = `rgba(var(--shade), ${token.shade})`;
  return node;
};

// Tokens shaded by the square root of the attention they receive, the trigger underlined, with the same as a table.
// `label` names the strip; `draw` takes the view, α by bin, a description (`title`) and a file name.
export const tokenStrip = (host, label) => {
  let current = { tokens: [], title: "", name: "tokens" };
  const text = element("div", { class: "text", tabindex: 0, role: "group" });
  const note = element("small");
  const numbers = () => ({
    columns: ["position", "token", "alpha", "trigger"],
    rows: current.tokens.map((token) => [token.position, token.token, token.alpha, token.isTrigger ? "yes" : ""]),
  });
  const fold = numbersFold(numbers, label);
  const download = (format) =>
    saveTokens(current.tokens, `${current.title}; ${strongestNote(current.tokens)}`, current.name, format);
  const buttons = figureButtons(label, download, () => current.name, numbers);
  host.append(text, element("div", { class: "tools" }, ...buttons, note, fold.details));
  return {
    hide() { host.hidden = true; },
    draw(view, alpha, title, name) {
      current = { tokens: shadedTokens(view, alpha), title, name };
      host.hidden = !current.tokens.length;
      text.setAttribute("aria-label", title);
      text.replaceChildren(...current.tokens.map((token) => tokenElement(token, view)));
      note.textContent = strongestNote(current.tokens);
      fold.refresh();
    },
  };
};
