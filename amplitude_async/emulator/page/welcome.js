// What there is to see before anything has come: the lines to copy.

import { post } from "./api.js";
import { codeBlock } from "./copying.js";
import { make } from "./dom.js";

const lines = (url) => [
  ["In the environment", `AMPLITUDE_SERVER_URL=${url}/2/httpapi`],
  ["In Python", `from amplitude_async import Amplitude

url = "${url}/2/httpapi"
async with Amplitude("test-key", server_url=url) as client:
    await client.track("Signed Up", user_id="user-1")`],
  ["With curl", `curl --json '{"api_key": "test-key", "events":
  [{"event_type": "Signed Up", "user_id": "user-1"}]}' \\
  ${url}/2/httpapi`],
];

const batchLines = (url) => [
  ["In the environment", `MPARTICLE_BASE_URL=${url}/v2`],
  ["In Python", `from amplitude_async.mparticle import Batch, CustomEvent, MParticle

batch = Batch(
    environment="development",
    user_identities={"customer_id": "user-1"},
    events=[CustomEvent(event_name="Paid", custom_event_type="other")],
)
url = "${url}/v2"
async with MParticle("test-key", "test-secret", base_url=url) as client:
    await client.upload(batch)`],
  ["With curl", `curl --user test-key:test-secret --json '{"environment": "development",
  "user_identities": {"customer_id": "user-1"}, "events": [
  {"event_type": "custom_event", "data": {"event_name": "Paid", "custom_event_type": "other"}}]}' \\
  ${url}/v2/events`],
];

/** A button that has the emulator send itself an event. */
export const testButton = (say) => {
  const button = make("button", { class: "first", type: "button" }, "Send a test event");
  button.addEventListener("click", async () => {
    button.disabled = true;
    await post("test-event").catch((error) => say(error.message));
    button.disabled = false;
  });
  return button;
};

const blocks = (pairs) =>
  pairs.flatMap(([title, text]) => [make("h3", {}, title), codeBlock(text, title)]);

/** The empty stream. */
export const welcome = (url, say) =>
  make("div", { class: "welcome", hidden: true },
    make("h2", {}, "Nothing has come in yet"),
    make("p", { class: "soft" }, "Point a client here, and each event shows up the moment it arrives."),
    ...blocks(lines(url)), make("p", {}, testButton(say)));

/** The stream of mParticle's events where there are none. */
export const welcomeBatches = (url) =>
  make("div", { class: "welcome", hidden: true },
    make("h2", {}, "No batch has come in yet"),
    make("p", { class: "soft" }, "Point an mParticle client here: each event of a batch has its row."),
    ...blocks(batchLines(url)));

/** The empty detail. */
export const placeholder = (url) =>
  make("div", { class: "placeholder" },
    make("p", {}, "Choose a row to see all of it: properties, request, and the code that sends it."),
    make("p", { class: "soft" }, make("kbd", {}, "j"), " ", make("kbd", {}, "k"), " move, ",
      make("kbd", {}, "Enter"), " opens, ", make("kbd", {}, "Esc"), " closes"),
    make("h2", { class: "small" }, "Send here"), codeBlock(`${url}/2/httpapi`, "Address to send to"),
    make("h2", { class: "small" }, "mParticle"), codeBlock(`${url}/v2`, "Base address for mParticle"));
