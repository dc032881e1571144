"use strict";
// Tables: sorted by a click on a column's name, filtered by what is typed, whole as CSV.

const STEP = 100;
const VERDICTS = { reproduced: "reproduced", "not reproduced": "refuted", inconclusive: "open" };

const cellOf = (value) => {
  const cell = el("td", { class: typeof value === "number" ? "number" : null });
  cell.textContent = shown(value);
  if (Object.hasOwn(VERDICTS, value)) cell.classList.add(VERDICTS[value]);
  return cell;
};

const plainTable = ({ columns, rows }, title) => {
  const head = el("tr", {}, ...columns.map((column) => { const cell = el("th", { scope: "col" }); cell.textContent = column; return cell; }));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title },
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cellOf))))));
};

// A fold that is filled with a table when it is opened, and by `refresh` while it is open.
const folded = (numbers, title) => {
  const details = el("details", {}, el("summary", {}, "numbers"));
  const refresh = () => { if (details.open) { details.firstChild.nextSibling?.remove(); details.append(plainTable(numbers(), `numbers of ${title}`)); } };
  details.addEventListener("toggle", refresh);
  return { details, refresh };
};

// What is missing stands last, whichever way is up.
const compareCells = (a, b, up) => {
  const [empty, other] = [a, b].map((value) => value === null || value === undefined || Number.isNaN(value));
  if (empty || other) return Number(empty) - Number(other);
  return (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true })) * (up ? 1 : -1);
};

// `open`, if given, is called with a row when its button is pressed.
const table = (host, { name, title, note, columns, rows, open = null }) => {
  const state = { column: null, up: true, limit: STEP };
  const search = el("input", { type: "search", placeholder: "filter", "aria-label": `filter ${title}` });
  const counts = el("span", { class: "note", "aria-live": "polite" });
  const body = el("tbody");
  const more = el("button", { type: "button", onclick: () => { state.limit = state.limit === STEP ? Infinity : STEP; fill(); } });
  const heads = columns.map((column, index) => {
    const sort = () => { Object.assign(state, { column: index, up: state.column === index ? !state.up : true }); fill(); };
    const button = el("button", { type: "button", onclick: sort });
    button.textContent = column;
    return el("th", { scope: "col", class: rows.some((row) => typeof row[index] === "number") ? "number" : null }, button);
  });
  const kept = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row) => {
      const text = row.map((value) => (value === null ? "" : String(value).toLowerCase())).join(" ");
      return words.every((word) => text.includes(word));
    });
    if (state.column !== null) found.sort((a, b) => compareCells(a[state.column], b[state.column], state.up));
    return found;
  };
  const fill = () => {
    const found = kept();
    heads.forEach((head, index) => head.setAttribute("aria-sort", index !== state.column ? "none" : state.up ? "ascending" : "descending"));
    body.replaceChildren(...found.slice(0, state.limit).map((row) => {
      const label = `open ${row.filter((value) => value !== null).join(" ")}`;
      const button = open && el("button", { type: "button", "aria-label": label, onclick: () => open(row) }, "open");
      return el("tr", {}, button && el("td", {}, button), ...row.map(cellOf));
    }));
    more.hidden = found.length <= STEP;
    more.textContent = state.limit === STEP ? "show all" : `show ${STEP}`;
    counts.textContent = `${Math.min(found.length, state.limit)} of ${rows.length} rows`;
  };
  search.addEventListener("input", fill);
  const heading = el("h3");
  heading.textContent = title;
  const about = note ? el("p", { class: "note" }) : null;
  if (about) about.textContent = note;
  const corner = open ? el("th", { scope: "col" }, "") : null;
  host.append(heading, ...(about ? [about] : []),
    el("div", { class: "tools" }, search,
      csvButton(() => name, title, () => ({ columns, rows: kept() })), more, counts),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title, "data-table": name },
      el("table", {}, el("thead", {}, el("tr", {}, corner, ...heads)), body)));
  fill();
};
