// The page: what is shown, where it is in the address, and what keys do.

import { get, post } from "./api.js";
import { Detail } from "./detail.js";
import { brief, byId, count, make, visible } from "./dom.js";
import { Faults } from "./faults.js";
import { Feed } from "./feed.js";
import { Requests } from "./requests.js";
import { Stream } from "./stream.js";
import { Types } from "./types.js";
import { Users } from "./users.js";
import { placeholder, welcome, welcomeBatches } from "./welcome.js";

const url = location.origin;
const VIEWS = [
  ["stream", "Stream"], ["users", "Users"], ["types", "Types"], ["requests", "Requests"],
  ["mparticle", "mParticle"], ["faults", "Faults"],
];
const HINTS = {
  stream: "user:ann rejected total:9.5", mparticle: "user:ann rejected",
  users: "Find a user", types: "Find a type or a property", requests: "Find by path, status or note",
  faults: "Nothing to filter here",
};
const EXAMPLES = [
  ["user:user-1", "whose"], ["type:Pa*", "which, * for any"], ["rejected", "or stored, duplicate, dropped"],
  ["total:9.5", "a property"], ["-type:$identify", "not these"], ["request:4", "in one request"],
  ["group:Acme", "of a group"], ["is:local", "told by a client"],
];
const TYPED_AFTER = 150;
const REFRESH_EVERY = 1000;
const STATS_EVERY = 200;
const DRAW_AFTER = 300;
const TIME_GOES_ON = 1000;
const UNDO_FOR = 60_000;
const SAID_FOR = 4000;

// --- what is said for a moment

let toastTimer = 0;

const hush = () => {
  clearTimeout(toastTimer);
  byId("toast").replaceChildren();
};

const say = (text, action, duration = SAID_FOR) => {
  clearTimeout(toastTimer);
  const close = make("button", { class: "plain", type: "button", "aria-label": "Dismiss", onclick: hush }, "✕");
  byId("toast").replaceChildren(make("span", {}, brief(text, 300)), ...(action ? [action] : []), close);
  toastTimer = setTimeout(hush, duration);
};

// --- the address: #/stream?q=FILTER&open=entry:17

const read = () => {
  const [, name = "stream", query = ""] = /^#\/(\w+)(?:\?(.*))?$/s.exec(location.hash) ?? [];
  const values = new URLSearchParams(query);
  const view = VIEWS.some(([one]) => one === name) ? name : "stream";
  return { view, q: values.get("q") ?? "", open: values.get("open") ?? "" };
};

const write = ({ view, q, open }) => {
  const values = new URLSearchParams(Object.entries({ q, open }).filter(([, value]) => value));
  return `#/${view}${values.size ? "?" + values : ""}`;
};

let place = { view: "", q: "", open: "" };
const lastQuery = {};

const go = (change, replace = false) => {
  const next = { ...read(), ...change };
  history[replace ? "replaceState" : "pushState"](null, "", write(next));
  arrive();
};

// One that is open already is replaced: back closes, however many were looked at.
const open = (what) => go({ open: what }, Boolean(place.open) && !/^(mparticle-)?user:/.test(what));
const keyOf = (what) => what.slice(what.indexOf(":") + 1);
// The key of a row is what it opens; those of users tell the vendor too.
const rowOf = (view, what) => (view === "users" ? what : keyOf(what));

const close = () => {
  const view = lists[place.view];
  go({ open: "" });
  view?.element.focus({ preventScroll: true });
};

// --- the parts

const empty = welcome(url, say);
const emptyBatches = welcomeBatches(url);
const stream = new Stream(byId("view-stream"), { label: "Events", name: "stream", open, empty, changed: (number) => tellPaused(number) });
const users = new Users(byId("view-users"), open);
const types = new Types(byId("view-types"), open);
const requests = new Requests(byId("view-requests"), open);
const faults = new Faults(byId("view-faults"), byId("fault-menu"), {
  say,
  changed: (number) => {
    byId("armed").textContent = number ? String(number) : "";
    byId("armed").hidden = !number;
    byId("fault-button").setAttribute("aria-label", number ? `Faults, ${number} armed` : "Faults");
  },
});
const detail = new Detail(byId("detail"), {
  url: () => url, placeholder: placeholder(url), close,
  find: (kind, key) => (kind === "type" ? types : requests).find(key),
});
const lists = { stream: stream.list, mparticle: stream.list, users: users.list, types: types.list, requests: requests.list };

