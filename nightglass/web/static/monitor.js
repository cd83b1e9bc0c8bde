// The page of one monitor: pictures come as server-sent events, and are drawn when the browser has time for it.

import { drawHistogram, drawMap, drawSeries, short } from "./draw.js";
import { find, make } from "./elements.js";

const name = decodeURIComponent(location.pathname.split("/").at(-1));
const views = new Map();
let picture = null, arrived = 0, asked = false, connected = false;

function want() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; if (picture) show(); });
}

function show() {
  document.title = `${picture.title} – Nightglass`;
  find("title").textContent = picture.title;
  find("message").textContent = picture.message;
  figures();
  find("alarms").replaceChildren(...picture.alarms.map((text) => make("p", null, text)));
  const seen = new Set();
  for (const panel of picture.panels) {
    const key = `${panel.kind} ${panel.title}`;
    seen.add(key);
    let view = views.get(key);
    if (!view) views.set(key, (view = open(panel)));
    view.panel = panel;
    draw(view);
  }
  for (const [key, view] of views) if (!seen.has(key)) { view.box.remove(); views.delete(key); }
  const order = picture.panels.map((panel) => views.get(`${panel.kind} ${panel.title}`).box);
  order.forEach((box, place) => { if (find("panels").children[place] !== box) find("panels").insertBefore(box, find("panels").children[place] ?? null); });
  document.body.dataset.number = picture.number;
}

function figures() {
  const all = [
    ...Object.entries(picture.counters).map(([label, value]) => ["figure", label, value]),
    ...Object.entries(picture.rates).map(([label, value]) => ["figure rate", label, value === null ? null : Number(value.toPrecision(3))]),
    ...Object.entries(picture.losses).map(([label, value]) => [value ? "figure loss some" : "figure loss", label, value]),
  ];
  find("figures").replaceChildren(...all.map(([kind, label, value]) => {
    const box = make("div", null, "", kind);
    make("b", box, short(value));
    make("span", box, label);
    return box;
  }));
}

function open(panel) {
  const box = make("section", find("panels"), "", "panel");
  const head = make("h2", box);
  make("span", head, panel.title);
  const view = { box, panel, log: false, pointer: null };
  if (panel.kind === "table") {
    box.classList.add("table");
    if (panel.columns.length > 5) box.classList.add("wide");
    view.body = make("div", box, "", "scroll");
  } else {
    if (panel.kind === "map" && panel.shape[0] > 1.5 * panel.shape[1]) box.classList.add("tall");
    view.canvas = make("canvas", make("div", box, "", "plot"));
    view.canvas.setAttribute("role", "img");
    view.canvas.setAttribute("aria-label", `${panel.title}: ${panel.y_label} against ${panel.x_label}`);
    view.canvas.addEventListener("pointermove", (event) => { view.pointer = { x: event.offsetX, y: event.offsetY }; want(); });
    view.canvas.addEventListener("pointerleave", () => { view.pointer = null; want(); });
    new ResizeObserver(want).observe(view.canvas);
  }
  if (panel.kind === "histogram" || panel.kind === "map") {
    const button = make("button", head, "log");
    button.addEventListener("click", () => { view.log = button.classList.toggle("on"); want(); });
  }
  view.note = make("p", box, "", "note");
  return view;
}

function draw(view) {
  const { panel } = view;
  let hint = "";
  if (panel.kind === "histogram") hint = drawHistogram(view.canvas, panel, view);
  else if (panel.kind === "map") hint = drawMap(view.canvas, panel, view);
  else if (panel.kind === "series") hint = drawSeries(view.canvas, panel);
  else fillTable(view.body, panel);
  view.note.textContent = hint || panel.note;
}

function fillTable(body, panel) {
  if (!panel.rows.length) { body.replaceChildren(make("p", null, "nothing yet", "none")); return; }
  const table = make("table", null), numeric = panel.columns.map((_, place) => typeof panel.rows[0][place] !== "string");
  const head = make("tr", make("thead", table));
  panel.columns.forEach((text, place) => make("th", head, text, numeric[place] ? "number" : ""));
  const rows = make("tbody", table);
  for (const row of panel.rows) {
    const line = make("tr", rows);
    row.forEach((cell, place) => make("td", line, typeof cell === "string" ? cell : short(cell), numeric[place] ? "number" : ""));
  }
  body.replaceChildren(table);
}

function lamp() {
  const age = (Date.now() - arrived) / 1000, light = find("light");
  light.className = !connected ? "gone" : age > 5 ? "stale" : "live";
  find("state").textContent = !connected ? "connection lost; trying again" : age > 5 ? `no picture for ${age.toFixed(0)} s` : "live";
  find("clock").textContent = `${new Date().toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

const events = new EventSource(`/v1/monitor/${encodeURIComponent(name)}/events`);
events.addEventListener("open", () => { connected = true; lamp(); });
events.addEventListener("error", () => { connected = false; lamp(); });
events.addEventListener("picture", (event) => { picture = JSON.parse(event.data); arrived = Date.now(); connected = true; lamp(); want(); });
find("reset").addEventListener("click", () => fetch(`/v1/monitor/${encodeURIComponent(name)}/reset`, { method: "POST", headers: { "X-Nightglass": "reset" } }));
matchMedia("(prefers-color-scheme: light)").addEventListener("change", want);
setInterval(lamp, 1000);
