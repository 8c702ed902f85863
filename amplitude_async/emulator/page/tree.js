// A JSON value as a tree: branches are made when they are opened.

import { count, make, visible } from "./dom.js";

const MOST_CHILDREN = 100;
const LONG_TEXT = 600;
const OPEN_DEPTH = 2;

const kindOf = (value) => {
  if (value === null) return "null";
  if (Array.isArray(value)) return "list";
  return typeof value;
};

const leaf = (value) => {
  const kind = kindOf(value);
  if (kind !== "string") return make("span", { class: `value ${kind}` }, String(value));
  const text = make("bdi", { class: "value string" }, `"${visible(value.slice(0, LONG_TEXT))}"`);
  if (value.length <= LONG_TEXT) return text;
  const all = make("button", { class: "link", type: "button", onclick: () => {
    text.textContent = `"${visible(value)}"`;
    all.remove();
  } }, `all ${count(value.length)} characters`);
  return make("span", {}, text, "… ", all);
};

const children = (value, depth) => {
  const list = make("ul", { class: "tree" });
  const entries = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
  const add = (from) => {
    for (const [key, one] of entries.slice(from, from + MOST_CHILDREN)) list.append(branch(String(key), one, depth));
    const rest = entries.length - from - MOST_CHILDREN;
    if (rest <= 0) return;
    const more = make("li", {}, make("button", { class: "link", type: "button", onclick: () => {
      more.remove();
      add(from + MOST_CHILDREN);
    } }, `${count(rest)} more`));
    list.append(more);
  };
  add(0);
  return list;
};

const branch = (key, value, depth) => {
  const name = make("bdi", { class: "key" }, visible(key.slice(0, LONG_TEXT)));
  const inner = value !== null && typeof value === "object";
  const size = inner ? Object.keys(value).length : 0;
  if (!inner || !size) {
    const empty = inner ? make("span", { class: "value null" }, Array.isArray(value) ? "[]" : "{}") : leaf(value);
    return make("li", { class: "leaf" }, name, " ", empty);
  }
  const details = make("details", {}, make("summary", {}, name, " ",
    make("span", { class: "size" }, Array.isArray(value) ? `[${count(size)}]` : `{${count(size)}}`)));
  const grow = () => {
    if (details.open && details.childElementCount === 1) details.append(children(value, depth + 1));
  };
  details.addEventListener("toggle", grow);
  if (depth < OPEN_DEPTH) {
    details.open = true;
    grow();
  }
  return make("li", {}, details);
};

/** The members of an object or list. */
export const tree = (value) => children(value, 0);