const shows = {
  stream: (q) => { stream.base = ""; return stream.show(q, newest); },
  mparticle: (q) => { stream.base = "vendor:mparticle"; return stream.show(q, newest); },
  users: (q, anew) => users.show(q, anew),
  types: (q, anew) => types.show(q, anew),
  requests: (q, anew) => (anew ? requests.show(q) : undefined),
  faults: () => undefined,
};

const show = async (view, q, anew = true) => {
  try {
    await shows[view](q, anew);
  } catch (error) {
    say(error.message);
  }
};

// --- arriving at an address

const links = VIEWS.map(([name, title], at) =>
  make("a", { href: `#/${name}`, "data-view": name, title: `${title} (${at + 1})` }, title));
byId("views").append(...links);
for (const one of links) {
  one.addEventListener("click", (event) => {
    event.preventDefault();
    go({ view: one.dataset.view, q: lastQuery[one.dataset.view] ?? "", open: "" });
  });
}

const query = byId("query");

function arrive() {
  const next = read();
  const moved = next.view !== place.view;
  const filtered = moved || next.q !== place.q;
  place = next;
  lastQuery[next.view] = next.q;
  if (moved) {
    const section = next.view === "mparticle" ? "stream" : next.view;
    for (const [name] of VIEWS) {
      const element = byId(`view-${name}`);
      if (element) element.hidden = name !== section;
    }
    for (const one of links) {
      if (one.dataset.view === next.view) {
        one.setAttribute("aria-current", "page");
        one.scrollIntoView({ block: "nearest", inline: "nearest" });
      } else {
        one.removeAttribute("aria-current");
      }
    }
    query.placeholder = HINTS[next.view];
    query.disabled = next.view === "faults";
    byId("main").dataset.view = next.view;
    byId("grammar").hidden = !["stream", "mparticle"].includes(next.view);
    document.title = `${VIEWS.find(([name]) => name === next.view)[1]} · Amplitude emulator`;
    stream.empty.remove();
    stream.empty = next.view === "mparticle" ? emptyBatches : empty;
    stream.empty.hidden = true;
    byId("view-stream").append(stream.empty);
  }
  if (query.value !== next.q && (document.activeElement !== query || moved)) query.value = next.q;
  const shown = filtered && started ? show(next.view, next.q) : Promise.resolve();
  if (next.open) void detail.show(next.open);
  else if (detail.shown) detail.hide();
  void shown.then(() => {
    if (next.open && place === next) lists[next.view]?.chooseKey(rowOf(next.view, next.open));
  });
  if (next.open.startsWith("user:")) faults.about(keyOf(next.open));
}

addEventListener("popstate", arrive);
addEventListener("hashchange", arrive);

let typing = 0;
query.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => go({ q: query.value.trim() }, true), TYPED_AFTER);
});
query.addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    clearTimeout(typing);
    go({ q: query.value.trim() }, true);
    lists[place.view]?.element.focus();
  }
});
byId("examples").append(...EXAMPLES.map(([text, meaning]) =>
  make("button", { type: "button", onclick: () => {
    query.value = [query.value.trim(), text].filter(Boolean).join(" ");
    go({ q: query.value }, true);
    query.focus();
  } }, make("code", {}, text), make("span", {}, meaning))));

// --- what comes in

