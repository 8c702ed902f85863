// The requests, newest on top, and how each was answered.

import { get } from "./api.js";
import { brief, bytes, clock, make, many } from "./dom.js";
import { List } from "./list.js";

const PAGE = 100;
const MOST_ROWS = 300;

const textOf = (request) =>
  [`#${request.number}`, request.path, request.status, request.fault, request.note].join(" ").toLowerCase();

/** The view of requests. */
export class Requests {
  #text = "";
  #known = new Map();
  #oldest = Infinity;

  constructor(root, open) {
    this.list = new List("requests", "Requests", (key) => open(`request:${key}`));
    this.none = make("p", { class: "none", hidden: true });
    this.older = make("button", { class: "older", type: "button", hidden: true, onclick: () => this.#load(this.#oldest) }, "Load older");
    this.scroller = make("div", { class: "scroller" }, this.list.element, this.none, this.older);
    root.append(this.scroller);
  }

  async show(text) {
    this.#text = text.toLowerCase();
    this.#known.clear();
    this.list.element.replaceChildren();
    await this.#load(undefined);
  }

  add(requests) {
    if (this.scroller.scrollTop > 4) return;
    const rows = this.#rows(requests).reverse();
    this.list.element.prepend(...rows);
    while (this.list.element.childElementCount > MOST_ROWS) {
      const last = this.list.element.lastElementChild;
      this.#known.delete(Number(last.dataset.key));
      last.remove();
    }
    this.#tidy();
  }

  async find(number) {
    const wanted = Number(number);
    const known = this.#known.get(wanted);
    if (known) return known;
    const { requests } = await get("requests", { before: wanted + 1, limit: 1 });
    if (requests[0]?.number !== wanted) throw new Error("This request is not kept any more.");
    return requests[0];
  }

  async #load(before) {
    const { requests } = await get("requests", { before, limit: PAGE });
    this.list.element.append(...this.#rows(requests));
    this.#oldest = requests.at(-1)?.number ?? 0;
    this.older.hidden = requests.length < PAGE;
    this.#tidy();
  }

  #rows(requests) {
    const fresh = requests.filter((one) => !this.#known.has(one.number) && textOf(one).includes(this.#text));
    for (const one of fresh) this.#known.set(one.number, one);
    return fresh.map((one) => this.#row(one));
  }

  #row(request) {
    const good = request.status >= 200 && request.status < 300;
    const number = (request.events ?? 0) + (request.batches ?? 0);
    const why = [request.fault && `fault: ${request.fault}`, request.note].filter(Boolean).join("; ");
    return this.list.row(String(request.number),
      make("span", { class: "time" }, clock(request.received_at)),
      make("span", { class: "number" }, `#${request.number}`),
      make("span", { class: good ? "status good" : "status bad" }, request.status ? String(request.status) : "cut off"),
      make("span", { class: "path" }, brief(request.path, 60)),
      make("span", { class: "count" }, many(number, request.batches ? "batch" : "event", request.batches ? "batches" : "events")),
      make("span", { class: "size" }, bytes(request.body_bytes ?? 0)),
      make("span", { class: "why" }, brief(why, 200)));
  }

  #tidy() {
    const bare = !this.list.element.firstElementChild;
    this.list.element.hidden = bare;
    this.none.hidden = !bare;
    this.none.textContent = this.#text ? `No request fits “${brief(this.#text, 80)}”.` : "No request has come in.";
  }
}

