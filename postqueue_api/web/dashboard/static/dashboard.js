// The core: live numbers, keys, chosen rows, local times. Each part gets `dashboard` (see assets.py). No page needs it to
// be used. It tells the document of "status" (what /v1/status said last, as detail) and "chosen".

const body = document.body;
// The page's language as the reader writes it: en-GB, not en.
const language = navigator.languages.find((each) => each.split("-")[0] === document.documentElement.lang) ?? document.documentElement.lang;
const editable = "input:not([type=checkbox], [type=radio], [type=button], [type=submit]), select, textarea, [contenteditable]";

const dashboard = {
  csrf: body.dataset.csrf,
  // Queue IDs of the rows that are chosen. They outlive a row that is put in the place of an older one.
  chosen: new Set(),
  calls: [],
  // Have `call(root)` called with the document now, and with each element that comes in place of an older one.
  onShow(call) {
    this.calls.push(call);
    call(document);
  },
  show(root) {
    for (const call of this.calls) call(root);
  },
  // Ask the API as who is logged in. `signal`, `method`, `headers` as of fetch().
  ask(address, options = {}) {
    // Without a Cache-Control of our own browsers say no-cache here, which would have the queue listed anew each time.
    const headers = { "X-CSRF-Token": this.csrf, "Cache-Control": "no-transform", ...options.headers };
    return fetch(address, { cache: "no-store", ...options, headers });
  },
};

// Times: in the reader's zone, the exact time on hover.

function localise(root) {
  const short = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  const clock = new Intl.DateTimeFormat(language, { timeStyle: "short" });
  const exact = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "long" });
  for (const each of root.querySelectorAll("time[data-time]")) {
    const at = new Date(each.dateTime);
    if (each.dataset.time !== "since") each.textContent = (each.dataset.time === "clock" ? clock : short).format(at);
    each.title = `${exact.format(at)} (${at.toISOString().replace("T", " ").slice(0, 19)} UTC)`;
    delete each.dataset.time;
  }
}

function inWords(seconds) {
  const [unit, count] = seconds < 90 ? ["second", Math.round(seconds)] : ["minute", Math.round(seconds / 60)];
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "long" }).format(count);
}

// Chosen rows.

const rowsOf = (root) => root.querySelectorAll("tr[data-queue-id]");
const boxOf = (row) => row.querySelector("input[type=checkbox]");

function writeChosen(root) {
  for (const row of rowsOf(root)) {
    const box = boxOf(row);
    if (!box) continue;
    if (root === document && box.checked) dashboard.chosen.add(row.dataset.queueId);
    box.checked = dashboard.chosen.has(row.dataset.queueId);
  }
  document.dispatchEvent(new CustomEvent("chosen"));
}

document.addEventListener("change", ({ target }) => {
  const row = target.closest("tr[data-queue-id]");
  if (!row || target !== boxOf(row)) return;
  dashboard.chosen[target.checked ? "add" : "delete"](row.dataset.queueId);
  document.dispatchEvent(new CustomEvent("chosen"));
});

// Live: the status is asked for; when it is another one, the page is asked for again, and what is live in it is put
// in place.

const every = { poll: 5000, operation: 1000, most: 60000, old: 30 };
const line = document.getElementById("live");
let etag = null;
let since = Date.now(); // when what is shown was true
let wait = every.poll;
let timer = 0;
let busy = false;
let known = null; // the last status

function say(kind, name, values = {}) {
  const text = name && line.dataset[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
  if (line.dataset.shown === (text ?? "")) return;
  line.dataset.shown = text ?? "";
  line.className = `live ${kind}`;
  line.textContent = text ?? "";
  if (name === "ended") {
    const link = document.createElement("a");
    link.href = `/login?notice=ended&next=${encodeURIComponent(location.pathname + location.search)}`;
    link.textContent = line.dataset.login;
    line.append(" ", link);
  }
}

const secondsOld = () => (Date.now() - since) / 1000;

function isTyped(field) {
  if (!field.name || field.type === "hidden" || field.closest("tr[data-queue-id]")) return false;
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.tagName !== "SELECT") return field.value !== field.defaultValue;
  const options = [...field.options];
  return field.selectedIndex !== Math.max(0, options.findIndex((each) => each.defaultSelected));
}

let moved = 0; // when the pointer moved last

// Whether somebody works in it: has the focus or just now the pointer there, has typed or chosen something, or has
// marked text to copy it.
function isTouched(element) {
  if (Date.now() - moved < every.poll && element.matches(":hover")) return true;
  const marked = getSelection();
  if (!marked.isCollapsed && element.contains(marked.anchorNode)) return true;
  return element.contains(document.activeElement) || [...element.querySelectorAll("input, select, textarea")].some(isTyped);
}

const sources = new WeakMap(); // live elements as they came from the server
const note = (root) => root.querySelectorAll("[data-live][id]").forEach((each) => sources.set(each, each.outerHTML));
const blocked = new Set(); // identifiers of those that could not be replaced

