// The types of events, the most frequent on top.

import { get } from "./api.js";
import { Chart } from "./chart.js";
import { brief, clock, colourOf, count, make } from "./dom.js";
import { List } from "./list.js";

const SHOWN_PROPERTIES = 4;

const mixed = (type) => type.properties.some((one) => one.kinds.length > 1);

/** The view of types. */
export class Types {
  #types = [];

  constructor(root, open) {
    this.list = new List("types", "Types", (key) => open(`type:${key}`));
    this.none = make("p", { class: "none", hidden: true });
    this.chart = new Chart();
    root.append(make("div", { class: "scroller" }, this.chart.element, this.list.element, this.none));
  }

  async show(text, anew = true) {
    await Promise.all([this.#read(), this.chart.refresh()]);
    const wanted = text.toLowerCase();
    const types = this.#types.filter((type) =>
      [type.name, ...type.properties.map((one) => one.name)].some((one) => String(one).toLowerCase().includes(wanted)));
    this.list.show(types, { keyOf: (type) => type.name, make: (type) => this.#row(type), change: this.#change, anew });
    this.none.hidden = types.length > 0;
    this.none.textContent = text ? `No type fits “${brief(text, 80)}”.` : "No type has been seen.";
    this.list.element.hidden = !types.length;
  }

  async find(name) {
    const found = (one) => one.name === name;
    if (!this.#types.some(found)) await this.#read();
    const type = this.#types.find(found);
    if (!type) throw new Error("No such type is known.");
    return type;
  }

  async #read() {
    this.#types = (await get("types")).types;
    // Where all are new, saying so tells nothing.
    if (this.#types.every((type) => type.new)) for (const type of this.#types) type.new = false;
  }

  #row(type) {
    const row = this.list.row(type.name,
      make("span", { class: "type", "data-colour": colourOf(type.name) }, make("bdi", {}, brief(type.name || "(no name)", 80))),
      make("span", { class: "count" }), make("span", { class: "keys" }), make("span", { class: "marks" }),
      make("span", { class: "time" }));
    this.#change(row, type);
    return row;
  }

  #change = (row, type) => {
    const state = JSON.stringify([type.count, type.rejected, type.properties.length, mixed(type), type.new]);
    if (row.dataset.state === state) return;
    row.dataset.state = state;
    const cell = (name) => row.querySelector(`:scope > .${name}`);
    cell("count").textContent = count(type.count);
    cell("time").textContent = clock(type.last_at);
    const names = type.properties.slice(0, SHOWN_PROPERTIES).map((one) =>
      make("span", { class: one.kinds.length > 1 ? "chip mixed" : "chip" }, brief(one.name, 24)));
    const more = type.properties.length - names.length;
    cell("keys").replaceChildren(...names, more > 0 ? `+${more}` : "");
    const marks = [];
    if (type.new) marks.push(make("span", { class: "state new" }, "new"));
    if (mixed(type)) marks.push(make("span", { class: "state duplicate" }, "mixed kinds"));
    if (type.rejected) marks.push(make("span", { class: "state rejected" }, `${count(type.rejected)} rejected`));
    cell("marks").replaceChildren(...marks);
  };
}
