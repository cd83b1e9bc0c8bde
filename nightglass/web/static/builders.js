// The page of the image builders: what the chosen one collects, live by its events. It changes nothing.

import { short } from "./draw.js";
import { find, make, table, word } from "./elements.js";

const FRAMES = 12, EXPOSURES = 8, PICTURES = 3, EVENTS = 14;
const GATHER_MS = 300, STATUS_MS = 2000, LIST_MS = 15000, PICTURE_MS = 2000;

let chosen = "", stream = null, builders = [], status = null, exposures = [], heard = [];
let frames = new Map(), changed = new Set(), pictures = [], pictureAt = 0, statusAt = 0, listAt = 0, wanted = 0, renewing = false;

function clock(seconds) { return seconds ? new Date(1000 * seconds).toISOString().slice(11, 19) : ""; }

function file(path) { return path ? path.split("/").at(-1) : ""; }

function gib(bytes) { return Number((bytes / 2 ** 30).toFixed(1)); }

function ranges(numbers) {
  const shown = [];
  for (const number of numbers) {
    const last = shown.at(-1);
    if (last && number === last[1] + 1) last[1] = number; else shown.push([number, number]);
  }
  const texts = shown.map(([low, high]) => (low === high ? `${low}` : `${low}–${high}`));
  return texts.length > 6 ? `${texts.slice(0, 3).join(", ")} … ${texts.slice(-2).join(", ")}` : texts.join(", ");
}

async function ask(path) {
  const reply = await fetch(path);
  if (!reply.ok) throw Object.assign(new Error(`${path}: ${reply.status}`), { status: reply.status });
  return reply.json();
}

function place(rest) { return `/v1/builders/${encodeURIComponent(chosen)}${rest}`; }

function key(expid, frame) { return `${expid}/${frame}`; }

// What is fetched: the status now and then, and of the frames shown those that an event told of.
async function renew() {
  if (renewing) { schedule(); return; }
  renewing = true;
  const asked = chosen, now = Date.now();
  try {
    if (changed.has("exposures") || now - listAt >= LIST_MS) {
      listAt = now;
      changed.delete("exposures");
      const list = await ask(place("/exposures"));
      if (asked !== chosen) return;
      exposures = list;
    } else if (changed.has("exposure") && exposures.length) {
      const one = await ask(place(`/exposures/${exposures.at(-1).expid}`));
      if (asked !== chosen) return;
      exposures = [...exposures.slice(0, -1), one];
    }
    changed.delete("exposure");
    if (now - statusAt >= STATUS_MS) {
      statusAt = now;
      const state = await ask(place("/status"));
      if (asked !== chosen) return;
      status = state;
    }
    const current = exposures.at(-1), kept = new Map();
    const names = current ? current.frames.slice(-FRAMES).map((frame) => key(current.expid, frame)) : [];
    await Promise.all(names.map(async (name) => {
      const [expid, frame] = name.split("/"), old = frames.get(name);
      if (old && !changed.has(name)) { kept.set(name, old); return; }
      changed.delete(name);
      try {
        kept.set(name, await ask(place(`/exposures/${expid}/frames/${frame}`)));
      } catch (error) {
        if (error.status !== 404) throw error;  // cleared just now
      }
    }));
    if (asked !== chosen) return;
    frames = new Map(names.filter((name) => kept.has(name)).map((name) => [name, kept.get(name)]));
    for (const name of [...changed]) if (name.includes("/") && !frames.has(name)) changed.delete(name);
    draw();
    find("light").className = "live";
    find("state").textContent = "live";
    document.body.dataset.number = Number(document.body.dataset.number ?? 0) + 1;
  } catch (error) {
    gone(error.message);
  } finally {
    renewing = false;
  }
}

function schedule() {
  if (!wanted) wanted = setTimeout(() => { wanted = 0; renew(); }, GATHER_MS);
}

function gone(reason) {
  listAt = 0;  // an exposure may have been cleared
  find("light").className = "gone";
  find("state").textContent = `no answer (${reason})`;
}

function draw() {
  const current = exposures.at(-1), disk = status[Object.keys(status).find((name) => name.endsWith("_DISKSPACE"))];
  find("message").textContent = current
    ? `exposure ${current.expid} of ${current.night} is ${current.state}, with ${current.frames.length} frame${current.frames.length === 1 ? "" : "s"}`
    : `${status.name} waits for its first exposure`;
  find("alarms").replaceChildren(...status.alarms.map((alarm) => make("p", null, `${clock(alarm.at)}  ${alarm.text}`)));
  const unsaved = status.spool.unsaved, waiting = Object.entries(status.waiting).filter(([, count]) => count);
  const shown = [
    ["state", status.state], ["exposures kept", status.spool.exposures], ["frames kept", status.spool.frames],
    ["not saved yet", unsaved, unsaved ? "loss some" : ""],
    ["of the spool is used", `${Math.round((100 * status.spool.bytes) / status.spool.max_bytes)} %`],
    ["GiB free", disk ? gib(disk.free) : null], ["waiting", waiting.map(([name, count]) => `${name} ${count}`).join(", ") || "none"],
  ];
  find("figures").replaceChildren(...shown.map(([label, value, kind = ""]) => {
    const box = make("div", null, "", `figure ${kind}`);
    make("b", box, short(value));
    make("span", box, label);
    return box;
  }));
  drawFrames(current);
  drawExposures();
  drawReady();
  drawPictures(current);
}

function seconds(frame, from, to) {
  const [begin, end] = [frame.times[from] ?? frame.times.first, frame.times[to]];
  return begin && end ? `${Math.max(end - begin, 0).toFixed(2)} s` : "";
}

