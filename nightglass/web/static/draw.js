// Drawing of panels on canvases: histogram, map, series. Plain functions of a panel; nothing is fetched here.

const VIRIDIS = [
  [68, 1, 84], [72, 33, 115], [67, 62, 133], [56, 88, 140], [45, 112, 142], [37, 133, 142], [30, 155, 138],
  [42, 176, 127], [81, 197, 106], [134, 213, 73], [194, 223, 35], [253, 231, 37],
];
const CURVES = ["#6fb7ff", "#ffb454", "#57d19a", "#ff7eb6", "#b69cff", "#5fd3e0", "#e6d35a", "#ff8a65"];

export const PALETTE = new Uint8ClampedArray(256 * 3);
for (let step = 0; step < 256; step++) {
  const place = (step / 255) * (VIRIDIS.length - 1), low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  for (let part = 0; part < 3; part++) {
    PALETTE[3 * step + part] = VIRIDIS[low][part] + (VIRIDIS[low + 1][part] - VIRIDIS[low][part]) * (place - low);
  }
}

export function short(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en").replaceAll(",", "\u202f");
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2).replace("e+", "e");
  return Number(value.toPrecision(4)).toString();
}

// Return round numbers within a range, and as many decimals as they need.
export function ticks(low, high, about) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const rough = span / Math.max(1, about), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? 10 * power;
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) found.push(index * step);
  return found;
}

function tickText(value, all) {
  const step = all.length > 1 ? all[1] - all[0] : Math.abs(value) || 1;
  const largest = Math.max(...all.map(Math.abs));
  if (largest >= 1e5 || (largest > 0 && largest < 1e-2 && step < 1e-3) || step < 1e-5) {
    if (value === 0) return "0";
    const digits = Math.max(0, Math.floor(Math.log10(Math.abs(value))) - Math.floor(Math.log10(step) + 1e-9));
    return value.toExponential(Math.min(4, digits)).replace("e+", "e");
  }
  return value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
}

function colours(canvas) {
  const style = getComputedStyle(canvas);
  const take = (name) => style.getPropertyValue(name).trim();
  return { text: take("--text"), dim: take("--dim"), faint: take("--faint"), accent: take("--accent"),
    fill: take("--fill"), edge: take("--edge") };
}

// Make the canvas as large as its place, in device pixels, and return what is needed to draw on it.
function open(canvas, right = 14) {
  const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
  if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
    canvas.width = Math.round(wide * ratio);
    canvas.height = Math.round(high * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, high);
  pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  return { pen, ink: colours(canvas), left: 66, top: 10, right: wide - right, bottom: high - 40 };
}

function axes(frame, view, panel, { log = false, grid = true } = {}) {
  const { pen, ink, left, right, top, bottom } = frame;
  const toX = (x) => left + ((x - view.x0) / (view.x1 - view.x0)) * (right - left);
  const toY = (y) => bottom - ((y - view.y0) / (view.y1 - view.y0)) * (bottom - top);
  pen.strokeStyle = ink.faint; pen.fillStyle = ink.dim; pen.lineWidth = 1;
  const across = ticks(view.x0, view.x1, (right - left) / 50);
  pen.textAlign = "center"; pen.textBaseline = "top";
  for (const x of across) {
    if (grid) line(pen, toX(x), top, toX(x), bottom);
    pen.fillText(tickText(x, across), toX(x), bottom + 6);
  }
  pen.textAlign = "right"; pen.textBaseline = "middle";
  const up = log ? decades(view.y0, view.y1) : ticks(view.y0, view.y1, (bottom - top) / 42);
  for (const y of up) {
    if (grid) line(pen, left, toY(y), right, toY(y));
    pen.fillText(log ? tickText(10 ** y, [10 ** y]) : tickText(y, up), left - 7, toY(y));
  }
  pen.strokeStyle = ink.edge;
  pen.strokeRect(left + 0.5, top + 0.5, right - left - 1, bottom - top - 1);
  pen.fillStyle = ink.text;
  pen.textAlign = "center"; pen.textBaseline = "bottom";
  pen.fillText(panel.x_label, (left + right) / 2, bottom + 36);
  pen.save();
  pen.translate(10, (top + bottom) / 2);
  pen.rotate(-Math.PI / 2);
  pen.textBaseline = "middle";
  pen.fillText(panel.y_label, 0, 0);
  pen.restore();
  return { toX, toY };
}

function decades(low, high) {
  const found = [];
  for (let power = Math.ceil(low); power <= high + 1e-9; power++) found.push(power);
  return found;
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(Math.round(x0) + 0.5, Math.round(y0) + 0.5);
  pen.lineTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
  pen.stroke();
}

