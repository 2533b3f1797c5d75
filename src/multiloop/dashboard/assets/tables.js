// Workers, pools, offenders, events: lists whose elements stay, so that nothing a person holds is taken away.

// --- applications: shown when there are several -------------------------------------------------------------------
const APP_COLUMNS = [["Application", "Its name and state"], ["Listens on", ""], ["Workers", "Ready, of those wanted"], ["Requests/s", ""], ["Connections", "Open now"],
  ["Accepted", "Connections since the start"], ["Waiting", "Connections that no worker can take"], ["Generation", "Reloads count it up"], ["Restarts", "Workers that died or hung"]];

function makeAppRow(canAct, act) {
  const row = make("tr", { role: "row" });
  row.cells_ = APP_COLUMNS.map(([title], index) => make("td", { role: "cell", "data-label": index ? title : null, class: index === 1 ? "wrap span" : null }));
  row.append(...row.cells_);
  row.name = make("b"), row.chip = make("span", { class: "chip" });
  row.cells_[0].append(make("span", { class: "worker-name" }, row.name, row.chip));
  if (canAct) {
    const button = (text, label, command, body) => {
      const made = make("button", { type: "button", text, "aria-label": label });
      made.onclick = () => act(made, command, { app: row.app.name, ...body(row.app) });
      return made;
    };
    row.append(make("td", { role: "cell", class: "span" }, button("Reload", null, "reload", () => ({})), " ",
      button("−", "One worker less", "scale", (app) => ({ workers: app.wanted - 1 })), " ", button("+", "One worker more", "scale", (app) => ({ workers: app.wanted + 1 }))));
  }
  return row;
}
function fillAppRow(row, app, workers) {
  const own = workers.filter((worker) => worker.app === app.name), sum = (value) => own.reduce((total, worker) => total + (value(worker) ?? 0), 0);
  row.app = app;
  setText(row.name, app.name);
  setText(row.chip, app.failure ? `${app.state}: ${app.failure}` : app.state);
  setAttribute(row.chip, "data-tone", TONES[app.state] ?? "bad");
  const texts = [app.listen.join(", "), `${own.filter((worker) => worker.state === "ready").length} of ${app.wanted}`, inWords(asCount, sum((worker) => worker.rate)),
    sum((worker) => worker.conns).toLocaleString("en-US"), app.accepted.toLocaleString("en-US"), String(app.waiting), String(app.generation), String(app.restarts)];
  texts.forEach((text, index) => fill(row.cells_[index + 1], text));
}

// --- workers ------------------------------------------------------------------------------------------------------
const WORKER_COLUMNS = [
  ["Worker", "Number, process id and state"],
  ["Age", "How long it has run, and the generation of its code"],
  ["Requests/s", "Replies a second over the last 3 s"],
  ["p50", "Half of the replies of the last 10 s took less"],
  ["p99", "99 of 100 replies took less"],
  ["Connections", "Open connections, and requests being answered"],
  ["Loop delay", "How late its event loop turns"],
  ["Loop in use", "Share of the time in which its event loop was busy"],
  ["CPU", "Processor cores"],
  ["Memory", "Resident memory"],
  ["Pool", "Tasks running and waiting"],
  ["Restarts", "Workers before it in this place, and why they went"],
];

function makeHead(table, columns, withActions) {
  const cells = columns.map(([title, hint]) => make("th", { scope: "col", role: "columnheader", title: hint, text: title }));
  if (withActions) cells.push(make("th", { scope: "col", role: "columnheader" }, make("span", { class: "hidden", text: "Actions" })));
  const body = make("tbody", { role: "rowgroup" });
  table.classList.add("cards");
  table.replaceChildren(make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...cells)), body);
  return body;
}

