// The API's client. Sends the API key where there is one: it is stored in this tab's sessionStorage and sent as a header only.

const ROOT = new URL("../api/upload-video/", document.baseURI);
const HEALTH = new URL("../health", document.baseURI);
const KEY = "api-key";
const RETRY_MS = 3000;

/** How far the server's clock is ahead of this machine's, in ms. */
export let serverAheadMs = 0;

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

/** Send a request and return its response. Throw a Refusal for any status that is not 2xx. */
async function request(url, { method, body, signal } = {}) {
  const options = { method, signal, headers: { Accept: "*/*" }, cache: "no-store" };
  const sentKey = key.get();
  if (sentKey) options.headers.Authorization = `Bearer ${sentKey}`;
  if (body) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(url, options);
  const date = Date.parse(response.headers.get("Date"));
  if (date) serverAheadMs = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
  if (response.ok) return response;
  const refusal = await response.json().catch(() => ({}));
  if (response.status === 401 && sentKey === key.get())
    window.dispatchEvent(new CustomEvent("key-wanted", { detail: Boolean(sentKey) }));
  throw new Refusal(response.status, refusal.error?.code ?? "", refusal.message ?? `HTTP ${response.status}`);
}

const json = async (url, options) => (await request(url, options)).json();
const jobUrl = (id, rest = "") => new URL(`jobs/${encodeURIComponent(id)}${rest}`, ROOT);

/** A page of the list of jobs; an empty filter is left out. */
export function page({ state, callback, after, limit = 50 }) {
  const url = new URL("jobs", ROOT);
  for (const [name, value] of Object.entries({ state, callback, after, limit }))
    if (value) url.searchParams.set(name, value);
  return json(url);
}

export const status = (id, signal) => json(new URL(`status/${encodeURIComponent(id)}`, ROOT), { signal });
export const timeline = (id, signal) => json(jobUrl(id, "/timeline"), { signal });
export const remove = (id) => json(jobUrl(id), { method: "DELETE" });
export const cancel = (id) => json(jobUrl(id, "/cancel"), { method: "POST" });
/** Give the speakers these names, by speaker id, in place of all that they had. */
export const nameSpeakers = (id, names) => json(jobUrl(id, "/speakers"), { method: "PUT", body: names });
export const redeliver = (id) => json(jobUrl(id, "/redeliver"), { method: "POST" });
export const rerun = (id, body) => json(jobUrl(id, "/rerun"), { method: "POST", body });
export const submit = (body) => json(new URL("process-video", ROOT), { method: "POST", body });
/** The server's health; it has the same body when the status is 503. */
export const health = async () => (await fetch(HEALTH, { cache: "no-store" })).json();

/** Fetch an export and save it as a file; `language` is that of the warnings in it. */
export async function download(id, format, language) {
  const response = await request(jobUrl(id, `/export?format=${format}&warnings=${language}`));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = `${id.replace(/[^A-Za-z0-9._-]/g, "_")}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Read server-sent events from a response's body: {event, data}. */
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
 * Follow the server's events until the returned function is called. `onJob` gets the summary of each changed job.
 * `onFresh` is called when the page should fetch all it shows again: at the start of each stream (a stream lasts 15 s),
 * and every 3 s while there is no stream. `onState` gets "live", "polling" or "offline". A hidden tab does not listen.
 */
export function watch({ onJob, onFresh, onState }) {
  let stopped = false;
  let stream = new AbortController();
  const onVisibility = () => document.hidden && stream.abort();
  document.addEventListener("visibilitychange", onVisibility);

  async function listen() {
    const response = await request(new URL("jobs/events", ROOT), { signal: stream.signal });
    for await (const { event, data } of messages(response.body)) {
      if (event === "open") {
        onState("live");
        onFresh();
      } else if (event === "job") {
        onJob(data);
      }
    }
  }

  async function listenUntilStopped() {
    while (!stopped) {
      if (document.hidden) {
        await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
        continue;
      }
      stream = new AbortController();
      try {
        await listen();
      } catch (error) {
        if (stopped || document.hidden) continue;
        onState(error instanceof Refusal ? "polling" : "offline");
        onFresh();
        await new Promise((later) => setTimeout(later, RETRY_MS));
      }
    }
  }

  listenUntilStopped();
  return () => {
    stopped = true;
    stream.abort();
    document.removeEventListener("visibilitychange", onVisibility);
  };
}
