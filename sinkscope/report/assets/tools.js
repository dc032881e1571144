"use strict";
// Elements, packed numbers, downloads. Text from models and data only ever becomes text: `textContent`, never markup.

const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

// plotly reads a few tags in its labels; this keeps text text
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// text in lines of a width in pixels
const pen = document.createElement("canvas").getContext("2d");
const wrapped = (text, width, font) => {
  pen.font = font;
  const lines = [];
  const words = text.split(" ").flatMap((word) => {
    const most = Math.max(1, Math.floor((word.length * width) / Math.max(1, pen.measureText(word).width)));
    return word.length <= most ? [word] : word.match(new RegExp(`.{1,${most}}`, "gsu"));
  });
  for (const word of words) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && pen.measureText(longer).width <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
};

// words as the name of a file without its ending, none of them long; of paths the last part
const fileName = (...words) => words.filter(Boolean).map((word) => word.replace(/\S*\//g, "").slice(0, 60)).join("_").replace(/[^\p{L}\p{N}.+-]+/gu, "_");

const unpacked = new WeakMap();
// square roots as 16-bit shares of the largest, in base64, as numbers; 65535 is missing
const unpack = (packed) => {
  if (!unpacked.has(packed)) {
    const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const values = new Float64Array(bytes.length / 2);
    for (let i = 0; i < values.length; i += 1) {
      const share = view.getUint16(2 * i, true);
      values[i] = share === 65535 ? NaN : (share / 65534) ** 2 * packed.scale;
    }
    unpacked.set(packed, values);
  }
  return unpacked.get(packed);
};

const shown = (value) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size >= 10 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : size >= 0.001 || size === 0 ? value.toFixed(3) : value.toExponential(1);
};

const save = (name, type, content) => {
  const link = el("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

const csv = ({ columns, rows }) => {
  const cell = (value) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    // a spreadsheet takes text that begins so for a formula
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
};

const takeButton = (title, format, take) =>
  el("button", { type: "button", "data-format": format, "aria-label": `${title} as ${format.toUpperCase()}`, onclick: () => take(format) }, format.toUpperCase());

const pictureButtons = (title, take) => ["svg", "png"].map((format) => takeButton(title, format, take));

// `file` gives the name of the file without its ending when the button is pressed
const csvButton = (file, title, numbers) => takeButton(title, "csv", () => save(`${file()}.csv`, "text/csv", csv(numbers())));

const options = (select, labels) => {
  select.replaceChildren(...labels.map(([value, label]) => {
    const option = el("option", { value });
    option.textContent = label;
    return option;
  }));
  return select;
};

const labelled = (text, control, wide = false) => el("label", { class: wide ? "wide" : null }, el("span", {}, text), control);

const say = (text) => { document.getElementById("spoken").textContent = text; };
