// Small parts that more than one page shows.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { ahead } from "./api.js";
import { t } from "./i18n.js";

/** What the pages hear: `job` with a line of the list, and `fresh` when all that is shown should be asked for again. */
export const news = new EventTarget();

/** The server's time in ms, anew every second. */
export function useNow() {
  const [now, setNow] = useState(Date.now() + ahead);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() + ahead), 1000);
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

/** Asks before something is done. `ask` null: closed. */
export function Ask({ ask, answer }) {
  const dialog = useRef();
  useEffect(() => {
    if (ask) dialog.current.showModal();
    else dialog.current.close();
  }, [ask]);
  return html`
    <dialog ref=${dialog} aria-labelledby="ask" onCancel=${() => answer(false)}>
      <p id="ask">${ask}</p>
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

export const since = (iso, now) => (now - Date.parse(iso)) / 1000;
