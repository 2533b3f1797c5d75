// Small helpers: elements, numbers as people read them, lists that keep their elements.
// Text from the server is only ever set as text; the page's policy would refuse anything else.

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const element = attributes.svg || SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
const SVG_TAGS = new Set(["svg", "path", "line", "rect", "circle", "text", "g", "tspan"]);

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setAttribute(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

// Bring a parent's children in line with a list: `create` makes a child for a key, `update` fills it. Children keep their
// identity, so focus, selection and open details survive every update.
function reconcile(parent, items, keyOf, create, update) {
  const known = parent.known ??= new Map();
  const wanted = new Set();
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    wanted.add(key);
    let child = known.get(key);
    if (!child) known.set(key, child = create(item));
    const place = before ? before.nextSibling : parent.firstChild;
    if (place !== child) parent.insertBefore(child, place);
    update(child, item);
    before = child;
  }
  for (const [key, child] of known) {
    if (!wanted.has(key)) { child.remove(); known.delete(key); }
  }
}

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

// Three significant digits, no exponents.
function digits(value) {
  const size = Math.abs(value);
  if (size >= 100 || value === 0) return Math.round(value).toLocaleString("en-US");
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(size >= 0.1 ? 2 : 3);
}

// Each gives [number, unit].
function asCount(value) {
  if (value >= 1e6) return [digits(value / 1e6), "M"];
  if (value >= 1e4) return [digits(value / 1e3), "k"];
  return [Number.isInteger(value) || value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toFixed(1), ""];
}
function asTime(seconds) {
  if (seconds < 0.001) return [digits(seconds * 1e6), "µs"];
  if (seconds < 1) return [digits(seconds * 1e3), "ms"];
  if (seconds < 100) return [digits(seconds), "s"];
  return [asAge(seconds), ""];
}
function asBytes(bytes) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]])
    if (bytes >= size) return [digits(bytes / size), unit];
  return [String(bytes), "B"];
}
const asShare = (value) => [value < 0.0995 ? (value * 100).toFixed(1) : String(Math.round(value * 100)), "%"];
const asCores = (value) => [value.toFixed(2), value === 1 ? "core" : "cores"];
function asAge(seconds) {
  for (const [unit, size, next, part] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]])
    if (seconds >= size) {
      const rest = Math.floor((seconds % size) / part);
      return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${next}` : ""}`;
    }
  return `${Math.floor(seconds)} s`;
}
const inWords = (format, value) => known(value) ? format(value).join(" ").trim() : "–";
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
const plural = (count, word) => `${count.toLocaleString("en-US")} ${word}${count === 1 ? "" : "s"}`;
const durationOf = (seconds) => seconds < 10 ? `${seconds.toFixed(2)} s` : `${seconds.toFixed(1)} s`;
const heatOf = (share) => share >= 0.95 ? "full" : share >= 0.75 ? "hot" : "";

// What a screen reader should hear although nobody looked there. One message at a time, none twice in a row.
function announce(text) {
  setText(byId("announcer"), text);
}

const TONES = {
  serving: "good", booting: "calm", reloading: "calm", degraded: "warn", stopping: "dim", failed: "bad",
  ready: "good", starting: "calm", standby: "dim", silent: "bad", draining: "dim", killed: "bad",
  info: "dim", warning: "warn", error: "bad", critical: "bad",
};
