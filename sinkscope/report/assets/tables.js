// Tables: sorted by a click on a column name, filtered by a search, downloaded as CSV.

import { csvButton, element, formatNumber, isMissing } from "./dom.js";

const MAX_ROWS = 100;
const VERDICT_CLASSES = { reproduced: "reproduced", "not reproduced": "refuted", inconclusive: "open" };

const tableCell = (value) => {
  const cell = element("td", { class: typeof value === "number" ? "number" : null, text: formatNumber(value) });
  if (Object.hasOwn(VERDICT_CLASSES, value)) cell.classList.add(VERDICT_CLASSES[value]);
  return cell;
};

const scrollRegion = (title, table, name = null) =>
  element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title, "data-table": name }, table);

export const plainTable = ({ columns, rows }, title) => {
  const head = element("tr", {}, ...columns.map((text) => element("th", { scope: "col", text })));
  const body = element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(tableCell))));
  return scrollRegion(title, element("table", {}, element("thead", {}, head), body));
};

// A fold that is filled with a table when it is opened, and by `refresh` while it is open.
export const numbersFold = (numbers, title) => {
  const details = element("details", {}, element("summary", { text: "numbers" }));
  const refresh = () => {
    if (!details.open) return;
    details.firstChild.nextSibling?.remove();
    details.append(plainTable(numbers(), `numbers of ${title}`));
  };
  details.addEventListener("toggle", refresh);
  return { details, refresh };
};

// Missing values come last in both directions.
const compareCells = (a, b, isAscending) => {
  if (isMissing(a) || isMissing(b)) return Number(isMissing(a)) - Number(isMissing(b));
  const areNumbers = typeof a === "number" && typeof b === "number";
  const order = areNumbers ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  return isAscending ? order : -order;
};

const matches = (row, words) => {
  const text = row.map((value) => (value === null ? "" : String(value).toLowerCase())).join(" ");
  return words.every((word) => text.includes(word));
};

// `onOpen`, if given, is called with a row when its button is pressed.
export class DataTable {
  constructor(host, { name, title, note, columns, rows, onOpen = null }) {
    Object.assign(this, { rows, onOpen, column: null, isAscending: true, limit: MAX_ROWS });
    this.search = element("input", {
      type: "search", placeholder: "filter", "aria-label": `filter ${title}`, oninput: () => this.fill(),
    });
    this.count = element("span", { class: "note", "aria-live": "polite" });
    this.more = element("button", { type: "button", onclick: () => this.toggleLimit() });
    this.body = element("tbody");
    this.heads = columns.map((text, index) => this.headCell(text, index));
    const corner = onOpen ? element("th", { scope: "col" }) : null;
    const csv = csvButton(() => name, title, () => ({ columns, rows: this.selectedRows() }));
    host.append(
      element("h3", { text: title }), ...(note ? [element("p", { class: "note", text: note })] : []),
      element("div", { class: "tools" }, this.search, csv, this.more, this.count),
      scrollRegion(
        title, element("table", {}, element("thead", {}, element("tr", {}, corner, ...this.heads)), this.body), name,
      ),
    );
    this.fill();
  }

  headCell(text, index) {
    const isNumber = this.rows.some((row) => typeof row[index] === "number");
    const button = element("button", { type: "button", text, onclick: () => this.sortBy(index) });
    return element("th", { scope: "col", class: isNumber ? "number" : null }, button);
  }

  sortBy(column) {
    this.isAscending = this.column === column ? !this.isAscending : true;
    this.column = column;
    this.fill();
  }

  toggleLimit() {
    this.limit = this.limit === MAX_ROWS ? Infinity : MAX_ROWS;
    this.fill();
  }

  selectedRows() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = this.rows.filter((row) => matches(row, words));
    if (this.column !== null) rows.sort((a, b) => compareCells(a[this.column], b[this.column], this.isAscending));
    return rows;
  }

  rowElement(row) {
    const label = `open ${row.filter((value) => value !== null).join(" ")}`;
    const attributes = { type: "button", "aria-label": label, onclick: () => this.onOpen(row), text: "open" };
    const button = this.onOpen && element("td", {}, element("button", attributes));
    return element("tr", {}, button, ...row.map(tableCell));
  }

  fill() {
    const rows = this.selectedRows();
    const direction = this.isAscending ? "ascending" : "descending";
    this.heads.forEach((head, index) => head.setAttribute("aria-sort", index === this.column ? direction : "none"));
    this.body.replaceChildren(...rows.slice(0, this.limit).map((row) => this.rowElement(row)));
    this.more.hidden = rows.length <= MAX_ROWS;
    this.more.textContent = this.limit === MAX_ROWS ? "show all" : `show ${MAX_ROWS}`;
    this.count.textContent = `${Math.min(rows.length, this.limit)} of ${this.rows.length} rows`;
  }
}