export function drawHistogram(canvas, panel, { log = false, pointer = null } = {}) {
  const frame = open(canvas), { pen, ink } = frame;
  const scale = (value) => (log ? Math.log10(Math.max(value, 0.5)) : value);
  const top = Math.max(1, ...panel.contents.map((value, index) => value + panel.errors[index]));
  const view = { x0: panel.edges[0], x1: panel.edges.at(-1), y0: log ? Math.log10(0.5) : 0 };
  view.y1 = log ? scale(top) + 0.15 : top * 1.06;
  const { toX, toY } = axes(frame, view, panel, { log });
  pen.beginPath();
  pen.moveTo(toX(view.x0), frame.bottom);
  panel.contents.forEach((value, index) => {
    pen.lineTo(toX(panel.edges[index]), toY(scale(value)));
    pen.lineTo(toX(panel.edges[index + 1]), toY(scale(value)));
  });
  pen.lineTo(toX(view.x1), frame.bottom);
  pen.fillStyle = ink.fill; pen.fill();
  pen.strokeStyle = ink.accent; pen.lineWidth = 1.3; pen.stroke();
  pen.globalAlpha = 0.6; pen.lineWidth = 1;
  pen.beginPath();
  panel.contents.forEach((value, index) => {
    if (!value) return;
    const x = (toX(panel.edges[index]) + toX(panel.edges[index + 1])) / 2;
    pen.moveTo(x, toY(scale(value - panel.errors[index])));
    pen.lineTo(x, toY(scale(value + panel.errors[index])));
  });
  pen.stroke();
  pen.globalAlpha = 1;
  if (!pointer || pointer.x < frame.left || pointer.x > frame.right) return "";
  const at = view.x0 + ((pointer.x - frame.left) / (frame.right - frame.left)) * (view.x1 - view.x0);
  const cell = panel.edges.findIndex((edge) => edge > at) - 1;
  if (cell < 0) return "";
  const [low, high] = [panel.edges[cell], panel.edges[cell + 1]];
  return `${short(low)} to ${short(high)}: ${short(panel.contents[cell])} ± ${short(panel.errors[cell])}`;
}

export function pixelsOf(panel) {
  const text = atob(panel.data), [rows, columns] = panel.shape, values = new Float64Array(rows * columns);
  for (let index = 0; index < values.length; index++) {
    const code = text.charCodeAt(2 * index) + 256 * text.charCodeAt(2 * index + 1);
    values[index] = code === 65535 ? NaN : panel.low + (panel.high - panel.low) * (code / 65534);
  }
  return values;
}

export function drawMap(canvas, panel, { log = false, pointer = null } = {}) {
  const frame = open(canvas, 86), { pen, ink } = frame;
  const [rows, columns] = panel.shape, [x0, x1, y0, y1] = panel.extent;
  const values = pixelsOf(panel);
  let [low, high] = panel.shown.every(Number.isFinite) ? panel.shown : [panel.low, panel.high];
  if (!(high > low)) high = low + 1;
  const counts = low >= 0;
  const stretch = log && counts ? (v) => Math.log1p(((v - low) / (high - low)) * 999) / Math.log(1000)
    : log ? (v) => Math.asinh(((v - low) / (high - low)) * 10) / Math.asinh(10) : (v) => (v - low) / (high - low);
  if (rows > 64 || columns > 64) square(frame, (x1 - x0) / (y1 - y0));
  const { toX, toY } = axes(frame, { x0, x1, y0, y1 }, panel, { grid: false });
  const image = new ImageData(columns, rows);
  for (let index = 0; index < values.length; index++) {
    if (Number.isNaN(values[index])) continue;
    const row = rows - 1 - Math.floor(index / columns), place = 4 * (row * columns + (index % columns));
    const step = 3 * Math.round(255 * Math.min(1, Math.max(0, stretch(values[index]))));
    image.data.set([PALETTE[step], PALETTE[step + 1], PALETTE[step + 2], 255], place);
  }
  const sheet = new OffscreenCanvas(columns, rows);
  sheet.getContext("2d").putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(sheet, frame.left + 1, frame.top + 1, frame.right - frame.left - 2, frame.bottom - frame.top - 2);
  colourBar(frame, panel, low, high, stretch);
  if (!pointer) return "";
  const column = Math.floor(((pointer.x - frame.left) / (frame.right - frame.left)) * columns);
  const row = Math.floor(((frame.bottom - pointer.y) / (frame.bottom - frame.top)) * rows);
  if (column < 0 || row < 0 || column >= columns || row >= rows) return "";
  const x = x0 + ((column + 0.5) / columns) * (x1 - x0), y = y0 + ((row + 0.5) / rows) * (y1 - y0);
  pen.strokeStyle = ink.text;
  pen.strokeRect(toX(x0 + (column / columns) * (x1 - x0)), toY(y0 + ((row + 1) / rows) * (y1 - y0)),
    (frame.right - frame.left) / columns, (frame.bottom - frame.top) / rows);
  const value = values[row * columns + column];
  return `${panel.x_label} ${short(x)}, ${panel.y_label} ${short(y)}: ${Number.isNaN(value) ? "blank" : short(Number(value.toPrecision(4)))}`;
}

