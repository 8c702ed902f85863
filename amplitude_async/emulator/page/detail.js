// The right side: one entry, user, type or request, whatever arrives meanwhile.

import { get } from "./api.js";
import { Chart } from "./chart.js";
import { asAssertion, asCurl, asPython } from "./codes.js";
import { codeBlock, copy, copyButton } from "./copying.js";
import { brief, bytes, colourOf, count, encoded, make, moment, visible } from "./dom.js";
import { quote } from "./filter.js";
import { cellsOf, stateOf } from "./stream.js";
import { tree } from "./tree.js";
import { userKey } from "./users.js";

const MOST_RAW = 100_000;
const MOST_OF_REQUEST = 50;

const section = (title, ...content) => make("section", {}, make("h3", {}, title), ...content);

const facts = (pairs) =>
  make("dl", { class: "facts" }, ...pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => make("div", {}, make("dt", {}, name),
      make("dd", {}, value instanceof Node ? value : visible(value)))));

const full = (object) => object && typeof object === "object" && Object.keys(object).length > 0;

/** A link that opens something in the detail, or filters the stream. */
export const link = (href, text) => make("a", { href }, make("bdi", {}, brief(text, 200)));

const userLink = ({ user: id, vendor }) => {
  const node = link(`#/users?open=${encoded(userKey({ id, vendor }))}`, id);
  // Whom a fault may throttle: the text is written for people.
  if (vendor === "amplitude") node.dataset.user = id;
  return node;
};
export const filterLink = (filter, text) => link(`#/stream?q=${encoded(filter)}`, text);
const entryLink = (n, ...content) =>
  make("a", { href: `#/stream?open=entry:${n}`, "data-open": `entry:${n}` }, ...content);

const codes = (entry, url) => {
  const body = make("div", { class: "code" });
  const choices = [
    ["Python", () => asPython(entry)], ["curl", () => asCurl(entry, url)],
    ["Test", () => asAssertion(entry)], ["JSON", () => rawOf(entry)],
  ];
  const said = make("span", { class: "said", role: "status" });
  const buttons = choices.map(([name, write]) => {
    const button = make("button", { type: "button", "aria-pressed": "false", "aria-label": `Copy as ${name}` }, name);
    button.addEventListener("click", async () => {
      for (const one of buttons) one.setAttribute("aria-pressed", String(one === button));
      const text = write();
      said.textContent = "";
      const code = make("code", {}, text.length > MOST_RAW ? text.slice(0, MOST_RAW) + "…" : text);
      body.replaceChildren(make("pre", { tabindex: "0", "aria-label": `As ${name}` }, code));
      said.textContent = (await copy(text, code)) ? "copied" : "press Ctrl-C to copy";
    });
    return button;
  });
  return make("section", { class: "copies" },
    make("div", { class: "choices", role: "group", "aria-label": "Copy as" },
      make("span", { class: "lead" }, "Copy as"), ...buttons, said), body);
};

const rawOf = (entry) => JSON.stringify(entry.event, null, 2) ?? "";

const requestFacts = (request) => facts([
  ["Request", filterLink(`request:${request.number}`, `#${request.number}`)],
  ["Path", request.path],
  ["Answer", make("span", { class: request.status >= 200 && request.status < 300 ? "good" : "bad" },
    request.status ? String(request.status) : "none, cut off")],
  ["Fault", request.fault],
  ["Received", request.received_at && moment(request.received_at)],
  ["Body", request.body_bytes !== undefined && bytes(request.body_bytes)],
  ["Client's clock", request.client_upload_time],
  ["Options", full(request.options) ? JSON.stringify(request.options) : null],
]);

const PARTS = [
  ["event_properties", "Properties"], ["user_properties", "User properties"], ["groups", "Groups"],
  ["group_properties", "Group properties"],
];

