// What the page does: follow the server, show what it says, pass on what a person wants.

const MOST_EVENTS = 300, SILENCE_MS = 5000, PATIENCE_MS = 3000, RETRY_MS = [500, 1000, 2000, 4000];
const store = { state: null, history: null, events: [], offenders: [], actions: false, csrf: "", span: 900 };

// The token came with the link; the cookie has it now, the address bar and the history need not.
if (location.search) history.replaceState(null, "", "/");

const charts = new Charts(byId("charts"));
const map = new ClusterMap(byId("map"));
let workerBody = null, poolBody = null, appBody = null, eventFilter = "all";

// --- following ----------------------------------------------------------------------------------------------------
let source = null, attempts = 0, heardAt = performance.now();

function follow() {
  source?.close();
  source = new EventSource("/events");
  const on = (kind, take) => source.addEventListener(kind, (event) => { heardAt = performance.now(); take(JSON.parse(event.data)); });
  on("hello", (found) => { attempts = 0; begin(found); });
  on("state", (state) => { store.state = state; addPoint(state); show(); });
  on("events", (events) => { addEvents(events); });
  on("offenders", (offenders) => { store.offenders = offenders; showOffenders(); });
  source.onerror = () => { source.close(); retry(); };
}

async function retry() {
  let words = "The connection to the server is lost. Trying again…";
  setLive(false);
  lost(words);
  try {
    const reply = await fetch("/api/state", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (reply.status === 401) words = "The server was started anew with another token: follow the link that it printed (multiloop status prints it again).";
    else if (!reply.ok) words = `The server refuses: ${(await reply.text()).trim()}`;
  } catch { /* not there */ }
  lost(words);
  setTimeout(follow, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
}

function lost(words) {
  byId("lost").hidden = !words;
  setText(byId("lost"), words);
  document.body.classList.toggle("stale", Boolean(words));
}

function setLive(isLive) {
  const live = byId("live");
  live.dataset.state = isLive ? "live" : "lost";
  setText(live, isLive ? "live" : "lost");
}

setInterval(() => {
  if (performance.now() - heardAt > SILENCE_MS && !document.hidden && source?.readyState === EventSource.OPEN) {
    heardAt = performance.now();
    source.close();
    retry();
  }
}, 1000);

function begin(found) {
  Object.assign(store, found);
  workerBody = makeHead(byId("workers"), WORKER_COLUMNS, store.actions);
  poolBody = makeHead(byId("pools"), POOL_COLUMNS, false);
  appBody = makeHead(byId("apps"), APP_COLUMNS, store.actions);
  byId("actions").hidden = !store.actions;
  const list = byId("events");
  list.replaceChildren();
  list.known = undefined;
  setLive(true);
  lost("");
  show();
  showOffenders();
  showEvents();
}

function addPoint(state) {
  const { history } = store;
  history.t.push(state.t);
  for (const [name, column] of Object.entries(history)) if (name !== "t") column.push(state.now[name] ?? null);
  while (history.t.length && history.t[0] < state.t - store.span) for (const column of Object.values(history)) column.shift();
}

// --- showing ------------------------------------------------------------------------------------------------------
function show() {
  const { state, history } = store;
  if (!state?.cluster || document.hidden) return;
  const { cluster, apps, workers } = state;
  const title = apps.length === 1 ? apps[0].name : plural(apps.length, "application");
  document.title = `${workers.some((worker) => worker.blocked) ? "■ blocked · " : ""}${title} · multiloop`;
  setText(byId("target"), title);
  const chip = byId("cluster-state");
  if (chip.textContent && chip.textContent !== cluster.state) announce(`The cluster is ${cluster.state}`);
  setText(chip, cluster.state);
  setAttribute(chip, "data-tone", TONES[cluster.state] ?? "dim");
  showFacts(cluster, apps, workers);
  setText(byId("wanted"), String(cluster.wanted));
  byId("scale").hidden = apps.length > 1;  // then each application has its own
  byId("apps-card").hidden = apps.length < 2;
  reconcile(appBody, apps.length > 1 ? apps : [], (app) => app.name, () => makeAppRow(store.actions, act), (row, app) => fillAppRow(row, app, workers));
  const { pools } = state;
  charts.update(history, state.now, pools.length > 0 || history.running.some((count) => count > 0));
  map.update(state);
  fillBlockedNow(byId("blocked-now"), workers);
  const order = new Map(apps.map((app, index) => [app.name, index]));
  const ordered = workers.toSorted((a, b) => order.get(a.app) - order.get(b.app) || (a.slot ?? 1e9) - (b.slot ?? 1e9) || a.n - b.n);
  byId("workers").classList.toggle("several", apps.length > 1);
  reconcile(workerBody, ordered, (worker) => worker.n, () => makeWorkerRow(store.actions, act), fillWorkerRow);
  byId("pools-card").hidden = !pools.length;
  reconcile(poolBody, pools, (pool) => pool.name, makePoolRow, fillPoolRow);
  setText(byId("foot"), `Figures are of the last seconds; charts hold ${Math.round(store.span / 60)} minutes. multiloop ${cluster.version}, primary ${cluster.pid}. In a terminal: multiloop top.`);
}

function showFacts(cluster, apps, workers) {
  const ready = workers.filter((worker) => worker.state === "ready").length;
  const facts = [["ready", `${ready} of ${cluster.wanted}`], ["up", asAge(cluster.uptime)]];
  if (apps.length === 1) facts.unshift(["on", apps[0].listen.join(", ")]);
  if (apps.length === 1 && apps[0].generation > 1) facts.push(["generation", String(apps[0].generation)]);
  if (cluster.restarts) facts.push(["restarts", String(cluster.restarts)]);
  if (cluster.waiting) facts.push(["waiting connections", String(cluster.waiting)]);
  reconcile(byId("facts"), facts, (fact) => fact[0], (fact) => make("span", {}, `${fact[0]} `, make("b")), (element, fact) => setText(element.lastChild, fact[1]));
}

function showOffenders() {
  const list = byId("offenders"), most = Math.max(...store.offenders.map((offender) => offender.total), 0.001);
  const now = store.state?.t ?? Date.now() / 1000;
  byId("offenders-none").hidden = store.offenders.length > 0;
  reconcile(list, store.offenders, (offender) => offender.id, makeOffender, (details, offender) => fillOffender(details, offender, most, now));
}
setInterval(() => { if (!document.hidden) showOffenders(); }, 5000);  // "12 s ago" grows

function addEvents(events) {
  store.events.push(...events);
  if (store.events.length > MOST_EVENTS) store.events.splice(0, store.events.length - MOST_EVENTS);
  const serious = events.filter((event) => event.level !== "info");
  if (serious.length) announce(serious.at(-1).text);
  showEvents();
}

function showEvents() {
  const wanted = store.events.filter((event) => eventFilter === "all" || event.level !== "info").toReversed();
  reconcile(byId("events"), wanted, (event) => event.id, makeEvent, () => {});
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) { heardAt = performance.now(); show(); showOffenders(); } });

