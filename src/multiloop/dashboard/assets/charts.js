// The charts: the last minutes of the cluster's totals, one crosshair through all of them.

const CHARTS = [
  { title: "Requests/s", lines: [["rate", "a", asCount, ""], ["errors", "c", asCount, "5xx"]], area: true },
  { title: "Time to answer", lines: [["p50", "a", asTime, "p50"], ["p99", "b", asTime, "p99"]], lowest: 0.0001, least: 0.01 },
  { title: "Connections", lines: [["connections", "a", asCount, ""], ["active", "b", asCount, "being answered"]], area: true, least: 4 },
  { title: "Loop delay", lines: [["delay", "a", asTime, "worst worker"]], area: true, lowest: 0.001, least: 0.1 },
  { title: "Loops in use", lines: [["utilization", "a", asShare, "on average"]], area: true, most: 1 },
  { title: "Memory", lines: [["rss", "a", asBytes, ""]], area: true, least: 2 ** 26 },
  { title: "Processor", lines: [["cpu", "a", asCores, ""]], area: true, least: 0.2, withPools: true },
  { title: "Pools", lines: [["running", "a", asCount, "running"], ["queued", "b", asCount, "waiting"]], least: 4, withPools: true },
];
const SPANS_S = [120, 300, 900];
const HEIGHT = 70, TOP = 12, BOTTOM = 2;

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.at = make("span", { class: "at" });
    this.values = spec.lines.map((_, index) => make("span", { class: index ? "more" : "value" }));
    this.svg = make("svg", { role: "img", preserveAspectRatio: "none" });
    this.most = make("text", { class: "scale-text", x: 0, y: 8 });
    this.grid = make("path", { class: "grid" });
    this.area = make("path", { class: "area" });
    this.paths = spec.lines.map(([, tone]) => make("path", { class: tone }));
    this.cross = make("line", { class: "cross", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.svg.append(this.grid, this.area, ...this.paths.toReversed(), this.cross, this.most);
    this.left = make("span"), this.right = make("span", { text: "now" });
    this.element = make("article", { class: "chart" },
      make("h3", {}, make("span", { text: spec.title }), this.at),
      make("div", { class: "values" }, ...this.values), this.svg, make("div", { class: "ends", "aria-hidden": "true" }, this.left, this.right));
  }

  draw(history, from, to, width) {
    const { lines, area, least = 1, most, lowest } = this.spec;
    const columns = Math.max(40, Math.floor(width / 1.5));
    const points = lines.map(([name]) => thin(history.t, history[name], from, to, columns));
    const highest = most ?? Math.max(least, ...points.flat().map((point) => point?.[1] ?? 0));
    // Times span many powers of ten: with `lowest`, each power is as high as the others.
    const scale = most ?? (lowest ? 10 ** Math.ceil(Math.log10(highest) - 1e-9) : nice(highest, lines[0][2] === asBytes ? 2 : 10));
    const share = lowest ? (value) => Math.max(0, Math.log(value / lowest) / Math.log(scale / lowest)) : (value) => value / scale;
    const x = (time) => (time - from) / (to - from) * width;
    const y = (value) => HEIGHT - BOTTOM - Math.min(share(value), 1) * (HEIGHT - TOP - BOTTOM);
    const levels = lowest ? Array.from({ length: Math.round(Math.log10(scale / lowest)) + 1 }, (_, power) => lowest * 10 ** power) : [0, scale];
    setAttribute(this.grid, "d", levels.map((level) => `M0 ${Math.round(y(level)) + 0.5}H${width}`).join(""));
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    points.forEach((line, index) => setAttribute(this.paths[index], "d", pathOf(line, x, y)));
    setAttribute(this.area, "d", area ? areaOf(points[0], x, y, HEIGHT - BOTTOM) : "");
    setText(this.most, inWords(lines[0][2], scale));
    setText(this.left, `${Math.round((to - from) / 60)} min ago`);
    this.place = (time) => x(time);
    this.label(points);
  }

  label(points) {
    const [, , format] = this.spec.lines[0];
    const seen = points[0].filter(Boolean).map((point) => point[1]);
    const range = seen.length ? `between ${inWords(format, Math.min(...seen))} and ${inWords(format, Math.max(...seen))}` : "nothing yet";
    setAttribute(this.svg, "aria-label", `${this.spec.title}: ${range}`);
  }

  show(valueOf, time) {
    this.spec.lines.forEach(([name, tone, format, word], index) => {
      const value = valueOf(name), [number, unit] = known(value) ? format(value) : ["–", ""];
      const element = this.values[index];
      const wanted = `${number}|${unit}|${word}`;
      if (element.shown === wanted) return;
      element.shown = wanted;
      element.replaceChildren();
      if (this.spec.lines.length > 1 && (index || word)) element.append(make("span", { class: `key ${tone}`, "aria-hidden": "true" }));
      element.append(number);
      if (unit) element.append(" ", make("small", { text: unit }));
      if (word) element.append(" ", make("small", { text: word }));
    });
    setText(this.at, time === null ? "" : clock(time));
    if (time === null) this.cross.setAttribute("visibility", "hidden");
    else {
      const at = this.place(time);
      for (const end of ["x1", "x2"]) this.cross.setAttribute(end, at);
      this.cross.setAttribute("visibility", "visible");
    }
  }
}

