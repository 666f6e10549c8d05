// Asks the API, with the key where there is one. The key lives in this tab's sessionStorage and travels as a header only.

const ROOT = new URL("../api/upload-video/", document.baseURI);
const HEALTH = new URL("../health", document.baseURI);
const KEY = "api-key";
const AGAIN_MS = 3000;

/** How far the server's clock is ahead of ours, in ms. */
export let ahead = 0;

export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** The answer as it is; throws a Refusal for what is none. */
async function ask(place, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "*/*" };
  const used = key.get();
  if (used) headers.Authorization = `Bearer ${used}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(place, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" });
  const date = Date.parse(answer.headers.get("Date"));
  if (date) ahead = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401 && used === key.get())
    window.dispatchEvent(new CustomEvent("key-wanted", { detail: Boolean(used) }));
  throw new Refusal(answer.status, said.error?.code ?? "", said.message ?? `HTTP ${answer.status}`);
}

const json = async (place, options) => (await ask(place, options)).json();
const about = (id, rest = "") => new URL(`jobs/${encodeURIComponent(id)}${rest}`, ROOT);

/** `null` and "" are left out. */
export function page({ state, callback, after, limit = 50 }) {
  const place = new URL("jobs", ROOT);
  for (const [name, value] of Object.entries({ state, callback, after, limit }))
    if (value) place.searchParams.set(name, value);
  return json(place);
}

export const status = (id, signal) => json(new URL(`status/${encodeURIComponent(id)}`, ROOT), { signal });
export const timeline = (id, signal) => json(about(id, "/timeline"), { signal });
export const remove = (id) => json(about(id), { method: "DELETE" });
export const redeliver = (id) => json(about(id, "/redeliver"), { method: "POST" });
export const submit = (body) => json(new URL("process-video", ROOT), { method: "POST", body });
/** 503 is an answer, too. */
export const health = async () => (await fetch(HEALTH, { cache: "no-store" })).json();

/** Fetch an export with the key and hand it to the browser as a file; its warnings in the reader's language. */
export async function download(id, format, language) {
  const answer = await ask(about(id, `/export?format=${format}&warnings=${language}`));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = `${id.replace(/[^A-Za-z0-9._-]/g, "_")}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Messages of a stream of server-sent events. */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/, 2)));
      if (fields.event) yield { event: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

/**
 * Hear of changes until `stop` is called. `onFresh` is called when everything shown should be asked for again: at the
 * start of each stream (they last 15 s), and every 3 s while there is none. A hidden tab does not listen.
 */
export function watch({ onJob, onFresh, onState }) {
  let stopped = false;
  let leave = new AbortController();
  const wake = () => document.hidden && leave.abort();
  document.addEventListener("visibilitychange", wake);

  async function listen() {
    const answer = await ask(new URL("jobs/events", ROOT), { signal: leave.signal });
    for await (const { event, data } of messages(answer.body)) {
      if (event === "open") {
        onState("live");
        onFresh();
      } else if (event === "job") {
        onJob(data);
      }
    }
  }

  async function keep() {
    while (!stopped) {
      if (document.hidden) {
        await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
        continue;
      }
      leave = new AbortController();
      try {
        await listen();
      } catch (error) {
        if (stopped || document.hidden) continue;
        onState(error instanceof Refusal ? "polling" : "offline");
        onFresh();
        await new Promise((later) => setTimeout(later, AGAIN_MS));
      }
    }
  }

  keep();
  return () => {
    stopped = true;
    leave.abort();
    document.removeEventListener("visibilitychange", wake);
  };
}
