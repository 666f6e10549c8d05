// The list of jobs, newest first, a page at a time, updated by the server's events.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import * as api from "./api.js";
import { age, length, moment, t } from "./i18n.js";
import { Bar, news, since, speed, State, useNow } from "./parts.js";

const FILTERS = [
  ["all", {}],
  ...["accepted", "processing", "completed", "failed"].map((state) => [state, { state }]),
  ...["pending", "undelivered"].map((callback) => [`tab_${callback}`, { callback }]),
];
const LIMIT = 50;

export function Jobs({ query, announce }) {
  const { state = "", callback = "", after = "" } = query;
  const [page, setPage] = useState(null);
  const [health, setHealth] = useState(null);
  const [error, setError] = useState("");
  const now = useNow();
  const shown = useRef(null);
  shown.current = page;

  useEffect(() => {
    let gone = false;
    const refresh = async () => {
      try {
        const [found, standing] = await Promise.all([api.page({ state, callback, after, limit: LIMIT }), api.health()]);
        if (gone) return;
        setPage(found);
        setHealth(standing);
        setError("");
      } catch (problem) {
        if (!gone) setError(t("refresh_failed", problem.message));
      }
    };
    const jobChanged = (event) => {
      const before = shown.current;
      if (!before) return;
      const summary = event.detail;
      const known = before.jobs.find((job) => job.job_id === summary.job_id);
      if (known && known.status !== summary.status) announce(t("job_now", summary.job_id, t(summary.status)));
      const next = { ...before, jobs: merged(before.jobs, summary, { state, callback, first: !after }) };
      shown.current = next;
      setPage(next);
    };
    setPage(null);
    shown.current = null;
    refresh();
    news.addEventListener("fresh", refresh);
    news.addEventListener("job", jobChanged);
    return () => {
      gone = true;
      news.removeEventListener("fresh", refresh);
      news.removeEventListener("job", jobChanged);
    };
  }, [state, callback, after]);

  return html`
    <div class="head">
      <h1>${t("jobs")}</h1>
      <${Load} health=${health} />
      <${OpenJob} />
    </div>
    <nav class="tabs" aria-label=${t("filter")}>
      ${FILTERS.map(
        ([name, filter]) =>
          html`<a href=${link(filter)} aria-current=${link(filter) === link({ state, callback }) ? "page" : null}>${t(name)}</a>`,
      )}
    </nav>
    ${error && html`<p role="alert" class="bad">${error}</p>`}
    ${page ? html`<${Table} jobs=${page.jobs} now=${now} />` : !error && html`<p class="empty">${t("loading")}</p>`}
    <nav class="pager" aria-label=${t("pages")}>
      ${after && html`<a class="button" href=${link({ state, callback })}>⇤ ${t("newest")}</a>`}
      ${page?.next_after && html`<a class="button" rel="next" href=${link({ state, callback, after: page.next_after })}>${t("older")} →</a>`}
    </nav>
  `;
}

/** The list with a changed job: replaced in its place, inserted on the first page, or removed when the filter no longer takes it. */
function merged(jobs, summary, { state, callback, first }) {
  const wanted = (!state || summary.status === state) && (!callback || summary.callback === callback);
  const place = jobs.findIndex((job) => job.job_id === summary.job_id);
  if (place >= 0) return wanted ? jobs.with(place, summary) : jobs.toSpliced(place, 1);
  if (!first || !wanted) return jobs;
  const before = jobs.findIndex((job) => job.created_at < summary.created_at);
  return jobs.toSpliced(before < 0 ? jobs.length : before, 0, summary).slice(0, LIMIT);
}

function link({ state, callback, after }) {
  const query = new URLSearchParams(Object.entries({ state, callback, after }).filter(([, value]) => value));
  return `#/jobs${query.size ? `?${query}` : ""}`;
}

function Load({ health }) {
  if (!health?.jobs) return null;
  const { running, queued, limit, queue_limit } = health.jobs;
  return html`
    <p class="load">
      <span>${t("running_of", running, limit)}</span><span>${t("waiting_of", queued, queue_limit)}</span>
      ${!health.accepting && html`<strong class="bad">${t("full")}</strong>`}
      ${health.failing.length > 0 && html`<strong class="bad">${t("failing", health.failing.join(", "))}</strong>`}
    </p>
  `;
}

function OpenJob() {
  const open = (event) => {
    event.preventDefault();
    const id = new FormData(event.target).get("id").trim();
    if (id) location.hash = `#/jobs/${encodeURIComponent(id)}`;
  };
  return html`
    <form class="open" role="search" onSubmit=${open}>
      <input name="id" aria-label=${t("open_job")} placeholder=${t("job_id")} autocomplete="off" spellcheck="false" />
      <button>${t("open")}</button>
    </form>
  `;
}

const COLUMNS = ["job", "state", "progress", "age", "duration", "speed", "warnings", "callback"];

function Table({ jobs, now }) {
  if (!jobs.length) return html`<p class="empty">${t("no_jobs")}</p>`;
  return html`
    <table class="jobs">
      <caption class="unseen">${t("on_page", jobs.length)}</caption>
      <thead><tr>${COLUMNS.map((name) => html`<th scope="col" data-column=${name}>${t(name)}</th>`)}</tr></thead>
      <tbody>${jobs.map((job) => html`<${Row} key=${job.job_id} job=${job} now=${now} />`)}</tbody>
    </table>
  `;
}

const cell = (value) => (value == null ? "number unknown" : "number");

function Row({ job, now }) {
  const running = job.status === "processing";
  const doing = job.queue_position
    ? t("position", job.queue_position)
    : (job.error_code ?? (running ? t(job.stage) : ""));
  return html`
    <tr class=${job.status}>
      <th scope="row" class="job"><a href=${`#/jobs/${encodeURIComponent(job.job_id)}`}>${job.job_id}</a></th>
      <td class="state-cell"><${State} status=${job.status} /> <span class="doing" title=${job.message}>${doing}</span></td>
      <td class="progress"><${Bar} percent=${job.progress} label=${`${t("progress")}, ${job.job_id}`} /><span>${job.progress} %</span></td>
      <td class="age" data-name=${t("age")}><time datetime=${job.created_at} title=${moment(job.created_at)}>${age(since(job.created_at, now))}</time></td>
      <td class=${cell(job.duration)} data-name=${t("duration")}>${length(job.duration)}</td>
      <td class=${cell(job.duration)} data-name=${t("speed")}>${speed(job)}</td>
      <td class=${cell(job.warnings)} data-name=${t("warnings")}>${job.warnings ? html`<b class="warned">${job.warnings}</b>` : (job.warnings ?? "–")}</td>
      <td class="callback ${job.callback}" data-name=${t("callback")}>${t(`cb_${job.callback}`)}</td>
    </tr>
  `;
}