function makeWorkerRow(canAct, act) {
  const row = make("tr", { role: "row" });
  row.cells_ = WORKER_COLUMNS.map(([title], index) => make("td", { role: "cell", "data-label": index ? title : null }));
  row.append(...row.cells_);
  const [name, , , , , , , used, , , , restarts] = row.cells_;
  row.number = make("b"), row.chip = make("span", { class: "chip" }), row.pid = make("small"), row.owner = make("small", { class: "owner" });
  name.append(make("span", { class: "worker-name" }, row.number, row.chip, row.owner, row.pid));
  row.bar = make("i"), row.share = make("span");
  row.gauge = make("span", { class: "gauge" }, row.bar, row.share);
  used.append(row.gauge);
  row.none = make("span", { class: "dim", text: "0" });
  row.summary = make("summary"), row.list = make("ul", { class: "ends-list" });
  row.restarts = make("details", { class: "restarts", hidden: true }, row.summary, row.list);
  restarts.append(row.none, row.restarts);
  restarts.classList.add("span");
  if (canAct) {
    row.button = make("button", { type: "button", text: "Restart" });
    row.button.onclick = () => act(row.button, "restart", { worker: row.worker.n });
    row.append(make("td", { role: "cell", class: "span" }, row.button));
  }
  return row;
}

function fillWorkerRow(row, worker) {
  const [, age, rate, p50, p99, open, delay, , cpu, memory, pool] = row.cells_;
  row.worker = worker;
  setAttribute(row, "data-state", worker.state);
  setText(row.number, String(worker.n));
  setText(row.chip, worker.blocked ? `blocked ${durationOf(worker.blocked.seconds)}` : worker.state);
  setAttribute(row.chip, "data-tone", worker.blocked ? "bad" : TONES[worker.state] ?? "dim");
  setText(row.pid, worker.pid ? `pid ${worker.pid}` : "");
  setText(row.owner, worker.app);
  fill(age, asAge(worker.age), worker.gen > 1 ? `gen ${worker.gen}` : "");
  fill(rate, inWords(asCount, worker.rate));
  fill(p50, inWords(asTime, worker.p50));
  fill(p99, inWords(asTime, worker.p99), "", worker.p99 > 1 ? "hot-text" : "");
  fill(open, worker.conns.toLocaleString("en-US"), worker.active ? `${worker.active} running` : "");
  fill(delay, inWords(asTime, worker.delay), "", worker.delay >= 0.1 ? "bad-text" : worker.delay >= 0.05 ? "hot-text" : "");
  const share = worker.util ?? 0;
  row.bar.style.setProperty("--share", Math.min(1, share).toFixed(3));
  setAttribute(row.gauge, "data-heat", heatOf(share));
  setText(row.share, inWords(asShare, worker.util));
  fill(cpu, known(worker.cpu) ? worker.cpu.toFixed(2) : "–");
  fill(memory, worker.rss ? inWords(asBytes, worker.rss) : "–");
  const isBusy = worker.running || worker.queued;
  fill(pool, isBusy ? String(worker.running) : "–", isBusy ? (worker.queued ? `+${worker.queued.toLocaleString("en-US")} waiting` : "running") : "");
  fillRestarts(row, worker.ends);
  if (row.button) row.button.hidden = worker.state !== "ready" && worker.state !== "silent";
}

function fillRestarts(row, ends) {
  row.none.hidden = ends.length > 0;
  row.restarts.hidden = ends.length === 0;
  if (!ends.length) return;
  setText(row.summary, `${ends.length}: ${ends.at(-1).why}`);
  reconcile(row.list, ends.toReversed(), (end) => end.worker, () => make("li", { class: "dim" }),
    (item, end) => setText(item, `${clock(end.t)} worker ${end.worker}: ${end.why}`));
}

function fill(cell, text, small = "", tone = "") {
  const wanted = `${text}|${small}|${tone}`;
  if (cell.shown === wanted) return;
  cell.shown = wanted;
  const value = make("span", { class: tone, text });
  if (small) value.append(" ", make("small", { text: small }));
  cell.replaceChildren(value);
}

// --- pools --------------------------------------------------------------------------------------------------------
const POOL_COLUMNS = [["Pool", "Its name and kind"], ["In workers", "Of the cluster"], ["Processes", "There now, of at most"], ["Running", "Tasks"], ["Waiting", "Tasks"],
  ["Done", "Tasks"], ["Failed", "Tasks that raised or took too long"], ["Died", "Processes that ended without being asked"],
  ["Wait p99", "99 of 100 tasks waited less"], ["Run p50", "Half of the tasks ran less"], ["Run p99", "99 of 100 tasks ran less"], ["Tasks now", "What runs"]];

