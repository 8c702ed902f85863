// Copying: a button that says it has, and code that can be taken by hand where it may not.

import { make } from "./dom.js";

const SAID_FOR = 1500;

/** Copy text; where the browser refuses, mark it in `shown`. */
export const copy = async (text, shown) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Only a page of this machine, or one over TLS, may use the clipboard.
    if (shown) getSelection().selectAllChildren(shown);
    return false;
  }
};

/** A button that copies what `text()` returns. */
export const copyButton = (text, shown, label = "Copy") => {
  const button = make("button", { class: "copy", type: "button" }, label);
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text(), shown?.())) ? "Copied" : "Press Ctrl-C";
    setTimeout(() => { button.textContent = label; }, SAID_FOR);
  });
  return button;
};

/** Code with a button that copies it. */
export const codeBlock = (text, label) => {
  const code = make("code", {}, text);
  return make("div", { class: "code copied" },
    make("pre", { tabindex: "0", "aria-label": label }, code), copyButton(() => text, () => code));
};
