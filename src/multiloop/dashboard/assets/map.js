// The map: the primary, its workers, and what flows between them.

const ROW = 34, MOST_ROW = 76, NODE_HEIGHT = 26, TALL = 50, PRIMARY_WIDTH = 118, MOST_ROWS = 16;
const PACE_MS = 900, MOST_DOTS = 4;

class ClusterMap {
  constructor(box) {
    this.box = box;
    this.svg = make("svg", { role: "img" });
    this.edges = make("g"), this.nodes = make("g");
    this.arrow = make("path", { class: "edge" });
    this.rate = make("text", { class: "dim", x: 0 });
    this.primaryName = make("text", { class: "strong", text: "primary" });
    this.primaryNote = make("text", { class: "dim" });
    this.primaryBox = make("rect", { class: "box", rx: 9 });
    this.primary = make("g", { class: "primary" }, this.primaryBox, this.primaryName, this.primaryNote);
    this.svg.append(this.arrow, this.rate, this.edges, this.primary, this.nodes);
    box.append(this.svg);
    this.quiet = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => {
      for (const dot of box.querySelectorAll(".dot")) dot.remove();  // their paths have moved
      if (this.state) this.update(this.state);
    }).observe(box);
  }

  update(state) {
    const isNew = state !== this.state;
    this.state = state;
    const workers = state.workers.filter((worker) => worker.state !== "standby");
    const rows = Math.min(MOST_ROWS, Math.max(2, workers.length)), columns = Math.max(1, Math.ceil(workers.length / rows));
    this.box.style.minHeight = `${rows * ROW + 8}px`;
    const width = Math.max(280, this.box.clientWidth), height = Math.max(rows * ROW + 8, this.box.clientHeight);
    const row = Math.min(MOST_ROW, (height - 8) / rows);
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${height}`);
    const narrow = width < 480, entry = narrow ? 28 : 76, left = entry + PRIMARY_WIDTH;
    const gap = narrow ? 44 : Math.min(150, width * 0.18);
    const nodeWidth = (width - left - gap - (columns - 1) * 10 - 1) / columns, middle = height / 2;
    this.drawPrimary(state.cluster, entry, middle, narrow);
    const tall = row >= TALL + 12 && nodeWidth > 130;  // room for a second line
    const places = new Map();
    workers.forEach((worker, index) => {
      const x = left + gap + Math.floor(index / rows) * (nodeWidth + 10);
      const count = Math.min(rows, workers.length - Math.floor(index / rows) * rows);
      const y = middle + ((index % rows) - (count - 1) / 2) * row;
      places.set(worker.n, { x, y, path: `M${left} ${middle}C${left + gap * 0.55} ${middle} ${x - gap * 0.55} ${y} ${x} ${y}` });
    });
    const keyOf = (worker) => worker.n;
    reconcile(this.edges, workers, keyOf, () => make("path"), (path, worker) => this.drawEdge(path, worker, places.get(worker.n)));
    reconcile(this.nodes, workers, keyOf, () => this.makeNode(), (node, worker) => this.drawNode(node, worker, places.get(worker.n), nodeWidth, tall));
    this.describe(state, workers);
    if (isNew && !document.hidden && !this.quiet.matches) this.flow(state, workers, places, entry, middle);
  }

  drawPrimary(cluster, entry, middle, narrow) {
    const x = entry, y = middle - 24;
    for (const [name, value] of Object.entries({ x, y, width: PRIMARY_WIDTH, height: 48 })) setAttribute(this.primaryBox, name, value);
    setAttribute(this.primaryName, "x", x + 12); setAttribute(this.primaryName, "y", middle - 9);
    setAttribute(this.primaryNote, "x", x + 12); setAttribute(this.primaryNote, "y", middle + 10);
    setText(this.primaryNote, `${inWords(asShare, cluster.cpu)} · ${inWords(asBytes, cluster.rss)}`);
    setAttribute(this.arrow, "d", `M0 ${middle}H${entry}`);
    setAttribute(this.arrow, "stroke-width", 2.5);
    const dealt = this.state.workers.reduce((sum, worker) => sum + (worker.dealt ?? 0), 0);
    setText(this.rate, narrow ? "" : `${inWords(asCount, dealt)}/s`);
    setAttribute(this.rate, "y", middle - 13);
    setAttribute(this.arrow, "class", `edge ${dealt > 0 ? "busy" : ""}`);
  }

  drawEdge(path, worker, place) {
    setAttribute(path, "d", place.path);
    setAttribute(path, "stroke-width", (1.2 + Math.min(7, 1.1 * Math.log2(1 + worker.conns))).toFixed(1));
    const kind = worker.state === "silent" || worker.state === "killed" ? "cut" : worker.state === "ready" ? (worker.rate > 0 ? "busy" : "") : "old";
    setAttribute(path, "class", `edge ${kind}`);
  }

  makeNode() {
    const node = make("g", { class: "node" });
    node.parts = {
      box: make("rect", { class: "box", rx: 7, x: 0 }), sign: make("circle", { class: "sign", cx: 13, r: 4 }),
      name: make("text", { class: "strong", x: 24 }), note: make("text", { class: "dim", "text-anchor": "end" }),
      meter: make("rect", { class: "meter", height: 6, rx: 3, width: 40 }), on: make("rect", { class: "meter-on", height: 6, rx: 3 }),
      more: make("text", { class: "dim", x: 24, y: 11.5 }),
    };
    node.append(...Object.values(node.parts));
    return node;
  }

  drawNode(node, worker, place, width, tall) {
    const { box, sign, name, note, meter, on, more } = node.parts;
    const height = tall ? TALL : NODE_HEIGHT, line = tall ? -10 : 0;
    setAttribute(box, "y", -height / 2); setAttribute(box, "height", height);
    setAttribute(sign, "cy", line);
    for (const text of [name, note]) setAttribute(text, "y", line + 0.5);
    for (const part of [meter, on]) setAttribute(part, "y", line - 3);
    const [p99, delay] = [worker.p99, worker.delay].map((value) => inWords(asTime, value));
    setText(more, !tall ? "" : width > 250 ? `p99 ${p99} · delay ${delay} · ${inWords(asBytes, worker.rss)}` : `p99 ${p99}`);
    setAttribute(node, "transform", `translate(${place.x.toFixed(1)} ${place.y.toFixed(1)})`);
    setAttribute(node, "data-tone", worker.blocked ? "bad" : TONES[worker.state] ?? "dim");
    setAttribute(box, "width", width.toFixed(1));
    const title = this.state.apps.length > 1 && width > 240 ? `${worker.n} ${worker.app.slice(0, 18)}` : String(worker.n);
    setText(name, title);
    const hasMeter = width > 120, at = 24 + 7.6 * title.length + 8;
    for (const part of [meter, on]) { setAttribute(part, "x", at); setAttribute(part, "visibility", hasMeter ? "visible" : "hidden"); }
    const share = Math.min(1, worker.util ?? 0);
    setAttribute(on, "width", (40 * share).toFixed(1));
    setAttribute(on, "class", `meter-on ${heatOf(share)}`);
    const words = worker.blocked ? `blocked ${durationOf(worker.blocked.seconds)}`
      : worker.state !== "ready" ? worker.state
      : width > 215 ? `${inWords(asCount, worker.rate)}/s · ${worker.conns.toLocaleString("en-US")} open`
      : width > 70 ? `${inWords(asCount, worker.rate)}/s` : "";
    setText(note, words);
    setAttribute(note, "x", (width - 10).toFixed(1));
  }

  describe(state, workers) {
    const words = workers.map((worker) => `worker ${worker.n} ${worker.blocked ? "blocked" : worker.state}, ${plural(worker.conns, "connection")}`);
    setAttribute(this.svg, "aria-label", `The primary deals connections to ${plural(workers.length, "worker")}: ${words.join("; ")}`);
    const policies = [...new Set(state.apps.map((app) => app.policy))];
    const takers = policies.every((policy) => policy === "reuse_port" || policy === "shared") ? "workers accept by themselves" : "the primary deals them out";
    setText(byId("map-legend"), `Policy ${policies.join(", ")}: ${takers}. Large dots are new connections, small ones requests; lines are thicker the more connections are open; bars show how busy a loop is.`);
  }

  // Dots run along the edges: moved by the compositor, so they cost the page little. Some for many: the scale is logarithmic.
  flow(state, workers, places, entry, middle) {
    let arrived = 0;
    for (const worker of workers) {
      if (worker.state !== "ready" && worker.state !== "draining") continue;
      const { path } = places.get(worker.n);
      const fresh = worker.dealt > 0 ? Math.min(MOST_DOTS, Math.ceil(Math.log2(1 + worker.dealt))) : 0;
      const asked = worker.rate > 0 ? Math.min(MOST_DOTS - 1, Math.ceil(Math.log10(1 + worker.rate))) : 0;
      arrived += fresh;
      for (let i = 0; i < fresh; i++) this.dot(path, "dot", i / fresh);
      for (let i = 0; i < asked; i++) this.dot(path, "dot request", (i + 0.5) / asked);
    }
    for (let i = 0; i < Math.min(arrived, 6); i++) this.dot(`M0 ${middle}H${entry}`, "dot", i / 6 - 0.3, 0.5);
  }

  dot(path, kind, phase, pace = 1) {
    const element = make("i", { class: kind, "aria-hidden": "true" });
    element.style.offsetPath = `path("${path}")`;
    this.box.append(element);
    const movement = element.animate(
      [{ offsetDistance: "0%", opacity: 0 }, { opacity: 1, offset: 0.15 }, { opacity: 1, offset: 0.85 }, { offsetDistance: "100%", opacity: 0 }],
      { duration: PACE_MS * pace, delay: Math.max(0, phase) * 1000, easing: "ease-in-out", fill: "both" });
    movement.finished.then(() => element.remove(), () => element.remove());
  }
}
