// The emulator's own addresses.

const ROOT = "/_emulator/";

const ask = async (path, options) => {
  let answer;
  try {
    answer = await fetch(ROOT + path, options);
  } catch {
    throw new Error("The emulator does not answer: is it still running?");
  }
  const document = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(document.error ?? `The emulator answered ${answer.status}`);
  return document;
};

const query = (values) => {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return given.length ? "?" + new URLSearchParams(given) : "";
};

export const get = (path, values = {}) => ask(path + query(values));

export const post = (path, body = {}) =>
  ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

export const remove = (path) =>
  ask(path, { method: "DELETE", headers: { "Content-Type": "application/json" } });
