// A list of rows of which one is chosen, by pointer or by keys.

import { encoded, make } from "./dom.js";

/** A listbox; a row's key is in `data-key`, and `open(key)` is called for it. */
export class List {
  #open;

  constructor(name, label, open) {
    this.#open = open;
    this.element = make("div", {
      class: `rows ${name}-rows`, id: `${name}-rows`, role: "listbox", tabindex: "0",
      "aria-label": label,
    });
    this.current = null;
    this.element.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      // Whoever marks text in a row does not mean to open it.
      if (!row || String(getSelection())) return;
      this.choose(row);
      this.openCurrent();
    });
    this.element.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) this.move(step);
      else if (event.key === "Home") this.choose(this.element.firstElementChild, true);
      else if (event.key === "End") this.choose(this.element.lastElementChild, true);
      else if (event.key === "Enter" || event.key === " ") this.openCurrent();
      else return;
      event.preventDefault();
    });
  }

  row(key, ...cells) {
    return make("div", {
      class: "row", role: "option", "aria-selected": "false", "data-key": key,
      id: `${this.element.id}-${encoded(key).slice(0, 200)}`,
    }, ...cells);
  }

  move(step) {
    const from = this.current?.isConnected ? this.current : null;
    const first = this.element.firstElementChild;
    const next = from ? from[step > 0 ? "nextElementSibling" : "previousElementSibling"] : first;
    if (next) this.choose(next, true);
    return next;
  }

  choose(row, scroll = false) {
    if (this.current !== row) {
      this.current?.setAttribute("aria-selected", "false");
      this.current = row;
      row?.setAttribute("aria-selected", "true");
    }
    if (!row) {
      this.element.removeAttribute("aria-activedescendant");
      return;
    }
    this.element.setAttribute("aria-activedescendant", row.id);
    if (scroll) row.scrollIntoView({ block: "nearest" });
  }

  chooseKey(key) {
    for (const row of this.element.children) {
      if (row.dataset.key === key) return this.choose(row);
    }
    return this.choose(null);
  }

  openCurrent() {
    if (this.current?.isConnected) this.#open(this.current.dataset.key, this.current);
  }

  /** Lay the rows anew, or change those there are and put new ones on top. */
  show(items, { keyOf, make: build, change, anew }) {
    const old = new Map([...this.element.children].map((row) => [row.dataset.key, row]));
    const rows = items.map((item) => {
      const row = old.get(keyOf(item));
      if (row) change(row, item);
      return row ?? build(item);
    });
    if (anew) {
      this.element.replaceChildren(...rows);
    } else {
      this.element.prepend(...rows.filter((row) => !row.isConnected));
    }
  }
}