function replace(older, newer) {
  for (const each of older.querySelectorAll("details[id][open]")) newer.querySelector(`#${CSS.escape(each.id)}`)?.setAttribute("open", "");
  const scrolled = [...older.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
  older.replaceWith(newer);
  newer.querySelectorAll(".scroll").forEach((each, at) => (each.scrollLeft = scrolled[at] ?? 0));
  dashboard.show(newer);
}

function writeTexts(element, newer) {
  for (const text of element.querySelectorAll("[data-live-text][id]")) {
    const now = newer.getElementById(text.id);
    if (now && now.textContent !== text.textContent) text.textContent = now.textContent;
  }
}

// Puts what is new in place; an inner element by itself where the outer one is touched.
function putInPlace(newer) {
  note(newer);
  blocked.clear();
  for (const each of document.querySelectorAll("[data-live][id]")) {
    const other = each.isConnected && newer.getElementById(each.id);
    if (!other || sources.get(each) === sources.get(other)) continue;
    if (isTouched(each)) {
      blocked.add(each.id);
      writeTexts(each, newer);
    } else replace(each, other);
  }
}

const isFree = () => [...blocked].some((id) => !isTouched(document.getElementById(id) ?? body));

async function refresh() {
  if (!document.querySelector("[data-live][id]")) return;
  const response = await dashboard.ask(location.href, { headers: { "X-Live": "1" } });
  if (new URL(response.url).pathname === "/login") return end();
  if (!response.ok) {
    if (known?.problem) return; // the line says why
    throw new Error(response.status);
  }
  const newer = new DOMParser().parseFromString(await response.text(), "text/html");
  listing = newer.body.dataset.snapshot;
  putInPlace(newer);
}

function end() {
  clearTimeout(timer);
  timer = -1;
  say("bad", "ended");
}

function tell(status, age) {
  if (status.mail_system === "down") say("bad", "down");
  else if (status.problem) say("bad", "unknown", { detail: status.problem.detail });
  else if (age > every.old) say("", "old", { age: inWords(age) });
  else if (line.classList.contains("bad")) say("good", "back");
  else say("", null);
}

// What the status says but for the listing it was made from: each listing has a name of its own.
const said = (status) => JSON.stringify({ ...status, snapshot: null });
let listing = body.dataset.snapshot; // the one that the page was made from
let refreshed = Date.now();
let before = null; // what the status said when the page was made

function isNew() {
  if (before === null && (!listing || listing === known.snapshot?.snapshot_id)) before = said(known);
  return before !== said(known) || Date.now() - refreshed > every.most;
}

async function poll() {
  const response = await dashboard.ask("/v1/status", { headers: etag ? { "If-None-Match": etag } : {} });
  if (response.status === 401) return end();
  if (response.status !== 304 && !response.ok) throw new Error(response.status);
  const age = Number(response.headers.get("Age") ?? 0);
  since = Date.now() - age * 1000;
  etag = response.headers.get("ETag") ?? etag;
  if (response.ok) known = await response.json();
  tell(known, age);
  document.dispatchEvent(new CustomEvent("status", { detail: known }));
  if (isNew() || isFree()) {
    const about = said(known);
    await refresh();
    [before, refreshed] = [about, Date.now()];
  }
}

let progress = "";

async function pollOperation(element) {
  const response = await dashboard.ask(element.dataset.poll);
  if (response.status === 401) return end();
  if (!response.ok) throw new Error(response.status);
  const text = await response.text();
  since = Date.now();
  if (text !== progress) await refresh();
  progress = text;
}

let rounds = 0;

async function round() {
  if (busy || timer === -1 || document.hidden) return;
  busy = true;
  clearTimeout(timer);
  try {
    const operation = document.querySelector("[data-poll]");
    if (operation) await pollOperation(operation);
    if (timer !== -1 && (!operation || rounds++ % 5 === 0)) await poll();
    wait = document.querySelector("[data-poll]") ? every.operation : every.poll;
  } catch {
    wait = Math.min(every.most, Math.max(every.poll, wait * 2));
    say("bad", "silent", { age: inWords(secondsOld()) });
  }
  busy = false;
  if (timer !== -1 && !document.hidden) timer = setTimeout(round, wait);
}

function awake() {
  if (timer === -1) return;
  clearTimeout(timer);
  timer = 0;
  wait = every.poll;
  round();
}

// Keys: none while somebody types.

let leader = 0; // when g was pressed
let current = null; // the row that j and k went to

const nameOf = (row) => row?.dataset.queueId ?? row?.dataset.row;

function markCurrent(root) {
  for (const row of root.querySelectorAll("tr[data-queue-id], tr[data-row]")) {
    if (nameOf(row) === current) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

function move(step) {
  const rows = [...document.querySelectorAll("tr[data-queue-id], tr[data-row]")];
  if (!rows.length) return;
  const at = rows.findIndex((row) => nameOf(row) === current);
  const row = rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + step))];
  current = nameOf(row);
  markCurrent(document);
  (row.querySelector("a[href]") ?? row).focus();
  row.scrollIntoView({ block: "nearest" });
}

function choose() {
  const row = document.activeElement.closest("tr[data-queue-id]") ?? document.querySelector("tr[data-queue-id][aria-current=true]");
  if (row) boxOf(row)?.click();
}

const keys = {
  "/": () => document.querySelector("[data-search], input[type=search]")?.focus(),
  j: () => move(1),
  k: () => move(-1),
  x: choose,
  g: () => (leader = Date.now()),
  "?": () => document.getElementById("help")?.showModal(),
};

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (target.closest(editable) || document.querySelector("dialog[open]")) return;
  const isSecond = Date.now() - leader < 1500;
  leader = 0;
  const link = isSecond && /^[a-z]$/.test(key) && document.querySelector(`nav a[data-key="${key}"]`);
  if (link) link.click();
  else if (keys[key]) keys[key]();
  else return;
  event.preventDefault();
});

for (const each of document.querySelectorAll("[data-help]")) {
  each.hidden = false;
  each.addEventListener("click", keys["?"]);
}

note(document);
addEventListener("pointermove", () => (moved = Date.now()), { passive: true });
dashboard.onShow(localise);
dashboard.onShow(writeChosen);
dashboard.onShow(markCurrent);
for (const start of parts) start(dashboard);
if (body.hasAttribute("data-watch")) {
  document.addEventListener("visibilitychange", () => document.hidden || awake());
  addEventListener("pageshow", (event) => event.persisted && awake());
  addEventListener("online", awake);
  round();
}
