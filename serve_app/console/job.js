// The page of one job: its state, the stages' times, its callbacks, the actions on it, and its transcript.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import * as api from "./api.js";
import { Fields, requestOf } from "./fields.js";
import { clock, length, moment, number, t, warnings } from "./i18n.js";
import { Bar, Confirm, news, speed, State } from "./parts.js";
import { sources } from "./sources.js";
import { Callbacks, Events, Stages } from "./timeline.js";
import { Transcript } from "./transcript.js";

const FORMATS = ["srt", "vtt", "txt", "json", "tsv", "rttm"];
const VERDICTS = ["good", "doubtful", "poor"];
const hasEnded = (status) => status === "completed" || status === "failed";
const REFRESH_MS = 1500; // one request for all changes of this time

export function Job({ id, announce }) {
  const [job, setJob] = useState(null);
  const [events, setEvents] = useState([]);
  const [summary, setSummary] = useState(null);
  const [error, setError] = useState(null);
  const shown = useRef({});
  Object.assign(shown.current, { job, error, eventCount: events.length });

  useEffect(() => {
    const requests = new AbortController();
    let timer = null;
    const refresh = async () => {
      try {
        const [status, timeline] = await Promise.all([
          api.status(id, requests.signal),
          api.timeline(id, requests.signal),
        ]);
        setJob(withOldResult(status));
        setEvents(timeline.events);
        setError(null);
      } catch (problem) {
        if (!requests.signal.aborted) setError(problem);
      }
    };
    const refreshIfChanged = async () => {
      const before = shown.current;
      if (!before.job && !before.error) return; // the first request is under way
      const ended = hasEnded(before.job?.status);
      const timeline = ended ? await api.timeline(id, requests.signal).catch(() => null) : null;
      if (timeline?.events.length !== before.eventCount) refresh(); // results are large: only after a new event
    };
    const jobChanged = ({ detail }) => {
      if (detail.job_id !== id) return;
      setSummary((before) => {
        const text = detail.status === "processing" ? t(detail.stage) : t(detail.status);
        if (before?.status !== detail.status || before?.stage !== detail.stage) announce(t("job_now", id, text));
        return detail;
      });
      timer ??= setTimeout(() => ((timer = null), refresh()), REFRESH_MS);
    };
    shown.current.refresh = refresh;
    refresh();
    news.addEventListener("fresh", refreshIfChanged);
    news.addEventListener("job", jobChanged);
    return () => {
      requests.abort();
      clearTimeout(timer);
      news.removeEventListener("fresh", refreshIfChanged);
      news.removeEventListener("job", jobChanged);
    };
  }, [id]);

  if (error?.status === 404) {
    return html`<p class="empty">${t("not_found")} <a href="#/jobs">${t("back")}</a></p>`;
  }
  if (!job)
    return html`<p class="empty" role=${error ? "alert" : null}>${error ? t("refresh_failed", error.message) : t("loading")}</p>`;
  const now =
    summary && summary.status !== job.status && !hasEnded(job.status)
      ? { ...job, ...summary, callback: job.callback }
      : job;
  return html`
    <div class="head">
      <h1 class="id">${id}</h1>
      <${State} status=${now.status} />
      <${Actions} job=${now} announce=${announce} refresh=${() => shown.current.refresh()} />
    </div>
    ${error && html`<p role="alert" class="bad">${t("refresh_failed", error.message)}</p>`}
    <${Summary} job=${now} summary=${summary} events=${events} />
    <div class="columns">
      <section class="card" aria-labelledby="times"><h2 id="times">${t("times")}</h2><${Stages} events=${events} ended=${hasEnded(now.status)} /></section>
      <section class="card" aria-labelledby="callbacks"><h2 id="callbacks">${t("callbacks")}</h2><${Callbacks} callback=${job.callback} events=${events} /></section>
    </div>
    <${Events} events=${events} />
    ${hasEnded(now.status) && html`<${Rerun} id=${id} announce=${announce} refresh=${() => shown.current.refresh()} />`}
    ${job.result && now.status !== "completed" && html`<p class="help">${t("old_result")}</p>`}
    ${job.result ? html`<${Transcript} id=${id} result=${job.result} names=${job.speakers} announce=${announce} refresh=${() => shown.current.refresh()} />` : html`<p class="empty">${t("no_result")}</p>`}
  `;
}

/** The new status, with the old result object where the result is the same: the transcript is not drawn again. */
function withOldResult(status) {
  return (before) =>
    before?.result && before.finished_at === status.finished_at ? { ...status, result: before.result } : status;
}

