// An event as code: the call that sends it, the request, the assertion about it.

import { visible } from "./dom.js";

const CONSTANTS = new Map([[true, "True"], [false, "False"], [null, "None"]]);
const KEYWORDS = new Set(
  ("False None True and as assert async await break class continue def del elif else except " +
  "finally for from global if import in is lambda nonlocal not or pass raise return try while " +
  "with yield").split(" "));
// A property of such a name would be taken for the field.
const FIELDS = new Set(
  ("event_type user_id device_id time insert_id session_id event_id app_version version_name " +
  "platform os_name os_version device_brand device_manufacturer device_model carrier country " +
  "region city dma language ip location_lat location_lng user_agent price quantity revenue " +
  "product_id revenue_type currency receipt receipt_sig idfa idfv adid android_id " +
  "android_app_set_id partner_id library plan ingestion_metadata skip_user_properties_sync " +
  "extra event_properties user_properties groups group_properties").split(" "));
const ARGUMENTS = new Set([...FIELDS, "times", "destination", "self", "name"]);
// The library fills these in by itself.
const FILLED = new Set(["event_type", "time", "insert_id", "library", "event_id"]);
const WIRE = new Map([["productId", "product_id"], ["revenueType", "revenue_type"], ["receiptSig", "receipt_sig"],
  ["$skip_user_properties_sync", "skip_user_properties_sync"]]);
const OPERATIONS = new Map([
  ["$set", "set"], ["$setOnce", "set_once"], ["$add", "add"], ["$append", "append"],
  ["$prepend", "prepend"], ["$preInsert", "pre_insert"], ["$postInsert", "post_insert"],
  ["$remove", "remove"], ["$unset", "unset"],
]);

const WIDTH = 50;
const DEEPEST = 40;

const plain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

// Direction marks stay escaped: code must read as it runs.
const text = (value) =>
  visible(JSON.stringify(String(value)), (code) => "\\U" + code.toString(16).padStart(8, "0"));

const json = (value) =>
  visible(JSON.stringify(value), (_, mark) =>
    [0, 1].map((at) => "\\u" + mark.charCodeAt(at).toString(16)).join(""));

/** A value as Python writes it. */
export const python = (value, indent = "", used = 0, depth = 0) => {
  if (value === undefined) return "None";
  if (CONSTANTS.has(value)) return CONSTANTS.get(value);
  if (typeof value !== "object") return typeof value === "string" ? text(value) : String(value);
  if (depth > DEEPEST) return "...";
  const inner = indent + "    ";
  const list = Array.isArray(value);
  const parts = (at) => list
    ? value.map((one) => python(one, at, 1, depth + 1))
    : Object.entries(value).map(([key, one]) => {
      const name = `${text(key)}: `;
      return name + python(one, at, name.length + 1, depth + 1);
    });
  const [start, end] = list ? "[]" : "{}";
  const short = start + parts(indent).join(", ") + end;
  if (short.length + used + indent.length <= WIDTH && !short.includes("\n")) return short;
  return `${start}\n${parts(inner).map((part) => `${inner}${part},\n`).join("")}${indent}${end}`;
};

const call = (start, parts) => {
  const line = `${start}(${parts.map((part) => part("")).join(", ")})`;
  if (line.length <= WIDTH && !line.includes("\n")) return line;
  return `${start}(\n${parts.map((part) => `    ${part("    ")},\n`).join("")})`;
};

const value = (one) => (indent) => python(one, indent, 1);
const named = (name, one) => (indent) => `${name}=${python(one, indent, name.length + 2)}`;
const raw = (code) => () => code;

const fieldsOf = (event, without) =>
  Object.entries(event)
    .map(([name, one]) => [WIRE.get(name) ?? name, one])
    .filter(([name, one]) => FIELDS.has(name) && !FILLED.has(name) && !without.includes(name)
      && one !== null && !(plain(one) && !Object.keys(one).length));

const identify = (operations) => {
  const done = [];
  for (const [wire, changes] of Object.entries(operations ?? {})) {
    const method = OPERATIONS.get(wire);
    if (wire === "$clearAll") done.push(".clear_all()");
    else if (method === "unset") for (const key of Object.keys(changes)) done.push(`.unset(${text(key)})`);
    else if (method && plain(changes)) {
      for (const [key, one] of Object.entries(changes)) done.push(`.${method}(${text(key)}, ${python(one, "    ")})`);
    }
  }
  return `Identify()${done.join("")}`;
};

