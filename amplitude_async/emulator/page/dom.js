// Making nodes. Whatever comes from an event goes through `visible` and textContent.

const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;
const NAMED = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
// Letters of Persian and families of emoji are joined by these.
const JOINERS = new Set(["\u200c", "\u200d"]);

const inBraces = (code) => `\\u{${code.toString(16)}}`;

/** Text whose controls and direction marks are written out; `far` writes the longest. */
export const visible = (text, far = inBraces) =>
  String(text).replace(UNSEEN, (mark) => {
    if (JOINERS.has(mark)) return mark;
    const code = mark.codePointAt(0);
    if (code > 0xffff) return far(code, mark);
    return NAMED[mark] ?? "\\u" + code.toString(16).padStart(4, "0");
  });

/** The same, at most so many characters of it. */
export const brief = (text, most = 120) => {
  const all = String(text);
  return all.length <= most ? visible(all) : visible(all.slice(0, most)) + "…";
};

/** A node with attributes, and children that are nodes or text. */
export const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

/** Text for an address; half of a pair of surrogates could not be in one. */
export const encoded = (text) =>
  encodeURIComponent(String(text).replace(/\p{Cs}/gu, "\ufffd"));

export const byId = (id) => document.getElementById(id);

const two = (number) => String(number).padStart(2, "0");

/** Time of day of seconds since the epoch, with milliseconds. */
export const clock = (seconds) => {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return "";
  const rest = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${rest}`;
};

/** Day and time of day. */
export const moment = (seconds) => {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return "";
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(seconds)}`;
};

export const count = (number) => (number ?? 0).toLocaleString("en");

export const many = (number, one, more = one + "s") =>
  `${count(number)} ${number === 1 ? one : more}`;

export const bytes = (number) =>
  number < 10_000 ? `${count(number)} B` : `${count(Math.round(number / 1000))} kB`;

/** One of ten colours, always the same for a name. */
export const colourOf = (name) => {
  if (name.startsWith("$") || name === "revenue_amount") return "own";
  let sum = 0x811c9dc5;
  for (let at = 0; at < name.length && at < 64; at++) sum = Math.imul(sum ^ name.charCodeAt(at), 0x01000193);
  return String(((sum ^ (sum >>> 15)) >>> 0) % 10);
};