function makePoolRow() {
  const row = make("tr", { role: "row" });
  const last = POOL_COLUMNS.length - 1;
  row.cells_ = POOL_COLUMNS.map(([title], index) => make("td", { role: "cell", "data-label": index ? title : null, class: index === last ? "wrap span" : null }));
  row.append(...row.cells_);
  return row;
}
function fillPoolRow(row, pool) {
  const count = (value) => value.toLocaleString("en-US");
  const texts = [pool.name, String(pool.inside), `${pool.workers} of ${pool.limit}`, count(pool.running), count(pool.queued), count(pool.done),
    count(pool.failed), count(pool.died), inWords(asTime, pool.wait99), inWords(asTime, pool.run50), inWords(asTime, pool.run99), pool.tasks.join(", ") || "–"];
  texts.forEach((text, index) => fill(row.cells_[index], text, index ? "" : pool.kind, (index === 6 || index === 7) && text !== "0" ? "bad-text" : ""));
}

// --- offenders ----------------------------------------------------------------------------------------------------
function makeOffender(offender) {
  const details = make("details", { class: "offender" });
  details.place = make("span", { class: "place" }), details.cost = make("span", { class: "cost" });
  details.note = make("span", { class: "note" }), details.track = make("span", { class: "track", "aria-hidden": "true" });
  details.stack = make("pre", { tabindex: "0", text: "…" });
  details.append(make("summary", {}, details.place, details.cost, details.note, details.track), details.stack);
  details.addEventListener("toggle", async () => {
    if (!details.open || details.loaded === details.worst) return;
    const wanted = details.worst;
    try {
      const reply = await fetch(`/api/stack?id=${offender.id}`);
      const found = await reply.json();
      details.stack.textContent = found.stack || found.error || "Nothing could be seen: it was compiled code.";
      details.loaded = wanted;
    } catch { details.stack.textContent = "The server does not answer."; }
  });
  return details;
}

function fillOffender(details, offender, most, now) {
  details.worst = offender.worst;
  setText(details.place, offender.file ? `${offender.file}:${offender.line} ${offender.function}` : "compiled code");
  setText(details.cost, durationOf(offender.total));
  const parts = [offender.count === 1 ? "once" : `${offender.count.toLocaleString("en-US")} times, the worst ${durationOf(offender.worst)}`,
    `last ${asAge(Math.max(0, now - offender.last))} ago in worker ${offender.worker}`];
  if (offender.request) parts.push(offender.request);
  if (offender.killed) parts.push(`killed for it: ${offender.killed}`);
  setText(details.note, parts.join(" · "));
  details.track.style.setProperty("--share", (offender.total / most).toFixed(3));
}

function fillBlockedNow(section, workers) {
  const blocked = workers.filter((worker) => worker.blocked);
  section.hidden = !blocked.length;
  reconcile(section, blocked, (worker) => worker.n, () => make("p", {}, make("b"), make("span"), make("code"), make("span", { class: "dim" })), (line, worker) => {
    const { seconds, file, line: at, function: inside, request } = worker.blocked;
    const [lead, words, place, more] = line.children;
    setText(lead, `Worker ${worker.n} is blocked`);
    setText(words, ` for ${durationOf(seconds)} ${file ? "at " : "in compiled code"}`);
    setText(place, file ? `${file}:${at}` : "");
    setText(more, `${file ? ` in ${inside}` : ""}${request ? ` (${request})` : ""}${worker.state === "silent" ? "; it gets no new connections" : ""}`);
  });
}

// --- events -------------------------------------------------------------------------------------------------------
function makeEvent(event) {
  const item = make("li", { "data-tone": TONES[event.level] ?? "dim" },
    make("time", { datetime: new Date(event.t * 1000).toISOString(), title: new Date(event.t * 1000).toString(), text: clock(event.t) }),
    make("span", { class: "sign", role: "img", "aria-label": event.level }), make("span", { class: "text", text: event.text }));
  if (event.detail) item.append(make("details", {}, make("summary", { text: "Details" }), make("pre", { tabindex: "0", text: event.detail })));
  return item;
}
