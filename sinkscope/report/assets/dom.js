// Elements, text and downloads. Text of models and data is only ever set as `textContent`, never as markup.

export const element = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "text") node.textContent = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

// plotly interprets some tags in its labels
export const escapeLabel = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

export const measureContext = document.createElement("canvas").getContext("2d");

// Lines of text of at most `width` pixels; a longer word is split.
export const wrapText = (text, width, font) => {
  measureContext.font = font;
  const measure = (line) => measureContext.measureText(line).width;
  const lines = [];
  const words = text.split(" ").flatMap((word) => {
    const limit = Math.max(1, Math.floor((word.length * width) / Math.max(1, measure(word))));
    return word.length <= limit ? [word] : word.match(new RegExp(`.{1,${limit}}`, "gsu"));
  });
  for (const word of words) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && measure(longer) <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
};

// A file name without its extension: shortened parts, of paths the last component.
export const fileName = (...parts) => parts.filter(Boolean).map((part) => part.replace(/\S*\//g, "").slice(0, 60)).join("_")
    .replace(/[^\p{L}\p{N}.+-]+/gu, "_");

export const isMissing = (value) => value === null || value === undefined || Number.isNaN(value);

export const formatNumber = (value) => {
  if (isMissing(value)) return "–";
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  if (size < 0.001) return value.toExponential(1);
  return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3);
};

export const saveFile = (name, type, content) => {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

export const savePng = (name, image, width, height) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => saveFile(`${name}.png`, "image/png", blob));
};

const toCsv = ({ columns, rows }) => {
  const cell = (value) => {
    if (isMissing(value)) return "";
    // a spreadsheet would run text that begins with these characters as a formula
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return `${[columns, ...rows].map((row) => row.map(cell).join(",")).join("\n")}\n`;
};

const downloadButton = (title, format, download) => element("button", {
  type: "button", "data-format": format, "aria-label": `${title} as ${format.toUpperCase()}`,
  onclick: () => download(format), text: format.toUpperCase(),
});

// `file` returns the file name, without its extension, when the button is pressed.
export const csvButton = (file, title, numbers) =>
  downloadButton(title, "csv", () => saveFile(`${file()}.csv`, "text/csv", toCsv(numbers())));

// Of a figure: `download` takes svg or png.
export const figureButtons = (title, download, file, numbers) =>
  [...["svg", "png"].map((format) => downloadButton(title, format, download)), csvButton(file, title, numbers)];

export const setOptions = (select, options) => {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value, text })));
  return select;
};

export const labeled = (text, control, isWide = false) =>
  element("label", { class: isWide ? "wide" : null }, element("span", { text }), control);

export const announce = (text) => { document.getElementById("announcements").textContent = text; };