const entryView = (entry, url) => {
  const event = entry.event ?? {};
  const inner = entry.vendor === "mparticle" && full(event.data) ? event.data : event;
  const parts = entry.vendor === "mparticle"
    ? [["custom_attributes", "Attributes"]] : PARTS;
  const rest = Object.fromEntries(Object.entries(inner).filter(([name]) => !parts.some(([one]) => one === name)));
  const raw = entry.wire ?? rawOf(entry);
  const text = visible(rawOf(entry).slice(0, MOST_RAW)).replaceAll("\\n", "\n");
  return {
    title: entry.name || "(no name)", colour: colourOf(entry.name ?? ""),
    tags: [entry.local ? make("span", { class: "state local" }, "local") : "", stateOf(entry)],
    content: [
      entry.reason && entry.state !== "stored"
        ? make("p", { class: `why ${entry.state}` }, visible(entry.reason)) : "",
      facts([
        ["Time", moment(entry.at)],
        ["User", entry.user && userLink(entry)],
        ["Device", entry.device && filterLink(`device:${quote(entry.device)}`, entry.device)],
        ["Vendor", entry.vendor === "mparticle" ? "mParticle" : null],
        ["From", entry.local ? "told by the client itself" : null],
      ]),
      codes(entry, url),
      ...parts.filter(([name]) => full(inner[name])).map(([name, title]) => section(title, tree(inner[name]))),
      full(rest) ? section("Fields", tree(rest)) : "",
      entry.batch ? section("Batch", tree(entry.batch)) : "",
      entry.request ? section("Request", requestFacts(entry.request),
        entry.request.note ? make("p", { class: "soft" }, visible(entry.request.note)) : "") : "",
      section("Raw JSON", make("details", {}, make("summary", {}, `${count(raw.length)} characters`),
        make("div", { class: "code copied" },
          make("pre", { tabindex: "0", "aria-label": "Raw JSON" }, text), copyButton(() => raw)))),
    ],
  };
};

const timelineRow = (entry) =>
  make("li", { class: `is-${entry.state}` }, entryLink(entry.n, ...cellsOf(entry).filter((cell) => cell && cell.className !== "user")));

const userView = (user, id) => {
  const { vendor } = user;
  const mparticle = vendor === "mparticle";
  const list = make("ol", { class: "timeline" }, ...user.timeline.map(timelineRow));
  const more = make("button", { class: "older", type: "button" }, "Load older");
  more.hidden = user.timeline.length < 200;
  let last = user.timeline.at(-1)?.n;
  more.addEventListener("click", async () => {
    const { timeline } = await get(`users/${encoded(id)}`, { before: last, vendor });
    list.append(...timeline.map(timelineRow));
    last = timeline.at(-1)?.n;
    more.hidden = timeline.length < 200;
  });
  const groups = Object.entries(user.groups ?? {}).map(([kind, names]) => [kind, [names].flat().join(", ")]);
  return {
    title: id, tags: [],
    content: [
      make("p", { class: "acts" },
        filterLink(`user:${quote(id)}${mparticle ? " vendor:mparticle" : ""}`, "Show in stream"), " ",
        mparticle ? "" : make("button", { type: "button", "data-throttle": id }, "Throttle this user")),
      facts([
        ["Vendor", mparticle ? "mParticle" : null],
        ["Revenue", user.revenue ? count(user.revenue) : null],
        ["Events", user.events !== undefined ? count(user.events) : null],
        ["Rejected", user.rejected ? count(user.rejected) : null],
        ["Devices", (user.devices ?? []).join(", ")],
        ...Object.entries(user.identities ?? {}),
        ...groups,
      ]),
      section("Properties", full(user.properties) ? tree(user.properties)
        : make("p", { class: "soft" }, "None were set: identify sets them.")),
      section("Timeline", list, more),
    ],
  };
};

