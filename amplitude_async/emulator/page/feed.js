// The stream of server-sent events, opened again whenever it ends.

const EVENTS = ["hello", "entries", "skipped", "stats", "faults", "requests", "cleared", "restored"];
const AGAIN_AFTER = 1000;

/** Listen from entry `after` on; `on` has a function for each event and for "state". */
export class Feed {
  #source = null;
  #timer = 0;
  #on;
  #after = 0;

  constructor(on) {
    this.#on = on;
  }

  open(after) {
    this.close();
    this.#after = after;
    const source = new EventSource(`/_emulator/feed?after=${after}`);
    this.#source = source;
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        if (name === "entries" && event.lastEventId) this.#after = Number(event.lastEventId);
        this.#on[name](JSON.parse(event.data));
      });
    }
    source.addEventListener("open", () => this.#on.state("live"));
    source.addEventListener("error", () => this.#failed(source));
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #failed(source) {
    this.#on.state("away");
    // While it connects, the browser tries again by itself.
    if (source.readyState !== EventSource.CLOSED) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.open(this.#after), AGAIN_AFTER);
  }
}