function Summary({ job, summary, events }) {
  const running = !hasEnded(job.status);
  const { result } = job;
  const progress = Math.max(job.progress, summary?.status === job.status ? summary.progress : 0);
  const queued = events.findLast((event) => event.event === "queued");
  const began = events.findLast((event) => event.event === "started");
  const attempts = new Set(
    events.filter((event) => event.event === "attempt").map((event) => `${event.run}.${event.attempt}`),
  ).size;
  const meta = result?.metadata;
  const facts = [
    [t("created"), moment(job.created_at)],
    [
      t("waited"),
      queued && began && Date.parse(began.at) >= Date.parse(queued.at)
        ? length((Date.parse(began.at) - Date.parse(queued.at)) / 1000)
        : null,
    ],
    [t("finished"), job.finished_at && moment(job.finished_at)],
    [t("attempts"), attempts > 1 ? attempts : null],
    [t("actor"), running ? summary?.actor : null],
    [t("duration"), meta && clock(result.duration)],
    [
      t("processed"),
      meta &&
        `${length(meta.processing_time)} (${speed({ duration: result.duration, processing_time: meta.processing_time })})`,
    ],
    [
      t("spoken"),
      meta &&
        result.language + (meta.language_probability ? ` (${Math.round(100 * meta.language_probability)} %)` : ""),
    ],
    [t("speakers"), meta?.unique_speakers],
    [t("words"), meta && number(result.segments.reduce((sum, segment) => sum + segment.words.length, 0))],
    [t("quality"), meta?.quality && verdict(meta.quality)],
    [t("device"), meta?.device],
    [t("model"), meta?.model_version],
  ];
  return html`
    <section class="card summary">
      ${
        running &&
        html`<p class="now">
        <${Bar} percent=${progress} label=${t("progress")} /><b>${progress} %</b>
        <span>${job.queue_position ? t("position", job.queue_position) : summary?.status === "processing" ? t(summary.stage) : job.message}</span>
      </p>`
      }
      ${job.error_code && html`<p class="bad"><b>${job.error_code}</b> ${job.error_message}</p>`}
      <dl>${facts.filter(([, value]) => value != null && value !== "").map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      ${meta?.warnings.length > 0 && html`<div class="warnings"><b>${t("warned", meta.warnings.length)}</b><ul>${warnings(meta).map((text) => html`<li>${text}</li>`)}</ul></div>`}
    </section>
  `;
}

/** The form that runs an ended job again. */
function Rerun({ id, announce, refresh }) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const send = async (event) => {
    event.preventDefault();
    const form = event.target;
    const url = new FormData(form).get("video_url").trim();
    setBusy(true);
    setError("");
    try {
      const { message } = await api.rerun(id, { video_url: url || undefined, ...requestOf(form, { keep: true }) });
      if (url) sources.set(id, url);
      announce(message);
      refresh();
    } catch (problem) {
      setError(problem.message);
    }
    setBusy(false);
  };
  return html`
    <details class="card">
      <summary>${t("rerun")}</summary>
      <form class="fields" onSubmit=${send}>
        <p class="help">${t("rerun_help")}</p>
        <label>${t("video_url")}<input name="video_url" type="url" maxlength="8192" spellcheck="false" aria-describedby="rerun-url-help" /></label>
        <p class="help" id="rerun-url-help">${t("rerun_url_help")}</p>
        <${Fields} keep />
        ${error && html`<p role="alert" class="bad">${error}</p>`}
        <p class="actions"><button class="main" disabled=${busy}>${t("run_again")}</button></p>
      </form>
    </details>
  `;
}

/** The verdict of a result and its reasons in the reader's language; a code that has no text stays as it is. */
function verdict({ verdict: code, reasons = [] }) {
  const known = VERDICTS.includes(code) ? t(`verdict_${code}`) : code;
  return reasons.length ? `${known} (${reasons.map((reason) => t(reason)).join(", ")})` : known;
}

function Actions({ job, announce, refresh }) {
  const [asked, setAsked] = useState(null); // "cancel", "delete" or "redeliver": waits for a yes or no
  const id = job.job_id;
  const ended = hasEnded(job.status);
  useEffect(() => setAsked(null), [ended]); // cancel and delete are for different states
  const perform = async (work, done) => {
    try {
      await work();
      announce(done);
      return true;
    } catch (problem) {
      announce(problem.message);
      return false;
    }
  };
  const cancel = () =>
    api.cancel(id).catch((problem) => {
      throw problem.status === 409 ? new Error(t("ended_meanwhile")) : problem;
    });
  const actions = {
    cancel: () => perform(cancel, t("cancelled")).then(refresh),
    delete: async () => (await perform(() => api.remove(id), t("deleted"))) && (location.hash = "#/jobs"),
    redeliver: () => perform(() => api.redeliver(id), t("redelivered")).then(refresh),
  };
  const answer = (yes) => {
    setAsked(null);
    if (yes) actions[asked]();
  };
  return html`
    <div class="actions">
      ${
        job.result &&
        html`<span class="downloads" role="group" aria-label=${t("download")}>
        <span aria-hidden="true">${t("download")}</span>
        ${FORMATS.map((format) => html`<button onClick=${() => perform(() => api.download(id, format, document.documentElement.lang), "")}>${format.toUpperCase()}</button>`)}
      </span>`
      }
      ${ended && html`<button onClick=${() => setAsked("redeliver")}>${t("redeliver")}</button>`}
      ${ended ? html`<button class="danger" onClick=${() => setAsked("delete")}>${t("delete")}</button>` : html`<button class="danger" onClick=${() => setAsked("cancel")}>${t("cancel")}</button>`}
      <${Confirm} question=${asked && t(`${asked}_ask`)} answer=${answer} />
    </div>
  `;
}