for (const button of document.querySelectorAll(".segments button")) {
  button.onclick = () => {
    eventFilter = button.dataset.level;
    for (const other of button.parentElement.children) setAttribute(other, "aria-pressed", other === button);
    showEvents();
  };
}

// --- acting -------------------------------------------------------------------------------------------------------
async function act(button, command, body) {
  button.disabled = true;
  let words = "";
  try {
    const reply = await fetch(`/api/${command}`, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json", "x-csrf-token": store.csrf } });
    if (!reply.ok) {
      const text = await reply.text();
      try { words = JSON.parse(text).error; } catch { words = text.trim(); }
    }
  } catch { words = "The server does not answer."; }
  button.disabled = false;
  if (words) lost(words);
  announce(words || `${command}: done`);
  if (words) setTimeout(() => { if (byId("lost").textContent === words) lost(""); }, 8000);
}
byId("reload").onclick = (event) => act(event.currentTarget, "reload", {});
byId("more").onclick = (event) => act(event.currentTarget, "scale", { workers: store.state.cluster.wanted + 1 });
byId("fewer").onclick = (event) => act(event.currentTarget, "scale", { workers: store.state.cluster.wanted - 1 });

// --- light and dark -----------------------------------------------------------------------------------------------
const THEMES = { auto: "◑ Auto", light: "☀ Light", dark: "☾ Dark" };
function readTheme() { try { return localStorage.getItem("multiloop-theme") ?? "auto"; } catch { return "auto"; } }
function setTheme(theme) {
  if (!(theme in THEMES)) theme = "auto";
  document.documentElement.dataset.theme = theme;
  const button = byId("theme");
  setText(button, THEMES[theme]);
  setAttribute(button, "aria-label", `Colors: ${theme}. Change`);
  try { localStorage.setItem("multiloop-theme", theme); } catch { /* a private window */ }
}
byId("theme").onclick = () => {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
};
setTheme(readTheme());

setLive(false);
setText(byId("live"), "connecting");
follow();
