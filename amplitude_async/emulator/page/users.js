// The users, those seen last on top.

import { get } from "./api.js";
import { brief, clock, colourOf, count, make, many } from "./dom.js";
import { List } from "./list.js";

const LIMIT = 200;

/** What opens a user: both vendors may have one of the same id. */
export const userKey = ({ id, vendor }) => `${vendor === "mparticle" ? "mparticle-user" : "user"}:${id}`;

/** The view of users. */
export class Users {
  constructor(root, open) {
    this.list = new List("users", "Users", open);
    this.none = make("p", { class: "none", hidden: true }, "No user has been seen.");
    this.total = make("p", { class: "note" });
    root.append(make("div", { class: "scroller" }, this.list.element, this.none, this.total));
  }

  async show(text, anew = true) {
    const { users, total } = await get("users", { q: text, limit: LIMIT });
    this.list.show(users, { keyOf: userKey, make: (user) => this.#row(user), change: this.#change, anew });
    this.none.hidden = users.length > 0;
    this.none.textContent = text ? `No user fits “${brief(text, 80)}”.` : "No user has been seen.";
    this.list.element.hidden = !users.length;
    this.total.textContent = total > users.length ? `The last ${count(users.length)} of ${count(total)}: filter for others.` : "";
  }

  #row(user) {
    const cells = {};
    for (const name of ["last", "count", "revenue", "time"]) cells[name] = make("span", { class: name });
    const row = this.list.row(userKey(user),
      make("span", { class: "who" }, make("bdi", {}, brief(user.id, 100)),
        user.vendor === "mparticle" && make("span", { class: "chip" }, "mParticle")),
      cells.last, cells.count, cells.revenue, cells.time);
    this.#change(row, user);
    return row;
  }

  #change = (row, user) => {
    const put = (name, text) => {
      const cell = row.querySelector(`:scope > .${name}`);
      if (cell.textContent !== text) cell.textContent = text;
      return cell;
    };
    put("last", brief(user.last_name ?? "", 60)).dataset.colour = colourOf(user.last_name ?? "");
    put("count", many(user.events, "event"));
    put("revenue", user.revenue ? count(Math.round(user.revenue * 100) / 100) : "");
    put("time", clock(user.last_at));
  };
}