const typeView = (type, chart) => ({
  chart,
  title: type.name || "(no name)", colour: colourOf(type.name ?? ""),
  tags: [type.new ? make("span", { class: "state new" }, "new") : ""],
  content: [
    make("p", { class: "acts" }, filterLink(`type:${quote(type.name)}`, "Show in stream")),
    facts([
      ["Count", count(type.count)], ["Rejected", type.rejected ? count(type.rejected) : null],
      ["First", moment(type.first_at)], ["Last", moment(type.last_at)],
    ]),
    chart.element,
    section("Properties", type.properties.length
      ? make("ul", { class: "properties" }, ...type.properties.map((one) => make("li", {},
        make("span", { class: "property" }, make("bdi", { class: "key" }, brief(one.name, 100)), " ",
          ...one.kinds.map((kind) => make("span", { class: "kind" }, visible(kind))),
          one.kinds.length > 1 ? make("span", { class: "state duplicate" }, "mixed kinds") : ""),
        make("span", { class: "example" }, `${count(one.count)}×  such as `, make("bdi", { class: "value" }, brief(one.example ?? "", 120))))))
      : make("p", { class: "soft" }, "Its events have none.")),
  ],
});

const requestView = (request, entries) => ({
  title: `Request #${request.number}`, tags: [],
  content: [
    request.note ? make("p", { class: `why ${request.status >= 200 && request.status < 300 ? "" : "rejected"}` }, visible(request.note)) : "",
    requestFacts(request),
    section("Events in it", entries.length
      ? make("ol", { class: "timeline" }, ...entries.map(timelineRow))
      : make("p", { class: "soft" }, "None is kept.")),
  ],
});

/** The pane; `show("user:ann")` fills it, `onclose` is told. */
export class Detail {
  #load = 0;

  constructor(element, { url, placeholder, close, find }) {
    this.element = element;
    this.url = url;
    this.placeholder = placeholder;
    this.close = close;
    this.find = find;
    this.shown = null;
    this.chart = null;
    this.hide();
  }

  hide() {
    this.#load++;
    this.shown = this.chart = null;
    delete this.element.dataset.shown;
    this.element.classList.remove("open");
    this.element.parentElement.classList.remove("with-detail");
    this.element.replaceChildren(this.placeholder);
  }

  async show(what) {
    if (what === this.shown) return;
    this.shown = what;
    const load = ++this.#load;
    let view;
    try {
      view = await this.#view(what);
    } catch (error) {
      view = { title: what.slice(what.indexOf(":") + 1), tags: [], content: [make("p", { class: "soft" }, visible(error.message))] };
    }
    if (load !== this.#load) return;
    this.chart = view.chart ?? null;
    const close = make("button", { class: "plain close", type: "button", "aria-label": "Close detail", onclick: () => this.close() }, "✕");
    this.element.replaceChildren(
      make("div", { class: "head" },
        make("h2", { "data-colour": view.colour }, make("bdi", {}, brief(view.title, 400))),
        ...view.tags.filter(Boolean), close),
      make("div", { class: "content", tabindex: "0", role: "region", "aria-label": "Detail of what is chosen" },
        ...view.content.filter(Boolean)));
    this.element.dataset.shown = what;
    this.element.classList.add("open");
    this.element.parentElement.classList.add("with-detail");
  }

  async #view(what) {
    const at = what.indexOf(":");
    const [kind, key] = [what.slice(0, at), what.slice(at + 1)];
    if (kind === "entry") return entryView(await get(`entries/${encoded(key)}`), this.url());
    if (kind === "user") return userView(await get(`users/${encoded(key)}`), key);
    if (kind === "mparticle-user") return userView(await get(`users/${encoded(key)}`, { vendor: "mparticle" }), key);
    if (kind === "type") {
      const type = await this.find("type", key);
      const chart = new Chart(key);
      await chart.refresh();
      return typeView(type, chart);
    }
    if (kind === "request") {
      const { entries } = await get("entries", { q: `request:${key}`, limit: MOST_OF_REQUEST });
      return requestView(await this.find("request", key), entries);
    }
    throw new Error("There is nothing of this kind.");
  }
}

