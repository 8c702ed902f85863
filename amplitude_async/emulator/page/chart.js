// Events over time: a bar for each interval, stacked by type. It is drawn by hand.

import { get } from "./api.js";
import { brief, colourOf, count, encoded, make, many } from "./dom.js";
import { quote } from "./filter.js";

const BARS = 60;
const [WIDTH, HEIGHT, GAP] = [600, 100, 1.8];
const SVG = "http://www.w3.org/2000/svg";
const UNITS = [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
const FAINTER = ["1", ".6", ".35"];

const shape = (tag, attributes, ...children) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

const sum = (counts) => counts.reduce((total, one) => total + one, 0);

const duration = (seconds) => {
  const [length, name] = UNITS.find(([one]) => seconds % one === 0);
  return many(seconds / length, name);
};

// As in "the last hour" and "the last 5 minutes".
const span = (seconds) => duration(seconds).replace(/^1 /, "");

const two = (number) => String(number).padStart(2, "0");

/** Local time, as fine as bars of so many seconds need it. */
const timeOf = (seconds, step) => {
  const date = new Date(seconds * 1000);
  const day = step >= 1800 ? `${two(date.getMonth() + 1)}-${two(date.getDate())} ` : "";
  const exact = step < 60 ? `:${two(date.getSeconds())}` : "";
  return `${day}${two(date.getHours())}:${two(date.getMinutes())}${exact}`;
};

/** The end of the scale: a round number that is not below the highest bar. */
const roundUp = (peak) => {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, peak)));
  // An even one, since half of it is on the scale too.
  return [1, 2, 4, 5, 6, 8, 10].map((one) => one * power).find((one) => one >= peak && one % 2 === 0);
};

const partsOf = ({ series, others, rejected, dropped }) => {
  const seen = {};
  const parts = series.map(({ name, counts }) => {
    const colour = colourOf(name);
    seen[colour] = (seen[colour] ?? -1) + 1;
    // Ten colours are few: of two types with the same the rarer is fainter.
    return { name: brief(name, 40), counts, filter: `type:${quote(name)}`, colour, faint: FAINTER[seen[colour]] ?? FAINTER.at(-1) };
  });
  const rest = series.map(({ name }) => `-type:${quote(name)}`);
  parts.push({ name: "others", counts: others, filter: ["stored", ...rest].join(" "), part: "others" });
  parts.push(dropped
    ? { name: "rejected or dropped", counts: rejected, filter: "-stored -duplicate", part: "rejected" }
    : { name: "rejected", counts: rejected, filter: "rejected", part: "rejected" });
  return parts.map((one) => ({ ...one, total: sum(one.counts) })).filter((one) => one.total);
};

const look = ({ colour, part, faint }) => ({
  class: `part ${part ?? ""}`, ...(colour ? { "data-colour": colour } : {}), "fill-opacity": faint ?? "1",
});

/** The chart of all types, or of one. */
export class Chart {
  #drawn = "";
  #links = new Map();
  #busy = false;
  #again = false;

  constructor(type) {
    this.type = type;
    this.span = make("span", { class: "soft" });
    this.svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.scale = make("div", { class: "scale", "aria-hidden": "true" });
    this.times = make("div", { class: "times", "aria-hidden": "true" });
    this.legend = make("ul", { class: "legend", "aria-label": "Show in stream" });
    this.element = make("figure", { class: "chart", hidden: true },
      make("figcaption", {}, make(type === undefined ? "h2" : "h3", { class: "small" }, "Events over time"), this.span),
      this.scale, this.svg, this.times, this.legend);
  }

  /** Whether anybody can see where it is. */
  get isSeen() {
    return !document.hidden && Boolean(this.element.parentElement?.checkVisibility());
  }

  /** Ask what came when, and draw it; of calls meanwhile the last is done afterwards. */
  async refresh() {
    this.#again = true;
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.#again) {
        this.#again = false;
        // Of a type that was cleared away there is nothing to draw.
        const found = await get(`timeline${this.type === undefined ? "" : `?type=${encoded(this.type)}`}`).catch(() => null);
        if (found) this.#show(found);
      }
    } finally {
      this.#busy = false;
    }
  }

  #show({ now, ...found }) {
    const state = JSON.stringify(found);
    if (state === this.#drawn) return;
    this.#drawn = state;
    const parts = partsOf(found);
    this.element.hidden = !parts.length;
    if (!parts.length) return;
    const { step, last } = found;
    const startOf = (at) => last - (BARS - 1 - at) * step;
    const sums = Array.from({ length: BARS }, (_, at) => parts.reduce((total, { counts }) => total + counts[at], 0));
    const peak = Math.max(...sums);
    const top = roundUp(peak);
    this.#tell(parts, sum(sums), step, peak, startOf(sums.indexOf(peak)));
    const lines = [0, HEIGHT / 2].map((y) => shape("line", { x1: 0, x2: WIDTH, y1: y, y2: y, class: "grid" }));
    const bars = sums.flatMap((total, at) => (total ? [this.#bar(parts, at, total, top, timeOf(startOf(at), step))] : []));
    const base = shape("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "base" });
    this.svg.replaceChildren(...lines, ...bars, base);
    this.scale.replaceChildren(...[top, top / 2, 0].map((one) => make("span", {}, count(one))));
    this.times.replaceChildren(...[0, BARS / 2, BARS - 1].map((at) => make("span", {}, timeOf(startOf(at), step))));
    this.#explain(parts);
  }

  #bar(parts, at, total, top, time) {
    const width = WIDTH / BARS;
    let y = HEIGHT;
    const pieces = parts.filter(({ counts }) => counts[at]).map((part) => {
      const height = (part.counts[at] / top) * HEIGHT;
      y -= height;
      return shape("rect", { x: at * width + GAP / 2, y, width: width - GAP, height, ...look(part) });
    });
    const said = parts.filter(({ counts }) => counts[at]).map(({ name, counts }) => `${name}: ${count(counts[at])}`);
    return shape("g", { class: "bar" }, shape("title", {}, [`${time}  ${many(total, "event")}`, ...said].join("\n")),
      shape("rect", { x: at * width, y: 0, width, height: HEIGHT, class: "reach" }), ...pieces);
  }

  #tell(parts, total, step, peak, peakAt) {
    const rejected = parts.find(({ part }) => part === "rejected");
    const bad = rejected ? `, ${count(rejected.total)} of them ${rejected.name}` : "";
    this.span.textContent = `${count(total)} in the last ${span(step * BARS)}, a bar is ${duration(step)}`;
    this.svg.setAttribute("aria-label",
      `Events over the last ${span(step * BARS)}: ${count(total)} in all${bad}. The most in ${duration(step)}: ${count(peak)}, at ${timeOf(peakAt, step)}.`);
  }

  // A link that has the focus stays the same one.
  #explain(parts) {
    const items = parts.map((part) => {
      const key = JSON.stringify([part.filter, part.faint]);
      const item = this.#links.get(key) ?? this.#link(part);
      item.querySelector("b").textContent = count(part.total);
      return [key, item];
    });
    this.#links = new Map(items);
    const now = items.map(([, item]) => item);
    if (now.length !== this.legend.children.length || now.some((item, at) => item !== this.legend.children[at])) {
      this.legend.replaceChildren(...now);
    }
  }

  #link(part) {
    const mark = shape("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, shape("rect", { width: 10, height: 10, rx: 2, ...look(part) }));
    return make("li", {}, make("a", { href: `#/stream?q=${encoded(part.filter)}` }, mark, make("bdi", {}, part.name), " ", make("b", {})));
  }
}
