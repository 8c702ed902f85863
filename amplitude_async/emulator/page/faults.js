// Faults: what the emulator is to do badly, armed by a press, each removable.

import { post, remove } from "./api.js";
import { brief, count, encoded, make, visible } from "./dom.js";

const QUICK = [
  ["Fail the next 5", "503, as in an outage", { status: 503, count: 5 }],
  ["Slow: 3 s", "each answer, until removed", { delay: 3, count: null }],
  ["Drop the next connection", "before the body is read", { preset: "reset" }],
  ["Store, then cut the answer", "a retry is a duplicate", { preset: "cut" }],
];

const PRESETS = [
  ["outage", "503 to everything, until removed"],
  ["broken", "500 once"],
  ["flaky", "503 to every third request"],
  ["slow", "half a second late, until removed"],
  ["timeout", "504, never in time"],
  ["reset", "connection closed before the body is read"],
  ["cut", "stored, then closed without an answer"],
  ["throttled", "429 that names a user"],
  ["rate_limited", "429 with Retry-After"],
  ["quota", "429: the day's quota is used"],
  ["silenced", "400 that names a device"],
  ["rejected_event", "400 for the first event"],
  ["too_large", "413 to more than one event"],
  ["invalid_key", "400 to everything, until removed"],
];

// The words end with what is left, which has its own place here.
const wordsOf = (fault) =>
  visible(String(fault.text ?? fault.name ?? "fault").replace(/, (until it is removed|[\d,]+ more times?)$/, ""));

const leftOf = (fault) => (fault.left === null || fault.left === undefined ? "until removed" : `${count(fault.left)} left`);

const field = (label, attributes) => {
  const input = make("input", attributes);
  return [input, make("label", {}, make("span", {}, label), input)];
};

/** The view of faults and the menu in the header. */
export class Faults {
  #armed = [];
  #user = null;

  constructor(root, menu, { say, changed }) {
    this.say = say;
    this.changed = changed;
    this.lists = [make("ul", { class: "armed" }), make("ul", { class: "armed" })];
    this.throttles = [];
    this.#fillMenu(menu);
    this.#fillView(root);
    this.show([]);
    this.about(null);
  }

  /** Show what is armed. */
  show(faults) {
    const state = JSON.stringify(faults);
    if (state === this.state) return;
    this.state = state;
    this.#armed = faults;
    for (const list of this.lists) {
      // Rows stay as long as their fault, or a press on one would hit another.
      const old = new Map([...list.children].map((row) => [row.dataset.id, row]));
      const rows = faults.map((fault) => {
        const row = old.get(String(fault.id)) ?? this.#row(fault);
        row.querySelector(".left").textContent = leftOf(fault);
        return row;
      });
      list.replaceChildren(...(rows.length ? rows : [make("li", { class: "soft" }, "Nothing is armed: all is answered well.")]));
    }
    this.changed(faults.length);
  }

  /** Of whom "throttle this user" speaks. */
  about(user) {
    this.#user = user;
    for (const button of this.throttles) {
      button.disabled = !user;
      button.querySelector("span").textContent = user
        ? `429 for ${brief(user, 40)}, 5 times` : "choose one of their events first";
    }
  }

  throttle(user) {
    return this.arm({ kind: "throttle", user_ids: [user], count: 5 });
  }

  async arm(fault) {
    try {
      const { faults } = await post("faults", fault);
      if (faults) this.show(faults);
      this.say(faults?.length ? `Armed: ${wordsOf(faults.at(-1))}` : "Armed");
      return true;
    } catch (error) {
      this.say(visible(error.message));
      return false;
    }
  }

  async #remove(path) {
    try {
      const { faults } = await remove(path);
      this.show(faults ?? []);
    } catch (error) {
      this.say(visible(error.message));
    }
  }

  #row(fault) {
    const text = wordsOf(fault);
    return make("li", { "data-id": fault.id },
      make("span", { class: "text" }, text), make("span", { class: "left" }),
      make("button", { type: "button", "aria-label": `Remove the fault: ${text}`,
        onclick: () => this.#remove(`faults/${encoded(fault.id)}`) }, "Remove"));
  }

  #button(title, text, press) {
    return make("button", { class: "choice", type: "button", onclick: press },
      make("b", {}, title), make("span", {}, text));
  }

  #quick() {
    const throttle = this.#button("Throttle this user", "", () => this.throttle(this.#user));
    this.throttles.push(throttle);
    return [...QUICK.map(([title, text, fault]) => this.#button(title, text, () => this.arm(fault))), throttle];
  }

  #fillMenu(menu) {
    menu.append(
      make("div", { class: "choices-list" }, ...this.#quick()), this.lists[0],
      make("p", { class: "more" }, make("a", { href: "#/faults", onclick: () => menu.hidePopover() }, "All faults and presets")));
  }

  #fillView(root) {
    const [status, statusLabel] = field("Status", { type: "number", min: "200", max: "599", placeholder: "as judged", inputmode: "numeric" });
    const [delay, delayLabel] = field("Seconds late", { type: "number", min: "0", step: "any", placeholder: "0", inputmode: "decimal" });
    const [times, timesLabel] = field("Times", { type: "number", min: "1", placeholder: "until removed", inputmode: "numeric" });
    const [path, pathLabel] = field("Only to path", { type: "text", placeholder: "any, such as /batch" });
    const form = make("form", { class: "own" }, statusLabel, delayLabel, timesLabel, pathLabel,
      make("button", { type: "submit", class: "first" }, "Arm"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const fault = { count: times.value ? Number(times.value) : null };
      if (status.value) fault.status = Number(status.value);
      if (delay.value) fault.delay = Number(delay.value);
      if (path.value) fault.path = path.value;
      void this.arm(fault);
    });
    const all = make("button", { type: "button", onclick: () => this.#remove("faults") }, "Remove all");
    root.append(make("div", { class: "scroller fault-page", tabindex: "0", role: "region", "aria-label": "Faults" },
      make("section", {}, make("div", { class: "line" }, make("h2", {}, "Armed"), all), this.lists[1]),
      make("section", {}, make("h2", {}, "At once"), make("div", { class: "cards" }, ...this.#quick())),
      make("section", {}, make("h2", {}, "Presets"), make("div", { class: "cards" },
        ...PRESETS.map(([name, text]) => this.#button(name, text, () => this.arm({ preset: name }))))),
      make("section", {}, make("h2", {}, "Your own"), form)));
  }
}
