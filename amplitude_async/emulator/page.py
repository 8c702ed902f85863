"""The page that shows a running emulator in a browser."""

__all__ = ["PAGE"]

# Everything that arrived goes through textContent: events are not to be trusted.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Amplitude emulator</title>
<link rel="icon" href="data:,">
<style>
:root {
  color-scheme: light dark;
  --text: light-dark(#1b1f24, #e4e7eb);
  --soft: light-dark(#5b6470, #98a2ae);
  --line: light-dark(#dfe3e8, #30363d);
  --back: light-dark(#fbfbfc, #14171b);
  --card: light-dark(#ffffff, #1b1f24);
  --good: light-dark(#14713d, #56c288);
  --bad: light-dark(#b3261e, #ff8a80);
}
body {
  margin: 0 auto; max-width: 72rem; padding: 1.5rem;
  color: var(--text); background: var(--back);
  font: 15px/1.5 system-ui, sans-serif;
}
header { display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap; }
h1 { font-size: 1.3rem; margin: 0; }
h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
#state { color: var(--soft); margin-right: auto; }
button {
  font: inherit; padding: .2rem .8rem; cursor: pointer; color: inherit;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px;
}
#counters {
  display: grid; gap: .75rem; margin: 1.25rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr));
}
#counters div {
  padding: .6rem .8rem; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card);
}
#counters b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
#counters span, td.soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--card); }
th, td {
  text-align: left; vertical-align: top; padding: .3rem .6rem;
  border: 1px solid var(--line);
}
td.code { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
td.good { color: var(--good); } td.bad { color: var(--bad); }
</style>
</head>
<body>
<header>
  <h1>Amplitude emulator</h1>
  <span id="state" role="status">connecting</span>
  <button id="reset" type="button">Reset</button>
</header>
<section id="counters" aria-label="Counters"></section>
<h2>Latest requests</h2>
<div class="wide"><table>
  <thead><tr><th>Time</th><th>Path</th><th>Status</th>
  <th>Events or batches</th>
  <th>Bytes</th><th>Fault or reason</th></tr></thead>
  <tbody id="requests"></tbody>
</table></div>
<h2>Latest events</h2>
<div class="wide"><table>
  <thead><tr><th>Time</th><th>Type</th><th>User</th><th>Device</th>
  <th>Properties</th></tr></thead>
  <tbody id="events"></tbody>
</table></div>
<h2>Latest mParticle batches</h2>
<div class="wide"><table>
  <thead><tr><th>Environment</th><th>User</th><th>Events</th>
  <th>Batch</th></tr></thead>
  <tbody id="batches"></tbody>
</table></div>
<script>
"use strict";
const byId = (id) => document.getElementById(id);
const make = (tag, text, style) => {
  const node = document.createElement(tag);
  node.textContent = text ?? "";
  if (style) node.className = style;
  return node;
};
const clock = (ms) => {
  const date = new Date(ms);
  return ms == null || isNaN(date) ? "" : date.toLocaleTimeString();
};
const fill = (id, rows) => {
  byId(id).replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells);
    return row;
  }));
};
const get = async (path) => (await fetch("/_emulator/" + path)).json();
const requestRow = (one) => [
  make("td", clock(one.received_at * 1000), "soft"),
  make("td", one.path, "code"),
  make("td", one.status || "dropped",
       one.status >= 200 && one.status < 300 ? "good" : "bad"),
  make("td", one.events + one.batches),
  make("td", one.body_bytes),
  make("td", [one.fault, one.note].filter(Boolean).join(": "), "soft"),
];
const propertiesOf = (event) => {
  const shown = {};
  for (const key of ["event_properties", "user_properties", "groups",
                     "group_properties"]) {
    if (event[key] && Object.keys(event[key]).length) shown[key] = event[key];
  }
  const names = Object.keys(shown);
  if (!names.length) return "";
  const only = names.length === 1 && names[0] === "event_properties";
  return JSON.stringify(only ? shown.event_properties : shown);
};
const eventRow = (one) => [
  make("td", clock(one.time), "soft"),
  make("td", one.event_type, "code"),
  make("td", one.user_id, "code"),
  make("td", one.device_id, "code"),
  make("td", one.not_shown ?? propertiesOf(one), "code"),
];
const batchRow = (one) => [
  make("td", one.environment, "soft"),
  make("td", JSON.stringify(one.user_identities ?? one.mpid) ?? "", "code"),
  make("td", (one.events ?? []).map((event) => event.event_type).join(", "), "code"),
  make("td", JSON.stringify(one), "code"),
];
const counters = (stats) => {
  const statuses = Object.entries(stats.by_status)
    .map(([status, count]) => (status === "0" ? "dropped" : status) + ": " + count);
  const shown = [
    ["events stored", stats.events_ingested], ["duplicates", stats.duplicates],
    ["events received", stats.events_received], ["requests", stats.requests],
    ["batches stored", stats.batches_ingested],
    ["batch duplicates", stats.batch_duplicates],
    ["bytes received", stats.bytes_received], ["faults fired", stats.faults_fired],
    ["connections dropped", stats.connections_dropped],
    ["no longer kept", stats.events_forgotten + stats.batches_forgotten
                       + stats.requests_forgotten],
  ].map(([name, value]) => [name, value.toLocaleString()]);
  shown.push(["answers", statuses.join(", ") || "none"]);
  byId("counters").replaceChildren(...shown.map(([name, value]) => {
    const card = document.createElement("div");
    card.append(make("b", value), make("span", name));
    return card;
  }));
};
const poll = async () => {
  try {
    const [stats, requests, events, batches] = await Promise.all(
      [get("stats"), get("requests?limit=20"), get("events?limit=50"),
       get("batches?limit=20")]);
    counters(stats);
    fill("requests", requests.requests.map(requestRow));
    fill("events", events.events.reverse().map(eventRow));
    fill("batches", batches.batches.reverse().map(batchRow));
    byId("state").textContent = "live";
  } catch (error) {
    byId("state").textContent = "not reachable";
  }
  setTimeout(poll, 1000);
};
byId("reset").addEventListener("click",
  () => fetch("/_emulator/reset", {
    method: "POST", body: "{}", headers: {"Content-Type": "application/json"},
  }).catch(() => {}));
poll();
</script>
</body>
</html>
"""