// One point for each column of pixels: the highest value, so that no peak is lost. null: a gap.
function thin(times, values, from, to, columns) {
  const found = [];
  let column = -1;
  for (let i = 0; i < times.length; i++) {
    if (times[i] < from) continue;
    const at = Math.floor((times[i] - from) / (to - from) * columns), value = values[i];
    if (!known(value)) { if (found.at(-1)) found.push(null); column = -1; continue; }
    if (at === column) { if (value > found.at(-1)[1]) found.at(-1)[1] = value; }
    else { found.push([times[i], value]); column = at; }
  }
  return found;
}

function pathOf(points, x, y) {
  let path = "", pen = "M";
  points.forEach((point, index) => {
    if (!point) { pen = "M"; return; }
    path += `${pen}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`;
    if (pen === "M" && !points[index + 1]) path += "h1";  // a lone point is seen, too
    pen = "L";
  });
  return path;
}

function areaOf(points, x, y, base) {
  let path = "", begin = null, last = null;
  for (const point of [...points, null]) {
    if (!point) { if (begin !== null) path += `L${last} ${base}L${begin} ${base}Z`; begin = null; continue; }
    last = x(point[0]).toFixed(1);
    path += `${begin === null ? `M${last} ` : `L${last} `}${y(point[1]).toFixed(1)}`;
    begin ??= last;
  }
  return path;
}

// The next round number above: 1, 2 or 5 of a power of ten; powers of two for bytes.
function nice(value, base) {
  if (base === 2) {
    const power = 2 ** Math.floor(Math.log2(value));
    return [1, 1.25, 1.5, 1.75, 2].map((step) => step * power).find((step) => step >= value);
  }
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.9999);
}

class Charts {
  constructor(box) {
    this.box = box;
    this.charts = CHARTS.map((spec) => new Chart(spec));
    box.append(...this.charts.map((chart) => chart.element));
    this.at = null;  // the time under the crosshair; null: now
    box.addEventListener("pointermove", (event) => this.point(event));
    box.addEventListener("pointerleave", () => this.move(null));
    box.addEventListener("blur", () => this.move(null));
    box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(box);
  }

  update(history, now, hasPools) {
    this.history = history;
    this.now = now;
    for (const chart of this.charts) chart.element.hidden = Boolean(chart.spec.withPools) && !hasPools;
    setAttribute(this.box, "data-count", this.charts.filter((chart) => !chart.element.hidden).length);
    this.draw();
  }

  draw() {
    const history = this.history;
    if (!history?.t.length) return;
    const to = history.t.at(-1), seen = to - history.t[0];
    const span = SPANS_S.find((span) => seen <= span) ?? SPANS_S.at(-1);
    this.from = to - span;
    this.to = to;
    const width = Math.max(80, Math.round(this.charts[0].svg.clientWidth || 240));
    this.width = width;
    for (const chart of this.charts) if (!chart.element.hidden) chart.draw(history, this.from, to, width);
    this.show();
  }

  show() {
    const history = this.history;
    let index = -1;
    if (this.at !== null) {
      index = nearest(history.t, this.at);
      this.at = history.t[index];
      if (this.at < this.from) { this.at = null; index = -1; }
    }
    for (const chart of this.charts)
      if (!chart.element.hidden) chart.show((name) => index >= 0 ? history[name][index] : this.now?.[name], this.at);
  }

  point(event) {
    const svg = event.target.closest?.(".chart")?.querySelector("svg");
    if (!svg || !this.history?.t.length) return this.move(null);
    const box = svg.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    this.move(share < 0 || share > 1 ? null : this.from + share * (this.to - this.from));
  }

  move(time) {
    if (!this.history?.t.length || (time === null && this.at === null)) return;
    this.at = time;
    this.show();
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -Infinity, End: Infinity, Escape: 0 };
    const step = steps[event.key], times = this.history?.t;
    if (step === undefined || !times?.length) return;
    event.preventDefault();
    if (!step) return this.move(null);
    const first = times.findIndex((time) => time >= this.from);
    const index = this.at === null ? times.length - 1 : nearest(times, this.at) + step;
    this.move(times[Math.min(times.length - 1, Math.max(first, index))]);
    const said = this.charts.filter((chart) => !chart.element.hidden).slice(0, 4)
      .map((chart) => `${chart.spec.title} ${chart.values.map((value) => value.textContent).join(", ")}`);
    announce(`${clock(this.at)}: ${said.join("; ")}`);
  }
}

function nearest(times, time) {
  let low = 0, high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1; else high = middle;
  }
  return low > 0 && time - times[low - 1] < times[low] - time ? low - 1 : low;
}
