"use strict";
// All text from events goes through textContent: nothing here builds HTML from strings.

const MAX_ROWS = 200;
const MAX_OVER = 12;
const MAX_WINDOWS = 2000;
const alerts = new Map();
const incidents = new Map();
const windows = new Map();
// What was asked for with a button, and what became of it: cards are made anew with every change.
const asked = new Map();
// While a button is pressed nothing is drawn: the click would be lost with it.
let isPressed = false;
// Whether the reader has chosen a view, or looks for something in one: then no alert changes it under their eyes.
let isChosen = false;
const byId = (id) => document.getElementById(id);
// A link from a message names the time that matters: ?from=...&to=...#incident-...
const query = new URLSearchParams(location.search);
const range = ["from", "to"].map((name) => Date.parse(query.get(name) ?? ""));
const hasRange = range.every(Number.isFinite);
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 4 });
const large = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 4 });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}
function shown(value, isBytes) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return isBytes ? bytes(value) : digits(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
function digits(value) {
  if (Math.abs(value) >= 1e6) return large.format(value);
  return Number.isInteger(value) || Math.abs(value) >= 1e4 ? whole.format(Math.round(value)) : short.format(value);
}
function bytes(value) {
  const unit = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log2(Math.abs(value) || 1) / 10)));
  return `${short.format(value / 1024 ** unit)} ${UNITS[unit]}`;
}
// A record has no units: the names of OpenTelemetry's metrics and of columns tell what counts bytes.
function countsBytes(column, metric) {
  if (/(^|_)bytes$/.test(column)) return true;
  const isSize = /(memory|filesystem|heap)/.test(metric) && !/(utilization|fault|inodes|objects|duration|count)/.test(metric);
  return isSize && ["value", "peak", "least", "low", "limit"].includes(column);
}
// Exact numbers stay within reach of the pointer.
function cell(tag, column, value, metric) {
  const made = element(tag, "number", shown(value, countsBytes(column, String(metric ?? ""))));
  if (typeof value === "number") made.title = String(value);
  else if (value !== null && value !== undefined) made.title = made.textContent;
  return made;
}
function time(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? String(text) : clock.format(at);
}
function since(text) {
  const minutes = Math.max(0, Math.round((Date.now() - new Date(text)) / 60000));
  if (minutes < 60) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} days`;
}
// Whether any of the time from one to the other was asked for; a time that is not known yet has no end.
function isAskedFor(from, to) {
  return !hasRange || (Date.parse(from) <= range[1] && (!to || Date.parse(to) >= range[0]));
}
function fires(severity) {
  const count = Math.min(5, Math.max(1, severity || 1));
  return sign("🔥".repeat(count), `severity ${count} of 5`);
}
function over() {
  return sign("✅", "over");
}
// A picture for the eye, its meaning for screen readers and for the pointer.
function sign(picture, meaning) {
  const made = element("span", "fires");
  const seen = element("span", "", picture);
  seen.setAttribute("aria-hidden", "true");
  made.append(seen, element("span", "unseen", meaning));
  made.title = meaning;
  return made;
}
function values(pairs, metric) {
  const list = element("dl");
  for (const [name, value] of pairs) {
    const pair = element("div");
    pair.append(element("dt", "", name), cell("dd", name.replace("$", ""), value, metric));
    list.append(pair);
  }
  return list;
}

// A button that sends a command once, and then says what became of it. `key` finds it again when its card is made anew.
function button(key, text, done, request) {
  const made = element("button", "", asked.get(key) ?? text);
  made.type = "button";
  made.dataset.key = key;
  made.disabled = asked.has(key);
  made.addEventListener("click", async () => {
    asked.set(key, "…");
    drawSoon();
    try {
      const [path, body] = request();
      const response = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
      if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error ?? `refused (${response.status})`);
      asked.set(key, done);
    } catch (error) {
      asked.set(key, `not done: ${error.message}`);
    }
    // What was not done can be asked for again.
    if (asked.get(key) !== done) setTimeout(() => { asked.delete(key); drawSoon(); }, 8000);
    drawSoon();
  });
  return made;
}
// From the alert's own window on, by event time, which is what silences go by; until an hour from now.
function silence(alert) {
  const matcher = { rule: exactly(alert.rule) };
  if (alert.service !== null && alert.service !== undefined) matcher.service = exactly(alert.service);
  const until = new Date(Math.max(Date.now(), new Date(alert.window_end)) + 3600000).toISOString();
  return ["/api/silences", { matcher, from: alert.window_end, until, reason: `from the page: ${alert.summary}`.slice(0, 300) }];
}
// In a matcher `!` and `~` have a meaning at the beginning.
function exactly(value) {
  return /^[!~]/.test(value) ? `~${value.replace(/[\\^$.*+?()[\]{}|#&~-]/g, "\\$&")}` : value;
}

function alertCard(alert) {
  const firing = alert.status === "firing";
  const card = element("li", firing ? "firing" : "over");
  const head = element("div", "head");
  head.append(firing ? fires(alert.severity) : over());
  head.append(element("span", "service", alert.service ?? "no service"), element("span", "rule", alert.rule));
  card.append(head, element("p", "summary", alert.summary));
  const keys = Object.entries(alert.key).filter(([name]) => name !== "service");
  if (keys.length) card.append(element("p", "keys", keys.map(([name, value]) => `${name} ${shown(value)}`).join(" · ")));
  card.append(element("p", "times", firing ? `since ${time(alert.window_start)} (${since(alert.window_start)})` : `resolved ${time(alert.window_end)}`));
  const limits = Object.entries(alert.params).map(([name, value]) => [`$${name}`, value]);
  card.append(values([...Object.entries(alert.values), ...limits], alert.key.name));
  if (firing) card.append(button(`silence ${alert.alert_id}`, "Silence 1 h", "silenced for 1 h", () => silence(alert)));
  return card;
}
function incidentCard(incident) {
  const open = incident.status === "open";
  const card = element("li", open ? "firing" : "over");
  card.id = `incident-${incident.incident_id}`;
  const head = element("div", "head");
  head.append(open ? fires(incident.severity) : over(), element("span", "service", incident.services.join(", ") || "no service"));
  card.append(head, element("p", "summary", incident.title));
  const times = open ? `since ${time(incident.opened_at)} (${since(incident.opened_at)})` : `${time(incident.opened_at)} to ${time(incident.resolved_at)}`;
  card.append(element("p", "times", times));
  if (incident.acknowledged_by) card.append(element("p", "times", `taken by ${incident.acknowledged_by}`));
  const story = element("ol");
  for (const entry of incident.timeline.slice(-6)) {
    const line = element("li");
    line.append(element("time", "", time(entry.at)), entry.text);
    story.append(line);
  }
  card.append(story);
  const path = `/api/incidents/${encodeURIComponent(incident.incident_id)}/acknowledge`;
  if (open && !incident.acknowledged_by) card.append(button(`take ${incident.incident_id}`, "Take it", "taken", () => [path, { by: "dashboard" }]));
  return card;
}
function cards(list, records, isLive, at, make, isWanted) {
  const sorted = [...records.values()].filter(isWanted).sort((a, b) => isLive(b) - isLive(a) || (b.severity - a.severity) * isLive(a) || at(b).localeCompare(at(a)));
  const live = sorted.filter(isLive);
  list.replaceChildren(...live.slice(0, MAX_ROWS).concat(sorted.filter((record) => !isLive(record)).slice(0, MAX_OVER)).map(make));
  return live.length;
}

// What fires, else what fired last: that is what somebody who opens the page wants to see.
function viewOfLatestAlert(views) {
  const rank = (alert) => `${alert.status === "firing" ? 1 : 0}${alert.fired_at}`;
  const known = [...alerts.values()].filter((alert) => views.includes(alert.evidence.view));
  return known.sort((a, b) => rank(b).localeCompare(rank(a)))[0]?.evidence.view;
}
function drawWindows() {
  const views = [...new Set([...windows.values()].map((window) => window.view))].sort();
  const select = byId("view");
  if ([...select.options].map((option) => option.value).join("\n") !== views.join("\n")) {
    const before = select.value;
    select.replaceChildren(...views.map((view) => new Option(view, view)));
    if (views.includes(before)) select.value = before;
  }
  if (!isChosen) select.value = viewOfLatestAlert(views) ?? select.value;
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (window) => {
    const text = JSON.stringify(window.key).toLowerCase();
    const isWanted = isAskedFor(window.window_start, window.window_end);
    return isWanted && window.view === select.value && words.every((word) => text.includes(word));
  };
  const rows = [...windows.values()].filter(fits).sort((a, b) => b.window_end.localeCompare(a.window_end));
  const found = new Set(rows.flatMap((window) => Object.keys(window.key)));
  const keyNames = [...found].sort((a, b) => (b === "service") - (a === "service"));
  const valueNames = [...new Set(rows.flatMap((window) => Object.keys(window.values)))];
  const head = element("tr");
  head.append(element("th", "", "window end"), ...keyNames.map((name) => element("th", "", name)), ...valueNames.map((name) => element("th", "number", name)));
  byId("window-head").replaceChildren(head);
  byId("window-rows").replaceChildren(...rows.slice(0, MAX_ROWS).map((window) => {
    const row = element("tr");
    row.append(element("td", "", time(window.window_end)), ...keyNames.map((name) => element("td", "", shown(window.key[name]))));
    row.append(...valueNames.map((name) => cell("td", name, window.values[name], window.key.name)));
    return row;
  }));
  byId("window-count").textContent = windows.size;
  byId("window-more").textContent = rows.length > MAX_ROWS ? `and ${rows.length - MAX_ROWS} more groups` : "";
}
function draw() {
  const focused = document.activeElement?.dataset?.key;
  const firing = cards(byId("alerts"), alerts, (alert) => alert.status === "firing", (alert) => alert.window_end, alertCard,
    (alert) => isAskedFor(alert.window_start, alert.status === "firing" ? null : alert.window_end));
  const open = cards(byId("incidents"), incidents, (incident) => incident.status === "open", (incident) => incident.opened_at, incidentCard,
    (incident) => isAskedFor(incident.opened_at, incident.resolved_at));
  byId("alert-count").textContent = firing;
  byId("incident-count").textContent = open;
  byId("calm").hidden = firing > 0 || hasRange;
  document.title = firing ? `(${firing}) Bongsu` : "Bongsu";
  drawWindows();
  if (focused) [...document.querySelectorAll("button")].find((made) => made.dataset.key === focused)?.focus();
  showAsked();
}
// Cards are made after the browser has looked for the one that the address names.
let isShown = false;
function showAsked() {
  const card = location.hash.startsWith("#incident-") && byId(location.hash.slice(1));
  if (!card) return;
  card.classList.add("asked");
  if (!isShown) card.scrollIntoView({ block: "center" });
  isShown = true;
}
let drawing = false;
function drawSoon() {
  if (drawing || isPressed) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; if (!isPressed) draw(); });
}
function bound(map, limit, at) {
  if (map.size <= limit) return;
  const oldest = [...map].sort(([, a], [, b]) => at(a).localeCompare(at(b))).slice(0, map.size - limit);
  for (const [key] of oldest) map.delete(key);
}
function take(change) {
  for (const alert of change.alerts) alerts.set(alert.alert_id, alert);
  for (const incident of change.incidents) incidents.set(incident.incident_id, incident);
  for (const window of change.windows) windows.set(`${window.view} ${JSON.stringify(window.key)}`, window);
  bound(windows, MAX_WINDOWS, (window) => window.window_end);
  bound(alerts, 1000, (alert) => `${alert.status === "firing" ? 1 : 0}${alert.window_end}`);
  bound(incidents, 400, (incident) => `${incident.status === "open" ? 1 : 0}${incident.opened_at}`);
  drawSoon();
}
function connection(state, text) {
  byId("connection").className = state;
  byId("connection").textContent = text;
}

const stream = new EventSource("/api/stream");
stream.addEventListener("snapshot", (event) => {
  for (const map of [alerts, incidents, windows, asked]) map.clear();
  take(JSON.parse(event.data));
  connection("live", "live");
});
stream.addEventListener("update", (event) => take(JSON.parse(event.data)));
stream.addEventListener("error", () => {
  connection("lost", "connection lost, trying again");
  if (stream.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
});
for (const [id, event] of [["view", "change"], ["find", "input"]]) {
  byId(id).addEventListener(event, () => { isChosen = true; drawSoon(); });
}
document.addEventListener("pointerdown", (event) => { isPressed = event.target instanceof HTMLButtonElement; });
for (const event of ["pointerup", "pointercancel"]) {
  // After the click, which comes next.
  document.addEventListener(event, () => setTimeout(() => { isPressed = false; drawSoon(); }));
}
if (hasRange) {
  byId("range-text").textContent = `From ${time(range[0])} to ${time(range[1])}.`;
  byId("range").hidden = false;
}
setInterval(drawSoon, 30000);