// Make the frame as broad for its height as the image is.
function square(frame, ratio) {
  const wide = frame.right - frame.left, high = frame.bottom - frame.top;
  if (wide > high * ratio) {
    const spare = (wide - high * ratio) / 2;
    frame.left += spare; frame.right -= spare;
  } else {
    frame.bottom = frame.top + wide / ratio;
  }
}

function colourBar(frame, panel, low, high, stretch) {
  const { pen, ink, top, bottom } = frame, left = frame.right + 12, wide = 12, tall = bottom - top;
  for (let y = 0; y < tall; y++) {
    const step = 3 * Math.round(255 * (1 - y / tall));
    pen.fillStyle = `rgb(${PALETTE[step]},${PALETTE[step + 1]},${PALETTE[step + 2]})`;
    pen.fillRect(left, top + y, wide, 1.5);
  }
  pen.strokeStyle = ink.edge; pen.strokeRect(left + 0.5, top + 0.5, wide - 1, tall - 1);
  pen.fillStyle = ink.dim; pen.textAlign = "left"; pen.textBaseline = "middle";
  const marks = ticks(low, high, tall / 50);
  let last = Infinity;
  for (const value of marks) {
    const y = bottom - stretch(value) * tall;
    if (last - y < 12) continue;
    pen.fillText(tickText(value, marks), left + wide + 5, y);
    last = y;
  }
  pen.save();
  pen.translate(left + 66, (top + bottom) / 2); pen.rotate(-Math.PI / 2);
  pen.fillStyle = ink.text; pen.textAlign = "center";
  pen.fillText(panel.value_label, 0, 0);
  pen.restore();
}

export function drawSeries(canvas, panel) {
  const frame = open(canvas), { pen, ink } = frame;
  const xs = panel.series.flatMap((curve) => curve.x).filter(Number.isFinite);
  const ys = panel.series.flatMap((curve) => curve.y).filter(Number.isFinite);
  const view = { x0: Math.min(...xs, 0), x1: Math.max(...xs, 0), y0: Math.min(...ys, 0), y1: Math.max(...ys) };
  if (!ys.length) view.y1 = 1;
  // noise hardly changes: an axis from nothing would show a straight line
  const lowest = Math.min(...ys);
  if (ys.length && lowest > 0.5 * view.y1) view.y0 = lowest - 0.3 * (view.y1 - lowest || lowest || 1);
  view.y1 += 0.08 * (view.y1 - view.y0) || 1;
  if (!(view.x1 > view.x0)) view.x0 = view.x1 - 60;
  const { toX, toY } = axes(frame, view, panel);
  pen.save();
  pen.beginPath(); pen.rect(frame.left, frame.top, frame.right - frame.left, frame.bottom - frame.top); pen.clip();
  panel.series.forEach((curve, number) => {
    pen.strokeStyle = CURVES[number % CURVES.length]; pen.fillStyle = pen.strokeStyle; pen.lineWidth = 1.5;
    pen.beginPath();
    let drawing = false;
    curve.x.forEach((x, index) => {
      const y = curve.y[index];
      if (!Number.isFinite(x) || !Number.isFinite(y)) { drawing = false; return; }
      if (drawing) pen.lineTo(toX(x), toY(y)); else pen.moveTo(toX(x), toY(y));
      drawing = true;
    });
    pen.stroke();
    if (curve.x.length < 60) curve.x.forEach((x, index) => {
      if (!Number.isFinite(curve.y[index])) return;
      pen.beginPath(); pen.arc(toX(x), toY(curve.y[index]), 2, 0, 7); pen.fill();
    });
  });
  pen.restore();
  if (panel.series.length > 1) legend(frame, panel.series);
  return "";
}

function legend(frame, series) {
  const { pen, ink } = frame;
  const wide = Math.max(...series.map((curve) => pen.measureText(curve.name).width)) + 26;
  pen.globalAlpha = 0.8; pen.fillStyle = ink.faint;
  pen.fillRect(frame.left + 8, frame.top + 8, wide, 15 * series.length + 6);
  pen.globalAlpha = 1; pen.textAlign = "left"; pen.textBaseline = "middle";
  series.forEach((curve, number) => {
    const y = frame.top + 19 + 15 * number;
    pen.fillStyle = CURVES[number % CURVES.length]; pen.fillRect(frame.left + 13, y - 2, 10, 3);
    pen.fillStyle = ink.text; pen.fillText(curve.name, frame.left + 28, y);
  });
}
