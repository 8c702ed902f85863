// The grammar of filters: `user:user-1 type:Paid -duplicate total:9.5`. The server has
// a twin of this, and both keep one table of cases.

const STATES = new Set(["stored", "duplicate", "rejected", "dropped"]);
const WORD = /(?:[^\s"]|"[^"]*(?:"|$))+/g;

const lower = (value) => String(value ?? "").toLowerCase();
const bare = (text) => text.replaceAll('"', "").toLowerCase();

/** Whether a text is the wanted one, in which a star is any text. */
const fits = (wanted, value) => {
  const text = lower(value);
  const [first, ...others] = wanted.split("*");
  if (!others.length) return text === first;
  const last = others.pop();
  if (!text.startsWith(first)) return false;
  let at = first.length;
  for (const piece of others) {
    const found = text.indexOf(piece, at);
    if (found < 0) return false;
    at = found + piece.length;
  }
  return text.length - last.length >= at && text.endsWith(last);
};

/** A property as people type it: text without its quotes. */
const plain = (shown) => {
  if (!shown.startsWith('"')) return shown;
  try {
    return JSON.parse(shown);
  } catch {
    return shown.slice(1);
  }
};

const is = (wanted) => (entry) => (wanted === "local" ? Boolean(entry.local) : entry.state === wanted);
const field = (name) => (wanted) => (entry) => fits(wanted, entry[name]);
const group = (wanted) => (entry) =>
  Object.values(entry.groups ?? {}).flat().some((name) => fits(wanted, name));
const property = (name, wanted) => (entry) =>
  (entry.preview ?? []).some(([own, value]) => lower(own) === name && fits(wanted, plain(value)));

const KEYS = new Map(Object.entries({
  user: field("user"), device: field("device"), type: field("name"), vendor: field("vendor"),
  request: field("request"), group, is,
}));

const loose = (typed) => {
  const text = bare(typed);
  if (!text) return null;
  if (!typed.includes('"') && STATES.has(text)) return { test: is(text) };
  return {
    test: (entry) =>
      [entry.name, entry.user, entry.device, ...(entry.preview ?? []).flat()]
        .some((one) => lower(one).includes(text)),
  };
};

const keyed = (key, wanted) => {
  if (!wanted) return null;
  const known = KEYS.get(key);
  if (known) return { test: known(wanted) };
  return { test: property(key.startsWith("prop.") ? key.slice(5) : key, wanted), deep: true };
};

const parsed = (typed) => {
  const denied = typed.startsWith("-");
  const rest = denied ? typed.slice(1) : typed;
  const colon = rest.indexOf(":");
  const key = rest.slice(0, Math.max(0, colon));
  const word = !key || key.includes('"') ? loose(rest) : keyed(key.toLowerCase(), bare(rest.slice(colon + 1)));
  return word && { denied, deep: false, ...word };
};

/** A filter: `test(entry)`, and `deep` where only the server can tell. */
export const filterOf = (text) => {
  const words = (text.match(WORD) ?? []).map(parsed).filter(Boolean);
  return {
    text: text.trim(),
    // An entry shows three of its properties; the server knows them all.
    deep: words.some((word) => word.deep),
    test: (entry) => words.every((word) => word.test(entry) !== word.denied),
  };
};

/** A value as one word of the grammar. */
export const quote = (value) =>
  /[\s"]/.test(value) || !value ? `"${value.replaceAll('"', "*")}"` : value;