const sum = (stats, ...names) => names.reduce((total, name) => total + (stats[name] ?? 0), 0);
const COUNTERS = [
  ["stored", "stored", (stats) => sum(stats, "events_ingested", "batches_ingested")],
  ["rejected", "rejected", (stats) => sum(stats, "events_rejected", "batches_rejected", "local_rejected")],
  ["duplicate", "duplicate", (stats) => sum(stats, "duplicates", "batch_duplicates")],
  ["dropped", "dropped", (stats) => sum(stats, "local_dropped")],
];
const counters = COUNTERS.map(([filter, title, value]) => {
  const number = make("b", {}, "0");
  const button = make("button", { type: "button", class: `counter ${filter}`, title: `Show what is ${filter}`, hidden: filter === "dropped",
    onclick: () => go({ view: "stream", q: filter, open: "" }) }, number, " ", make("span", {}, title));
  return { button, number, value, title };
});
const requestNumber = make("b", {}, "0");
byId("counters").append(...counters.map((one) => one.button),
  make("button", { type: "button", class: "counter", title: "Show the requests",
    onclick: () => go({ view: "requests", open: "" }) }, requestNumber, " ", make("span", {}, "requests")));

let stats = {};
let statsFrame = 0;
const tellStats = () => {
  statsFrame = 0;
  for (const { button, number, value, title } of counters) {
    const now = value(stats);
    number.textContent = count(now);
    if (title === "duplicate") button.lastElementChild.textContent = now === 1 ? title : `${title}s`;
    button.classList.toggle("some", now > 0);
    // Only clients drop events, and few tell of them.
    if (title === "dropped") button.hidden = !now;
  }
  requestNumber.textContent = count(stats.requests ?? 0);
  requestNumber.nextElementSibling.textContent = stats.requests === 1 ? "request" : "requests";
};

let newest = 0;
let oldest = 0;
let begun = "";
let started = false;
let refresh = 0;
// Lists of sums follow at a distance, and only while they are looked at.
const refreshSoon = () => {
  if (refresh || !["users", "types"].includes(place.view) || paused) return;
  refresh = setTimeout(async () => {
    refresh = 0;
    if (["users", "types"].includes(place.view)) await show(place.view, place.q, false);
  }, REFRESH_EVERY);
};

// Charts follow closer, and go on with the time: what they ask for is small.
let drawing = 0;
const drawSoon = (after = 0) => {
  const seen = () => (paused ? [] : [types.chart, detail.chart].filter((one) => one?.isSeen));
  if (drawing || !started || !seen().length) return;
  drawing = setTimeout(async () => {
    await Promise.all(seen().map((one) => one.refresh())).finally(() => { drawing = 0; });
  }, after);
};
setInterval(drawSoon, TIME_GOES_ON);

const inStream = () => place.view === "stream" || place.view === "mparticle";

const reload = () => show(place.view, place.q);

let undone = "";
const offerUndo = (token) => {
  if (!token || token === undone) return;
  undone = token;
  const undo = make("button", { type: "button", onclick: async () => {
    hush();
    await post("undo", { undo: token }).catch((error) => say(error.message));
  } }, "Undo");
  say("Cleared.", undo, UNDO_FOR);
};

const live = byId("live");
const tellLive = (state, text) => {
  if (live.dataset.state === state) return;
  live.dataset.state = state;
  live.textContent = text;
};

const feed = new Feed({
  state: (state) => (state === "live" ? tellLive("live", "live") : tellLive("away", "not reachable")),
  hello: (hello) => {
    stats = hello.stats;
    tellStats();
    faults.show(hello.faults);
    const known = begun;
    begun = hello.start;
    if ((known && known !== begun) || hello.newest < newest) {
      // It is another one, which counts from 1 again.
      newest = hello.newest;
      void reload();
      feed.open(newest);
    } else if (known && hello.oldest !== oldest) {
      // Cleared, or brought back, while nobody listened.
      void reload();
    }
    oldest = hello.oldest;
  },
  entries: (entries) => {
    newest = Math.max(newest, entries.at(-1)?.n ?? 0);
    oldest ||= entries[0]?.n ?? 0;
    if (inStream()) stream.add(entries);
    refreshSoon();
    drawSoon(DRAW_AFTER);
  },
  skipped: ({ from, to }) => {
    newest = Math.max(newest, to);
    oldest ||= from;
    if (inStream()) stream.skip(from, to);
  },
  stats: (now) => {
    stats = now;
    statsFrame ||= setTimeout(tellStats, STATS_EVERY);
  },
  faults: (now) => faults.show(now),
  requests: (rows) => {
    if (place.view === "requests" && !paused) requests.add(rows);
  },
  cleared: ({ before, undo }) => {
    oldest = 0;
    stream.clear(before);
    if (!inStream()) void reload();
    offerUndo(undo);
  },
  restored: (now) => {
    oldest = now.oldest;
    say("Brought back.");
    void reload();
  },
});

