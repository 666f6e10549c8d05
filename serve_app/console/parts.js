// Components that more than one page uses.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { serverAheadMs } from "./api.js";
import { t } from "./i18n.js";

/** Events for the pages: `job` with the summary of a changed job, `fresh` when a page should fetch all it shows again. */
export const news = new EventTarget();

/** The server's time in ms, updated every second. */
export function useNow() {
  const [now, setNow] = useState(Date.now() + serverAheadMs);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() + serverAheadMs), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

/** A job's state in words, with a mark that does not need colour. */
export function State({ status }) {
  const marks = { accepted: "○", processing: "◐", completed: "●", failed: "✕" };
  return html`<span class="state ${status}"><i aria-hidden="true">${marks[status]}</i>${t(status)}</span>`;
}

export function Bar({ percent, label }) {
  return html`
    <span class="progress" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${percent}>
      <i style=${{ width: `${percent}%` }}></i>
    </span>
  `;
}

/** A dialog that asks `question` and calls `answer` with true or false; closed while `question` is null. */
export function Confirm({ question, answer }) {
  const dialog = useRef();
  useEffect(() => {
    if (question) dialog.current.showModal();
    else dialog.current.close();
  }, [question]);
  return html`
    <dialog ref=${dialog} aria-labelledby="question" onCancel=${() => answer(false)}>
      <p id="question">${question}</p>
      <p class="actions">
        <button onClick=${() => answer(false)}>${t("no")}</button>
        <button class="main" onClick=${() => answer(true)}>${t("yes")}</button>
      </p>
    </dialog>
  `;
}

/** Processing speed against real time: "12.3×". */
export function speed(job) {
  return job.duration && job.processing_time ? `${(job.duration / job.processing_time).toFixed(1)}×` : "–";
}

/** Seconds from `iso` to `now` (ms). */
export const since = (iso, now) => (now - Date.parse(iso)) / 1000;