const groupOf = (event) => Object.entries(event.groups ?? {})[0] ?? ["company", "name"];

const nameOf = (event) => event.data?.event_name ?? event.data?.screen_name ?? event.event_type;

/** The call of the client that sends such an event. */
export const asPython = (entry) => {
  const { event } = entry;
  if (entry.vendor === "mparticle") return asBatch(entry);
  const fields = (...without) => fieldsOf(event, without).map(([name, one]) => named(name, one));
  if (event.event_type === "$identify") {
    return call("await client.identify", [raw(identify(event.user_properties)), ...fields("user_properties")]);
  }
  if (event.event_type === "$groupidentify") {
    const [kind, name] = groupOf(event);
    return call("await client.group_identify",
      [value(kind), value(name), raw(identify(event.group_properties)), ...fields("groups", "group_properties")]);
  }
  return call("await client.track", [value(event.event_type ?? ""), ...fields()]);
};

const asBatch = (entry) => {
  const batch = entry.batch ?? { environment: "development", events: [entry.event] };
  return call("batch = Batch.model_validate", [value({ ...batch, events: [entry.event] })]) + "\nawait client.upload(batch)";
};

const quoted = (body) => `'${body.replaceAll("'", "'\\''")}'`;

/** The request that sends such an event. */
export const asCurl = (entry, url) => {
  if (entry.vendor === "mparticle") {
    const batch = { ...(entry.batch ?? { environment: "development" }), events: [entry.event] };
    return `curl --user key:secret --json ${quoted(json(batch))} \\\n  ${url}/v2/events`;
  }
  // Without its insert_id, or it would be a duplicate.
  const { insert_id: _, ...event } = entry.event;
  const body = json({ api_key: "test-key", events: [event] });
  return `curl --json ${quoted(body)} \\\n  ${url}/2/httpapi`;
};

const identityOf = (event) =>
  event.user_id != null ? [named("user_id", event.user_id)]
    : event.device_id != null ? [named("device_id", event.device_id)] : [];

const changesOf = (operations) => {
  const found = [];
  for (const [wire, changes] of Object.entries(operations ?? {})) {
    const name = OPERATIONS.get(wire);
    if (wire === "$clearAll") found.push(raw("clear_all=True"));
    else if (name === "unset") found.push(named(name, Object.keys(changes)));
    else if (name) found.push(named(name, changes));
  }
  return found;
};

const propertiesOf = (properties, forbidden) => {
  const given = Object.entries(properties ?? {});
  if (!given.length) return [];
  const simple = given.every(([key]) =>
    /^[A-Za-z_][A-Za-z0-9_]*$/.test(key) && !forbidden.has(key) && !KEYWORDS.has(key));
  return simple ? given.map(([key, one]) => named(key, one)) : [named("event_properties", properties)];
};

/** The assertion that a test makes about such an event. */
export const asAssertion = (entry) => {
  const { event } = entry;
  if (event.event_type === "$identify") {
    const who = event.user_id != null ? [value(event.user_id)] : identityOf(event);
    return call("amplitude_events.assert_identified", [...who, ...changesOf(event.user_properties)]);
  }
  if (event.event_type === "$groupidentify") {
    const [kind, name] = groupOf(event);
    return call("amplitude_events.assert_group_identified",
      [value(kind), value(name), ...changesOf(event.group_properties)]);
  }
  const properties = event.event_properties ?? event.data?.custom_attributes ?? {};
  const amount = properties.$revenue ?? (properties.$price ?? NaN) * (properties.$quantity ?? 1);
  if (event.event_type === "revenue_amount" && Number.isFinite(amount)) {
    const product = properties.$productId ? [named("product_id", properties.$productId)] : [];
    return call("amplitude_events.assert_revenue", [value(amount), ...identityOf(event), ...product]);
  }
  return call("amplitude_events.assert_tracked",
    [value(nameOf(event) ?? ""), ...identityOf(event), ...propertiesOf(properties, ARGUMENTS)]);
};
