// The stream: newest on top, rows put in and taken out, never made again.

import { get } from "./api.js";
import { brief, clock, colourOf, count, make, visible } from "./dom.js";
import { filterOf } from "./filter.js";
import { List } from "./list.js";

const MOST_ROWS = 300;
// In a flood every row moves with each frame, and painting them is most of the work;
// those further down are loaded again by whoever scrolls there.
const ROWS_IN_FLOOD = 80;
// What waits while rows go in at once; the rest of a flood becomes a gap to open.
const MOST_WAITING = 150;
const ROWS_A_FRAME = 24;
const FEWEST_ROWS = 4;
// Milliseconds for a frame of rows, layout and painting included; one that takes longer
// is followed by a rest, and by fewer rows.
const FRAME_BUDGET = 14;
const REST = 3;
const LONGEST_REST = 400;
const PAGE = 100;
const ASK_SERVER_EVERY = 300;
const STATE_NAMES = { stored: "stored", duplicate: "duplicate", rejected: "rejected", dropped: "dropped" };

const property = ([name, value]) =>
  make("span", { class: "pair" }, make("bdi", { class: "key" }, brief(name, 40)), " ", make("bdi", {}, brief(value, 60)));

// Of a sale the amount comes first.
const pairsOf = ({ kind, preview }) => {
  const pairs = (preview ?? []).slice(0, 3);
  const amount = kind === "revenue" ? pairs.filter(([name]) => name === "$revenue") : [];
  return [...amount, ...pairs.filter((pair) => !amount.includes(pair))];
};

export const stateOf = (entry) =>
  make("span", { class: `state ${STATE_NAMES[entry.state] ?? "dropped"}` }, visible(entry.state));

/** The cells of one entry. */
export const cellsOf = (entry) => [
  make("span", { class: "time" }, clock(entry.at)),
  make("span", { class: "type", "data-colour": colourOf(entry.name ?? "") },
    make("bdi", {}, brief(entry.name || "(no name)", 80))),
  make("span", { class: whoOf(entry) ? "user" : "user nobody" }, make("bdi", {}, brief(whoOf(entry), 60))),
  make("span", { class: "pairs" }, ...pairsOf(entry).map(property)),
  make("span", { class: "states" },
    entry.local && make("span", { class: "state local", title: "Told by the client itself" }, "local"),
    stateOf(entry)),
  entry.reason && entry.state !== "stored"
    ? make("span", { class: "reason" }, brief(entry.reason, 300)) : null,
].map((cell) => cell || null);

const whoOf = (entry) => {
  if (entry.user) return entry.user;
  if (entry.device) return entry.device;
  const [kind, name] = Object.entries(entry.groups ?? {})[0] ?? [];
  return kind ? `${kind} ${[name].flat().join(", ")}` : "";
};

/** Rows of entries that fit a filter, kept up to date. */
export class Stream {
  #filter = filterOf("");
  #waiting = [];
  #newest = 0;
  #newestSeen = 0;
  #oldest = Infinity;
  #more = false;
  #frame = 0;
  #held = new Set();
  #load = 0;
  #asking = 0;
  #told = "";
  #rows = ROWS_A_FRAME;
  #restUntil = 0;
  #painted = new MessageChannel();