function drawFrames(current) {
  const rows = [...frames.values()].reverse().map((frame) => [
    String(frame.frame), word(frame.state), `${frame.extensions.length} of ${Math.max(frame.expected.length, frame.extensions.length)}`,
    frame.missing.join(", "), seconds(frame, "assigned", "last"), seconds(frame, "built", "saved"), seconds(frame, "built", "sent"),
    frame.purged ? "pixels given back" : frame.notes.at(-1) ?? "", frame.files.map(file).join(", "),
  ]);
  find("frames-title").textContent = current ? `Frames of exposure ${current.expid}` : "Frames";
  const columns = ["frame", "state", "extensions", "missing", "collected in", "written in", "sent in", "note", "files"];
  find("frames").replaceChildren(table(columns, rows, "none yet"));
}

function drawExposures() {
  const rows = exposures.slice(-EXPOSURES).reverse().map((one) => [
    String(one.expid), one.night, word(one.state), one.frames.length, ranges(one.frames), one.frames.length - one.saved.length, file(one.archive),
  ]);
  find("exposures").replaceChildren(table(["exposure", "night", "state", "count", "frames", "not saved", "archive"], rows, "none yet"));
}

function drawReady() {
  const rows = ["exposure_ready", "image_ready", "archive_ready"].map((name) => {
    const value = status[name];
    const which = value.expid === undefined ? "" : value.frame === undefined ? `${value.expid}` : `${value.expid} / ${value.frame}`;
    return [name.replace("_ready", ""), which, file(value.path) || (value.mode ?? ""), clock(value.at)];
  });
  for (const [receiver, queue] of Object.entries(status.outputs?.sending ?? {})) {
    rows.push(["receiver", typeof queue === "object" ? Object.entries(queue).map(([name, value]) => `${name} ${value}`).join(", ") : String(queue), receiver, ""]);
  }
  find("ready").replaceChildren(table(["what", "exposure / frame", "", "at (UTC)"], rows, ""));
}

function drawEvents() {
  const rows = heard.map((one) => [
    clock(one.at), (one.what ?? one.key ?? one.name).replaceAll("_", " "), one.expid === undefined ? "" : one.frame === undefined ? `${one.expid}` : `${one.expid} / ${one.frame}`,
    one.text ?? one.error ?? file(one.path ?? ""),
  ]);
  find("events").replaceChildren(table(["at (UTC)", "what", "exposure / frame", ""], rows, "nothing since this page was opened"));
}

// The newest image is asked for now and then, however fast frames come; a picture that was drawn is kept while it is shown.
function drawPictures(current) {
  const newest = [...frames.values()].filter((frame) => frame.state !== "open" && frame.extensions.length && !frame.purged).at(-1);
  if (!newest || Date.now() - pictureAt < PICTURE_MS) return;
  const name = `${chosen}/${key(newest.expid, newest.frame)}/${newest.revision}`;
  if (pictures.some((picture) => picture.name === name)) return;
  pictureAt = Date.now();
  const box = make("figure", null), image = make("img", box);
  make("figcaption", box, `exposure ${newest.expid}, frame ${newest.frame}${newest.missing.length ? `, without ${newest.missing.join(", ")}` : ""}`);
  image.alt = `frame ${newest.frame} of exposure ${newest.expid}`;
  const show = () => {
    if (!name.startsWith(`${chosen}/`)) return;
    pictures = [{ name, box }, ...pictures].slice(0, PICTURES);
    find("pictures").replaceChildren(...pictures.map((picture) => picture.box));
  };
  image.addEventListener("load", show, { once: true });
  image.addEventListener("error", schedule, { once: true });
  image.src = place(`/exposures/${current.expid}/frames/${newest.frame}/picture`);
}

function listen(name) {
  const one = JSON.parse(name.data);
  heard = [{ ...one, name: name.type }, ...heard].slice(0, EVENTS);
  if (one.expid !== undefined && one.frame !== undefined) changed.add(key(one.expid, one.frame));
  if (one.expid !== undefined) changed.add(name.type === "frame" && one.expid === exposures.at(-1)?.expid ? "exposure" : "exposures");
  drawEvents();
  schedule();
}

function choose(name) {
  chosen = name;
  stream?.close();
  [status, exposures, heard, pictures, pictureAt, statusAt, listAt] = [null, [], [], [], 0, 0, 0];
  frames = new Map();
  changed = new Set(["exposures"]);
  find("pictures").replaceChildren(make("p", null, "no frame is built yet", "none"));
  drawEvents();
  drawTabs();
  stream = new EventSource(place("/events"));
  for (const kind of ["frame", "exposure", "archive", "status", "alarm"]) stream.addEventListener(kind, listen);
  // whatever was missed while it was away is asked for
  stream.addEventListener("open", () => { frames = new Map(); changed.add("exposures"); schedule(); });
  stream.addEventListener("error", () => gone("it is tried again"));
  renew();
}

function drawTabs() {
  find("tabs").replaceChildren(...builders.map((one) => {
    const tab = make("button", null, one.role && one.role !== one.name ? `${one.name} (${one.role})` : one.name, one.name === chosen ? "on" : "");
    tab.addEventListener("click", () => { location.hash = encodeURIComponent(one.name); });
    return tab;
  }));
}

function byAddress() {
  const named = decodeURIComponent(location.hash.slice(1));
  return builders.some((one) => one.name === named) ? named : builders[0].name;
}

async function begin() {
  try {
    ({ builders } = await ask("/v1/builders"));
  } catch (error) {
    gone(error.message);
    setTimeout(begin, STATUS_MS);
    return;
  }
  choose(byAddress());
  addEventListener("hashchange", () => choose(byAddress()));
  setInterval(() => {
    find("clock").textContent = `${new Date().toISOString().slice(0, 19).replace("T", " ")} UTC`;
    schedule();
  }, STATUS_MS);
}

begin();
