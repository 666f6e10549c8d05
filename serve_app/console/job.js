// One job: how it stands, what ran when, its callbacks, what one can do with it, and its transcript.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import * as api from "./api.js";
import { clock, length, moment, number, t, warnings } from "./i18n.js";
import { Ask, Bar, news, speed, State } from "./parts.js";
import { Callbacks, Events, Stages } from "./timeline.js";
import { Transcript } from "./transcript.js";

const FORMATS = ["srt", "vtt", "txt", "json", "tsv", "rttm"];
const ENDED = ["completed", "failed"];
const SOON_MS = 1500;

export function Job({ id, say }) {
  const [job, setJob] = useState(null);
  const [events, setEvents] = useState([]);
  const [line, setLine] = useState(null);
  const [error, setError] = useState(null);
  const shown = useRef({});
  Object.assign(shown.current, { job, error, told: events.length });

  useEffect(() => {
    const leave = new AbortController();
    let soon = null;
    const refresh = async () => {
      try {
        const [status, { events }] = await Promise.all([api.status(id, leave.signal), api.timeline(id, leave.signal)]);
        setJob(renewed(status));
        setEvents(events);
        setError(null);
      } catch (problem) {
        if (!leave.signal.aborted) setError(problem);
      }
    };
    const fresh = async () => {
      const { job, error, told } = shown.current;
      if (!job && !error) return; // it comes
      const now = ENDED.includes(job?.status) ? await api.timeline(id, leave.signal).catch(() => null) : null;
      if (now === null || now.events.length !== told) refresh(); // results are large: only where something happened
    };
    const heard = ({ detail }) => {
      if (detail.job_id !== id) return;
      setLine((before) => {
        const words = detail.status === "processing" ? t(detail.stage) : t(detail.status);
        if (before?.status !== detail.status || before?.stage !== detail.stage) say(t("job_now", id, words));
        return detail;
      });
      soon ??= setTimeout(() => ((soon = null), refresh()), SOON_MS);
    };
    shown.current.refresh = refresh;
    refresh();
    news.addEventListener("fresh", fresh);
    news.addEventListener("job", heard);
    return () => {
      leave.abort();
      clearTimeout(soon);
      news.removeEventListener("fresh", fresh);
      news.removeEventListener("job", heard);
    };
  }, [id]);

  if (error?.status === 404) {
    return html`<p class="empty">${t("not_found")} <a href="#/jobs">${t("back")}</a></p>`;
  }
  if (!job)
    return html`<p class="empty" role=${error ? "alert" : null}>${error ? t("refresh_failed", error.message) : t("loading")}</p>`;
  const now =
    line && line.status !== job.status && !ENDED.includes(job.status)
      ? { ...job, ...line, callback: job.callback }
      : job;
  return html`
    <div class="head">
      <h1 class="id">${id}</h1>
      <${State} status=${now.status} />
      <${Actions} job=${now} say=${say} refresh=${() => shown.current.refresh()} />
    </div>
    ${error && html`<p role="alert" class="bad">${t("refresh_failed", error.message)}</p>`}
    <${Standing} job=${now} line=${line} events=${events} />
    <div class="columns">
      <section class="card" aria-labelledby="times"><h2 id="times">${t("times")}</h2><${Stages} events=${events} ended=${ENDED.includes(now.status)} /></section>
      <section class="card" aria-labelledby="callbacks"><h2 id="callbacks">${t("callbacks")}</h2><${Callbacks} callback=${job.callback} events=${events} /></section>
    </div>
    <${Events} events=${events} />
    ${job.result ? html`<${Transcript} id=${id} result=${job.result} />` : html`<p class="empty">${t("no_result")}</p>`}
  `;
}

/** The new status with the old result where that is the same: the transcript stays as it is, playhead and all. */
function renewed(status) {
  return (before) =>
    before?.result && before.finished_at === status.finished_at ? { ...status, result: before.result } : status;
}

function Standing({ job, line, events }) {
  const running = !ENDED.includes(job.status);
  const { result } = job;
  const progress = Math.max(job.progress, line?.status === job.status ? line.progress : 0);
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
    [t("device"), meta?.device],
    [t("model"), meta?.model_version],
  ];
  return html`
    <section class="card standing">
      ${
        running &&
        html`<p class="now">
        <${Bar} percent=${progress} label=${t("progress")} /><b>${progress} %</b>
        <span>${job.queue_position ? t("position", job.queue_position) : line?.status === "processing" ? t(line.stage) : job.message}</span>
      </p>`
      }
      ${job.error_code && html`<p class="bad"><b>${job.error_code}</b> ${job.error_message}</p>`}
      <dl>${facts.filter(([, value]) => value != null && value !== "").map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      ${meta?.warnings.length > 0 && html`<div class="warnings"><b>${t("warned", meta.warnings.length)}</b><ul>${warnings(meta).map((text) => html`<li>${text}</li>`)}</ul></div>`}
    </section>
  `;
}

function Actions({ job, say, refresh }) {
  const [ask, setAsk] = useState(null);
  const id = job.job_id;
  const ended = ENDED.includes(job.status);
  useEffect(() => setAsk(null), [ended]); // what was asked is no longer the question
  const tried = async (work, done) => {
    try {
      await work();
      say(done);
      return true;
    } catch (problem) {
      say(problem.message);
      return false;
    }
  };
  const cancel = async () => {
    if (ENDED.includes((await api.status(id)).status)) throw new Error(t("ended_meanwhile")); // the same request would delete it
    await api.remove(id);
  };
  const doing = {
    cancel: () => tried(cancel, t("cancelled")).then(refresh),
    delete: async () => (await tried(() => api.remove(id), t("deleted"))) && (location.hash = "#/jobs"),
    redeliver: () => tried(() => api.redeliver(id), t("redelivered")).then(refresh),
  };
  const answer = (yes) => {
    setAsk(null);
    if (yes) doing[ask]();
  };
  return html`
    <div class="actions">
      ${
        job.result &&
        html`<span class="downloads" role="group" aria-label=${t("download")}>
        <span aria-hidden="true">${t("download")}</span>
        ${FORMATS.map((format) => html`<button onClick=${() => tried(() => api.download(id, format, document.documentElement.lang), "")}>${format.toUpperCase()}</button>`)}
      </span>`
      }
      ${ended && html`<button onClick=${() => setAsk("redeliver")}>${t("redeliver")}</button>`}
      ${ended ? html`<button class="danger" onClick=${() => setAsk("delete")}>${t("delete")}</button>` : html`<button class="danger" onClick=${() => setAsk("cancel")}>${t("cancel")}</button>`}
      <${Ask} ask=${ask && t(`${ask}_ask`)} answer=${answer} />
    </div>
  `;
}
