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
    // The time limit holds for the reading of the answer too.
    return fetch(address, { cache: "no-store", signal: AbortSignal.timeout(every.patience), ...options, headers });
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

const every = { poll: 5000, operation: 1000, most: 60000, patience: 20000, old: 30 };
const line = document.getElementById("live");
let etag = null;
let since = Date.now(); // when what is shown was true
let wait = every.poll;
let timer = 0;
let busy = false;
let known = null; // the last status
let ended = false; // the session of this page is not the browser's any more
let gone = false; // the message of this page is not in the queue any more
let isDue = false; // the page is to be asked for in any case

const here = location.pathname + location.search;

function say(kind, name, values = {}) {
  const text = name && line.dataset[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
  if (line.dataset.shown === (text ?? "")) return;
  line.dataset.shown = text ?? "";
  line.className = `live ${kind}`;
  line.textContent = text ?? "";
  const label = { ended: "login", other: "reload", gone: "became" }[name];
  if (label) {
    const link = document.createElement("a");
    link.href = name === "ended" ? `/login?notice=ended&next=${encodeURIComponent(here)}` : here;
    link.textContent = line.dataset[label];
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

// Whether somebody works in it: has just now the pointer there, has the focus in a field, has typed or chosen something,
// or has marked text to copy it.
function isTouched(element) {
  if (Date.now() - moved < every.poll && element.matches(":hover")) return true;
  const marked = getSelection();
  if (!marked.isCollapsed && element.contains(marked.anchorNode)) return true;
  const active = document.activeElement;
  if (active.matches(editable) && element.contains(active)) return true;
  return [...element.querySelectorAll("input, select, textarea")].some(isTyped);
}

const sources = new WeakMap(); // live elements as they came from the server
const note = (root) => root.querySelectorAll("[data-live][id]").forEach((each) => sources.set(each, each.outerHTML));
const blocked = new Set(); // identifiers of those that could not be replaced

const signs = ["href", "formaction", "name", "value", "data-queue-id", "data-row", "aria-label"];
const signOf = (each) => each.id || [each.tagName, ...signs.map((name) => each.getAttribute(name))].join("\n");

// Gives the focus to what stands in the place of an element; when that is gone, to the table that it was in.
function focusTwin(older, newer) {
  const twin = [...newer.querySelectorAll(older.tagName)].find((each) => signOf(each) === signOf(older));
  const target = twin ?? newer.querySelector(".scroll") ?? newer;
  if (target.tabIndex < 0) target.tabIndex = -1;
  target.focus({ preventScroll: true });
}

function replace(older, newer) {
  const active = older.contains(document.activeElement) && document.activeElement;
  for (const each of older.querySelectorAll("details[id][open]")) newer.querySelector(`#${CSS.escape(each.id)}`)?.setAttribute("open", "");
  const scrolled = [...older.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
  older.replaceWith(newer);
  newer.querySelectorAll(".scroll").forEach((each, at) => (each.scrollLeft = scrolled[at] ?? 0));
  dashboard.show(newer);
  if (active) focusTwin(active, newer);
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
    } else replace(each, other);
  }
  writeTexts(document, newer);
}

const isFree = () => [...blocked].some((id) => !isTouched(document.getElementById(id) ?? body));

// Takes the token of the session that this browser has now, for another tab may have logged in anew. What was typed
// stays. Returns: false when somebody else has logged in.
function adopt({ principal, csrf }) {
  if (!principal) return true;
  if (principal !== body.dataset.principal) return false;
  if (csrf !== dashboard.csrf) {
    dashboard.csrf = csrf;
    for (const each of document.querySelectorAll("input[name=csrf_token]")) each.value = csrf;
  }
  return true;
}

const isLive = () => document.querySelector("[data-live][id]") !== null;

async function refresh(always = false) {
  if (!always && (gone || !isLive())) return;
  const response = await dashboard.ask(here, { headers: { "X-Live": "1" } });
  const { pathname } = new URL(response.url);
  if (pathname === "/login") return end("ended");
  const newer = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!adopt(newer.body.dataset)) return end("other");
  if (!isLive() || pathname !== location.pathname) return;
  gone = response.status === 404 && pathname.startsWith("/messages/");
  if (gone) return say("", "gone");
  if (!response.ok) {
    if (known?.problem) return; // the line says why
    throw response;
  }
  listing = newer.body.dataset.snapshot;
  putInPlace(newer);
}

function end(why) {
  ended = true;
  say("bad", why);
}

function tell(status, age) {
  if (gone) say("", "gone");
  else if (status.mail_system === "down") say("bad", status.queues === null ? "down" : "stopped");
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
  if (response.status === 401) return end("ended");
  if (response.status !== 304 && !response.ok) throw response;
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
  if (response.status === 401) return end("ended");
  if (!response.ok) throw response;
  const text = await response.text();
  since = Date.now();
  if (text !== progress) await refresh();
  progress = text;
}

let rounds = 0;

// Somebody looks at the page again: its session may have ended meanwhile, or begun anew in another tab.
async function lookAgain() {
  isDue = ended = false;
  await refresh(true);
  [before, refreshed] = [null, Date.now()];
}

async function round() {
  if (busy || document.hidden || (ended && !isDue)) return;
  busy = true;
  clearTimeout(timer);
  try {
    if (isDue) await lookAgain();
    const operation = document.querySelector("[data-poll]");
    if (!ended && operation) await pollOperation(operation);
    if (!ended && (!operation || rounds++ % 5 === 0)) await poll();
    wait = document.querySelector("[data-poll]") ? every.operation : every.poll;
  } catch (fault) {
    // A response that says no, or a fault of the network, which has no status.
    const { status, headers } = fault;
    wait = Math.min(every.most, Math.max(every.poll, wait * 2));
    if (status === 429) wait = Math.max(wait, 1000 * headers.get("Retry-After"));
    const name = { 403: "forbidden", 429: "limited" }[status] ?? (status < 500 ? "refused" : "silent");
    say("bad", name, { age: inWords(secondsOld()), status });
  }
  busy = false;
  if (!document.hidden && (!ended || isDue)) timer = setTimeout(round, isDue ? 0 : wait);
}

function awake(event) {
  isDue = ended || Date.now() - refreshed > every.poll;
  if (event.type === "focus" && !isDue) return;
  clearTimeout(timer);
  wait = every.poll;
  round();
}

// Keys: none while somebody types.

let leader = 0; // when g was pressed
let current = null; // the row that j and k went to
let place = 0; // which of all rows it was

// A message may be in two tables.
const nameOf = (row) => `${row.closest("[data-live]")?.id} ${row.dataset.queueId ?? row.dataset.row}`;

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
  place = Math.max(0, Math.min(rows.length - 1, at < 0 ? place : at + step));
  const row = rows[place];
  const target = row.querySelector("th a[href]") ?? row;
  current = nameOf(row);
  markCurrent(document);
  if (target === row) row.tabIndex = -1;
  target.focus();
  row.scrollIntoView({ block: "nearest" });
}

// To the search of this page, or to that of the messages.
function search() {
  const field = document.querySelector("[data-search], input[type=search]");
  if (!field) location.href = "/messages#sender";
  else if (!field.checkVisibility()) location.hash = field.id;
  field?.focus();
}

function choose() {
  const row = document.activeElement.closest("tr[data-queue-id]") ?? document.querySelector("tr[data-queue-id][aria-current=true]");
  if (row) boxOf(row)?.click();
}

const keys = {
  "/": search,
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

if (location.hash === "#sender") document.getElementById("sender")?.focus();
note(document);
addEventListener("pointermove", () => (moved = Date.now()), { passive: true });
dashboard.onShow(localise);
dashboard.onShow(writeChosen);
dashboard.onShow(markCurrent);
for (const start of parts) start(dashboard);
if (body.hasAttribute("data-watch")) {
  document.addEventListener("visibilitychange", (event) => document.hidden || awake(event));
  addEventListener("focus", awake);
  addEventListener("pageshow", (event) => event.persisted && awake(event));
  addEventListener("online", awake);
  round();
}