  constructor(root, { base = "", label, name, open, empty, changed }) {
    this.base = base;
    this.changed = changed;
    this.#painted.port1.onmessage = (event) => this.#pace(event.data);
    this.list = new List(name, label, (key, row) =>
      key.startsWith("gap") ? this.#openGap(row) : open(`entry:${key}`));
    this.news = make("button", { class: "news", type: "button", hidden: true, onclick: () => this.toNewest() });
    this.older = make("button", { class: "older", type: "button", hidden: true, onclick: () => this.loadOlder() }, "Load older");
    this.none = make("p", { class: "none", hidden: true });
    this.forgotten = make("p", { class: "note" });
    this.empty = empty;
    this.scroller = make("div", { class: "scroller" }, this.list.element, this.none, this.older, this.forgotten);
    root.append(this.news, this.scroller, ...(empty ? [empty] : []));
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.list.element.addEventListener("pointerdown", () => this.hold("pointer"));
    for (const name of ["pointerup", "pointercancel"]) {
      addEventListener(name, () => this.release("pointer"));
    }
    document.addEventListener("selectionchange", () => this.#selected());
  }

  get filter() {
    return this.#filter.text;
  }

  /** Rows wait outside while anything holds them. */
  hold(why) {
    this.#held.add(why);
  }

  release(why) {
    if (this.#held.delete(why)) this.#soon();
  }

  get waiting() {
    return this.#waiting.reduce((sum, one) => sum + 1 + one.skipped, 0);
  }

  /** Show what fits another filter. */
  async show(text, newest = this.#newestSeen) {
    this.#filter = filterOf([this.base, text].filter(Boolean).join(" "));
    this.shown = text.trim();
    this.#newestSeen = newest;
    const load = ++this.#load;
    this.hold("load");
    this.#waiting = [];
    let found;
    try {
      found = await get("entries", { before: newest + 1, limit: PAGE, q: this.#filter.text });
    } catch (error) {
      found = { entries: [], oldest: 0, searched_to: 0, error: visible(error.message) };
    }
    if (load !== this.#load) return;
    const rows = found.entries.map((entry) => this.#row(entry));
    this.list.element.replaceChildren(...rows);
    this.list.choose(null);
    this.#newest = Math.max(newest, found.entries[0]?.n ?? 0);
    this.error = found.error;
    this.#reached(found);
    this.scroller.scrollTop = 0;
    this.#held.delete("scroll");
    this.#held.delete("trimmed");
    this.release("load");
    this.#soon();
    this.#showEmpty();
  }

  /** Take new entries, oldest first. */
  add(entries) {
    if (!entries.length) return;
    this.#newestSeen = Math.max(this.#newestSeen, entries.at(-1).n);
    if (this.#filter.deep) {
      this.#askServer();
      return;
    }
    for (const entry of entries) {
      if (entry.n > this.#newest && this.#filter.test(entry)) {
        this.#waiting.push({ entry, skipped: 0, from: entry.n });
      }
    }
    this.#bound();
    this.#soon();
  }

  /** The server has skipped entries, since there were too many at once. */
  skip(from, to) {
    this.#newestSeen = Math.max(this.#newestSeen, to);
    if (this.#filter.deep) return this.#askServer();
    const number = to - from + 1;
    this.#waiting.push({ entry: null, n: to, skipped: number - 1, from });
    this.#bound();
    return this.#soon();
  }

  /** Forget what came up to an entry; an open detail stays. */
  clear(before) {
    this.#waiting = this.#waiting.filter((one) => (one.entry?.n ?? one.n) >= before);
    for (const row of [...this.list.element.children]) {
      if (Number(row.dataset.n) < before) row.remove();
    }
    this.#more = false;
    this.#tidy();
  }

  toNewest() {
    if (this.#held.has("trimmed")) return void this.show(this.shown ?? "");
    this.scroller.scrollTop = 0;
    this.#held.delete("scroll");
    this.#held.delete("selection");
    this.#soon();
  }

  async loadOlder() {
    if (this.#held.has("older")) return;
    this.hold("older");
    this.older.disabled = true;
    try {
      const found = await get("entries", { before: this.#oldest, limit: PAGE, q: this.#filter.text });
      // The chosen row outlives those around it; here it would stand before newer ones.
      const last = this.list.element.lastElementChild;
      if (last && Number(last.dataset.n) < this.#oldest - 1) last.remove();
      this.list.element.append(...found.entries.map((entry) => this.#row(entry)));
      if (last && !last.isConnected) this.list.chooseKey(last.dataset.key);
      this.#reached(found);
      // What is read is at the bottom now, so that the top makes room.
      let over = this.list.element.childElementCount - MOST_ROWS;
      if (over > 0) this.hold("trimmed");
      for (; over > 0; over--) this.list.element.firstElementChild.remove();
    } catch {
      // The button is there to be pressed again.
    }
    this.older.disabled = false;
    this.release("older");
    this.#tell();
  }

  #row(entry) {
    const row = this.list.row(String(entry.n), ...cellsOf(entry).filter(Boolean));
    row.dataset.n = entry.n;
    if (entry.state !== "stored") row.classList.add(`is-${STATE_NAMES[entry.state] ?? "dropped"}`);
    return row;
  }

  #gap(from, to, number) {
    const row = this.list.row(`gap-${to}`, make("span", {}, `${count(number)} more went by. Open them`));
    row.classList.add("gap");
    Object.assign(row.dataset, { n: to, from, number });
    return row;
  }

  async #openGap(row) {
    const from = Number(row.dataset.from);
    const found = await get("entries", {
      before: Number(row.dataset.n) + 1, limit: PAGE, q: this.#filter.text,
    }).catch(() => null);
    if (!found || !row.isConnected) return;
    const entries = found.entries.filter((entry) => entry.n >= from);
    const rows = entries.map((entry) => this.#row(entry));
    row.before(...rows);
    const reached = entries.at(-1)?.n ?? from;
    if (entries.length === PAGE && reached > from) {
      row.replaceWith(this.#gap(from, reached - 1, Math.max(1, row.dataset.number - entries.length)));
    } else {
      row.remove();
    }
    if (rows[0]) this.list.choose(rows[0]);
  }

  #reached(found) {
    this.#oldest = Number(found.searched_to ?? found.entries.at(-1)?.n ?? 0);
    // Where nothing is kept, the oldest is 0.
    this.#more = found.oldest > 0 && this.#oldest > found.oldest;
    this.forgotten.textContent = !this.#more && found.forgotten
      ? `${count(found.forgotten)} older ones are no longer kept.` : "";
    this.#tidy();
  }

  #bound() {
    const most = this.#held.size ? MOST_ROWS : MOST_WAITING;
    const over = this.#waiting.length - most;
    if (over <= 0) return;
    let skipped = 0;
    const gone = this.#waiting.splice(0, over);
    for (const one of gone) skipped += 1 + one.skipped;
    const first = this.#waiting[0];
    first.skipped += skipped;
    first.from = gone[0].from;
  }

  #soon() {
    if (this.#frame) return;
    const rest = this.#restUntil - performance.now();
    const frame = () => requestAnimationFrame(() => {
      this.#frame = 0;
      this.#flush();
    });
    this.#frame = rest > 0 ? setTimeout(frame, rest) : frame();
  }

  #flush() {
    if (this.#held.size) {
      this.#tell();
      return;
    }
    const began = performance.now();
    const rows = [];
    let at = 0;
    for (; at < this.#waiting.length && at < this.#rows; at++) {
      const { entry, skipped, from, n } = this.#waiting[at];
      if (entry === null) {
        rows.unshift(this.#gap(from, n, skipped + 1));
        this.#newest = n;
        continue;
      }
      if (skipped) rows.unshift(this.#gap(from, entry.n - 1, skipped));
      rows.unshift(this.#row(entry));
      this.#newest = entry.n;
    }
    this.#waiting.splice(0, at);
    if (rows.length) {
      this.list.element.prepend(...rows);
      this.#trim(this.#waiting.length ? ROWS_IN_FLOOD : MOST_ROWS);
      this.#tidy();
      this.#restUntil = began + FRAME_BUDGET;
      // A message is handled after the frame has been laid out and painted.
      this.#painted.port2.postMessage(began);
      performance.clearMarks("rows-shown");
      performance.mark("rows-shown", { detail: { n: this.#newest } });
    }
    this.#tell();
    if (this.#waiting.length) this.#soon();
  }

  #pace(began) {
    const took = performance.now() - began;
    if (took > FRAME_BUDGET) {
      this.#rows = Math.max(FEWEST_ROWS, Math.floor((this.#rows * FRAME_BUDGET) / took));
      this.#restUntil = performance.now() + Math.min(took * REST, LONGEST_REST);
    } else {
      this.#rows = Math.min(ROWS_A_FRAME, this.#rows + 4);
    }
  }

  #trim(most) {
    const element = this.list.element;
    let row = element.lastElementChild;
    while (element.childElementCount > most && row) {
      const next = row.previousElementSibling;
      if (row !== this.list.current) {
        this.#oldest = Math.max(Number(row.dataset.n) + 1, 0);
        this.#more = true;
        row.remove();
      }
      row = next;
    }
  }

  #askServer() {
    if (this.#asking) return;
    this.#asking = setTimeout(async () => {
      this.#asking = 0;
      const load = this.#load;
      const found = await get("entries", {
        before: this.#newestSeen + 1, limit: PAGE, q: this.#filter.text,
      }).catch(() => null);
      if (!found || load !== this.#load) return;
      const last = this.#waiting.at(-1)?.entry?.n ?? 0;
      for (const entry of found.entries.reverse()) {
        if (entry.n > this.#newest && entry.n > last) {
          this.#waiting.push({ entry, skipped: 0, from: entry.n });
        }
      }
      this.#bound();
      this.#soon();
    }, ASK_SERVER_EVERY);
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    if (scrollTop > 4) this.hold("scroll");
    else this.release("scroll");
    if (this.#more && scrollTop + clientHeight > scrollHeight - 300) void this.loadOlder();
  }

  #selected() {
    const selection = getSelection();
    const inside = !selection.isCollapsed && this.list.element.contains(selection.anchorNode);
    if (inside) this.hold("selection");
    else this.release("selection");
  }

  #tell() {
    const number = this.waiting;
    const trimmed = this.#held.has("trimmed");
    const text = number ? `${count(number)} new` : trimmed ? "Newest" : "";
    if (text === this.#told) return;
    this.#told = text;
    this.news.textContent = text && `↑ ${text}`;
    this.news.hidden = !text;
    this.changed?.(number);
  }

  #tidy() {
    this.older.hidden = !this.#more;
    this.#showEmpty();
  }

  #showEmpty() {
    const bare = !this.list.element.firstElementChild;
    const welcome = bare && !this.error && !this.shown && this.empty !== undefined && !this.#more;
    this.list.element.hidden = bare;
    this.scroller.hidden = welcome;
    if (this.empty) this.empty.hidden = !welcome;
    this.none.hidden = !bare || welcome;
    if (bare && !welcome) {
      this.none.textContent = this.error ?? (this.#more
        ? "Nothing among the newest fits. Older ones may."
        : this.shown ? `Nothing fits “${brief(this.shown, 80)}”.` : "None has come in.");
    }
  }
}