// A browser opens six connections to one address, and the feed keeps one of them: a tab
// that nobody sees lets go of it.
const listen = () => {
  if (!started) return;
  if (document.hidden) feed.close();
  else feed.open(newest);
};
document.addEventListener("visibilitychange", listen);

// --- buttons

let paused = false;
const pause = byId("pause");
const tellPaused = (number = stream.waiting) => {
  pause.textContent = paused ? (number ? `Resume · ${count(number)}` : "Resume") : "Pause";
};
const setPaused = (now) => {
  paused = now;
  pause.setAttribute("aria-pressed", String(now));
  if (now) stream.hold("pause");
  else stream.release("pause");
  tellPaused();
  if (!now && !inStream()) void reload();
};
pause.addEventListener("click", () => setPaused(!paused));

byId("clear").addEventListener("click", async () => {
  try {
    const { undo } = await post("clear");
    offerUndo(undo);
  } catch (error) {
    say(error.message);
  }
});

const THEMES = [["", "◐", "of the system"], ["light", "☀", "light"], ["dark", "☾", "dark"]];
const theme = byId("theme");
const tellTheme = () => {
  const [, sign, name] = THEMES.find(([one]) => one === (document.documentElement.dataset.theme ?? ""));
  theme.textContent = sign;
  theme.setAttribute("aria-label", `Colours: ${name}`);
  theme.title = `Colours: ${name}`;
};
theme.addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "";
  const at = THEMES.findIndex(([one]) => one === now);
  const [next] = THEMES[(at + 1) % THEMES.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("emulator-colours", next);
  } catch {
    // It holds as long as the page is open.
  }
  tellTheme();
});
tellTheme();

const help = byId("help");
byId("keys").addEventListener("click", () => help.showModal());
byId("help-close").addEventListener("click", () => help.close());

byId("detail").addEventListener("click", (event) => {
  const throttle = event.target.closest("[data-throttle]");
  if (throttle) void faults.throttle(throttle.dataset.throttle);
  const anchor = event.target.closest("[data-open]");
  if (anchor && !event.metaKey && !event.ctrlKey) {
    event.preventDefault();
    if (!String(getSelection())) go({ open: anchor.dataset.open });
  }
});

byId("fault-menu").addEventListener("beforetoggle", () => {
  const user = detail.shown?.startsWith("user:")
    ? keyOf(detail.shown) : byId("detail").querySelector("[data-user]")?.dataset.user;
  if (user) faults.about(user);
});

// --- keys

const move = (step) => {
  const list = lists[place.view];
  if (!list?.move(step)) return;
  if (document.activeElement !== list.element) list.element.focus({ preventScroll: true });
  if (place.open) list.openCurrent();
};

const KEYS = {
  "/": () => { query.focus(); query.select(); },
  j: () => move(1),
  k: () => move(-1),
  Enter: () => lists[place.view]?.openCurrent(),
  g: () => stream.toNewest(),
  p: () => setPaused(!paused),
  "?": () => help.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || help.open) return;
  const { target } = event;
  if (event.key === "Escape") {
    if (target === query) query.blur();
    else if (place.open && !byId("fault-menu").matches(":popover-open")) close();
    return;
  }
  if (target.matches?.("input, textarea, select")) return;
  if (event.key === "Enter" && target !== document.body) return;
  const view = VIEWS[Number(event.key) - 1];
  if (view) go({ view: view[0], q: lastQuery[view[0]] ?? "", open: "" });
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
});

// --- start

const start = async () => {
  arrive();
  try {
    const { entries } = await get("entries", { limit: 1 });
    newest = entries[0]?.n ?? 0;
  } catch (error) {
    tellLive("away", "not reachable");
    say(visible(error.message));
  }
  started = true;
  listen();
  await show(place.view, place.q);
  if (place.open) lists[place.view]?.chooseKey(rowOf(place.view, place.open));
};

void start();
