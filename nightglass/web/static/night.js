// The operator's page: the night as the ledger and the watches tell of it, and the monitors that run. It changes nothing.

import { short } from "./draw.js";
import { find, make, table, word } from "./elements.js";

const STATES = ["reduced", "running", "grouped", "complete", "seen", "waiting", "skipped", "rejected", "failed"];

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

// A reason without the directories of the paths in it: the example says which file it is.
function brief(reason) { return reason.replace(/(?<![\w:/])\/(?:[^\s/:]+\/)+/g, ""); }

function panel(title, wide = "") {
  const box = make("section", null, "", `panel ${wide}`);
  make("h2", box, title);
  return box;
}

function filled(box, columns, rows, none) {
  box.append(table(columns, rows, none));
  return box;
}

function link(text, address) {
  const made = make("a", null, text);
  made.href = address;
  return made;
}

function exposures(night) {
  const box = panel("Exposures", "wide"), bar = make("div", box, "", "bar"), legend = make("div", box, "", "legend");
  const present = STATES.filter((state) => night.counts[state]);
  for (const state of present) {
    make("i", bar, "", `ink s-${state}`).style.flexGrow = night.counts[state];
    const entry = make("span", legend, "", `s-${state}`);
    make("i", entry, "", "ink");
    entry.append(`${state} ${night.counts[state]}`);
  }
  if (!present.length) make("span", legend, "no exposure yet");
  return box;
}

function figures(night) {
  const shown = [
    ["reduced", night.counts.reduced ?? 0], ["exposures", night.total], ["median latency", span(night.latency_s.p50)],
    ["95 % within", span(night.latency_s.p95)], ["longest wait", span(night.lag)],
    ["GiB free", Number(night.disk.free_gib.toFixed(1))],
  ];
  return shown.map(([label, value]) => {
    const box = make("div", null, "", "figure");
    make("b", box, typeof value === "number" ? short(value) : value);
    make("span", box, label);
    return box;
  });
}

function monitors(list) {
  const rows = list.map((one) => [link(one.name, one.address), one.title ?? "", one.message ?? one.address]);
  return filled(panel("Live monitors", "wide"), ["monitor", "", "now"], rows, "none runs; start one by: nightglass monitor SOURCE");
}

function watches(night) {
  const rows = night.watches.map((watch) => [
    String(watch.pid), watch.phase, watch.cameras.join(", "), watch.queued, watch.running, watch.breaker.state ?? "",
  ]);
  return filled(panel("Watches"), ["process", "phase", "cameras", "queued", "running", "Prefect breaker"], rows, "no watch is alive");
}

function streams(night) {
  const rows = night.watches.flatMap((watch) => watch.streams ?? []).map((one) => [
    one.name, one.camera, one.messages, Number((one.bytes / 2 ** 20).toFixed(1)), one.files, Number(one.lag_s.toFixed(2)),
    one.waiting, one.lost, one.dropped, one.error || one.peers.map((peer) => `${peer.peer} ${peer.state}`).join(", "),
  ]);
  const columns = ["stream", "camera", "messages", "MiB", "files", "lag [s]", "waiting", "lost", "dropped", "peers"];
  return rows.length ? [filled(panel("Streams of the night", "wide"), columns, rows, "")] : [];
}

function imageBuilders(night) {
  const rows = (night.watches ?? []).flatMap((watch) => watch.builders ?? []).map((one) => [
    one.address ? link(one.name, one.address) : one.name, one.role, one.camera, one.last === null ? "" : String(one.last),
    one.exposures, one.frames, one.unsaved,
  ]);
  const columns = ["builder", "role", "camera", "last exposure", "exposures kept", "frames kept", "not saved yet"];
  return rows.length ? [filled(panel("Image builders", "wide"), columns, rows, "")] : [];
}

function stages(night) {
  const rows = night.stages.map((one) => [one.stage, one.camera, one.due.slice(0, 16).replace("T", " "), one.state, one.reason]);
  return filled(panel("Stages"), ["stage", "camera", "due (UTC)", "state", ""], rows, "no stage is planned");
}

function recent(night) {
  const rows = night.recent.map((one) => [
    one.exposure, one.kind, one.filter, span(one.latency_s), one.quality ? word(one.quality, "q") : "", span(one.age_s),
  ]);
  return filled(panel("Reduced last", "wide"), ["exposure", "kind", "filter", "latency", "quality", "ago"], rows, "nothing is reduced yet");
}

function errors(night) {
  const rows = night.errors.map((one) => [word(one.state, "s"), one.count, brief(one.reason), one.examples.map((path) => path.split("/").at(-1)).join(", ")]);
  return filled(panel("Problems", "wide"), ["state", "exposures", "reason", "for example"], rows, "none");
}

async function renew() {
  let good = false;
  try {
    const [night, list] = await Promise.all(["/v1/night", "/v1/monitors"].map(async (path) => {
      const reply = await fetch(path);
      if (!reply.ok) throw new Error(`${path}: ${reply.status}`);
      return reply.json();
    }));
    const shown = [monitors(list.monitors)];
    if (night.night) {
      find("title").textContent = `night ${night.night} · ${night.cameras.join(", ") || "no camera"}`;
      find("message").textContent = "";
      find("figures").replaceChildren(...figures(night));
      const alarms = night.watches.flatMap((watch) => watch.alarms.map((alarm) => `${alarm.subject ?? ""}: ${alarm.text ?? ""}`));
      find("alarms").replaceChildren(...alarms.map((text) => make("p", null, text)));
      shown.unshift(exposures(night));
      shown.push(...imageBuilders(night), ...streams(night), watches(night), stages(night), recent(night), errors(night));
      if (night.prefect_ui) {
        const box = panel("Prefect");
        box.append(link(night.prefect_ui, night.prefect_ui));
        shown.push(box);
      }
    } else {
      find("message").textContent = night.reason;
      shown.push(...imageBuilders(night));
    }
    find("panels").replaceChildren(...shown);
    document.body.dataset.number = Number(document.body.dataset.number ?? 0) + 1;
    good = true;
  } catch (error) {
    find("state").textContent = `no answer (${error.message})`;
  }
  find("light").className = good ? "live" : "gone";
  if (good) find("state").textContent = "live";
  find("clock").textContent = `${new Date().toISOString().slice(0, 19).replace("T", " ")} UTC`;
  setTimeout(renew, 2000);
}

renew();
