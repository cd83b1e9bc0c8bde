// What the pages are made of: elements, words of a state, tables. All text goes in as text.

import { short } from "./draw.js";

export const find = (id) => document.getElementById(id);

export function make(kind, parent, text = "", className = "") {
  const made = document.createElement(kind);
  if (text) made.textContent = text;
  if (className) made.className = className;
  parent?.append(made);
  return made;
}

export function word(text, kind = "s") { return make("span", null, text, `word ${kind}-${text}`); }

export function table(columns, rows, none) {
  if (!rows.length) return make("p", null, none, "none");
  const box = make("div", null, "", "scroll"), made = make("table", box), head = make("tr", make("thead", made));
  const numeric = columns.map((_, place) => typeof rows[0][place] === "number");
  columns.forEach((text, place) => make("th", head, text, numeric[place] ? "number" : ""));
  const body = make("tbody", made);
  for (const row of rows) {
    const line = make("tr", body);
    row.forEach((cell, place) => {
      const spot = make("td", line, "", numeric[place] ? "number" : "");
      if (cell instanceof Node) spot.append(cell); else spot.textContent = typeof cell === "number" ? short(cell) : cell;
    });
  }
  return box;
}
