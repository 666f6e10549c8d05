// A job's history: which stage ran when, beside which other; its callbacks; and all events in a table.

import { html } from "./vendor/preact-htm.js";
import { length, moment, t } from "./i18n.js";
import { useNow } from "./parts.js";

const ENDS = new Set(["completed", "failed", "given_back"]);

/**
 * The attempts of a job: [{run, attempt, at, until, givenBack, stages: [{name, at, until}]}], times in ms. `until` is
 * null while an attempt or a stage runs; an attempt whose process died ends where the next attempt begins.
 */
export function attempts(events) {
  const found = [];
  let open = null;
  const close = (at) => {
    if (!open) return;
    open.until = at;
    for (const stage of open.stages) stage.until ??= at;
    open = null;
  };
  for (const { event, at: iso, run, attempt, detail } of events) {
    const at = Date.parse(iso);
    if (event === "attempt") {
      close(at);
      open = { run, attempt, at, until: null, givenBack: false, stages: [] };
      found.push(open);
    } else if (open && event === "stage_started") {
      open.stages.push({ name: detail, at, until: null });
    } else if (open && event === "stage_ended") {
      const stage = open.stages.findLast(({ name, until }) => name === detail && until === null);
      if (stage) stage.until = at;
    } else if (open && ENDS.has(event)) {
      open.givenBack = event === "given_back";
      close(at);
    }
  }
  return found;
}

export function Stages({ events, ended }) {
  const now = useNow();
  const all = attempts(events);
  if (!all.some((attempt) => attempt.stages.length)) return html`<p class="empty">${t("no_stages")}</p>`;
  return all.map((attempt) => html`<${Attempt} attempt=${attempt} many=${all.length > 1} now=${ended ? null : now} />`);
}

function Attempt({ attempt, many, now }) {
  const end = attempt.until ?? now ?? Math.max(attempt.at, ...attempt.stages.map((stage) => stage.until ?? stage.at));
  const whole = Math.max(1, end - attempt.at);
  const bar = ({ name, at, until }) => {
    const last = until ?? end;
    const style = {
      left: `${(100 * (at - attempt.at)) / whole}%`,
      width: `${Math.max(0.4, (100 * (last - at)) / whole)}%`,
    };
    const took = length((last - at) / 1000);
    const words = t(until === null ? "stage_runs" : "stage_row", t(name), length((at - attempt.at) / 1000), took);
    return html`
      <li title=${words}>
        <span class="unseen">${words}</span>
        <span class="stage-name" aria-hidden="true">${t(name)}</span>
        <span class="lane" aria-hidden="true"><i class="${name} ${until === null ? "runs" : ""}" style=${style}></i></span>
        <span class="took" aria-hidden="true">${took}</span>
      </li>
    `;
  };
  return html`
    ${many && html`<h3>${t("attempt_n", attempt.run, attempt.attempt)}${attempt.givenBack ? ` · ${t("given_back")}` : ""}</h3>`}
    <ol class="stages">${attempt.stages.map(bar)}</ol>
    <p class="axis" aria-hidden="true"><span>0</span><span>${length(whole / 1000)}</span></p>
  `;
}

export function Callbacks({ callback, events }) {
  const tries = events.filter(({ event }) => event.startsWith("callback_"));
  if (callback.state === "none" && !tries.length) return html`<p class="empty">${t("no_callbacks")}</p>`;
  return html`
    <p><b class="callback ${callback.state}">${t("callback_now", t(`cb_${callback.state}`), callback.attempts)}</b>
      ${callback.last_error && html` <span>${t("last_error", callback.last_error)}</span>`}</p>
    <ol class="tries">
      ${tries.map(({ at, event, detail }) => html`<li class=${event}><time datetime=${at}>${moment(at)}</time><span>${t(`ev_${event}`)}</span><span>${detail ?? ""}</span></li>`)}
    </ol>
  `;
}

export function Events({ events }) {
  const row = ({ at, event, run, attempt, detail }) => html`
    <tr>
      <td><time datetime=${at}>${moment(at)}</time></td>
      <td class="number">${((Date.parse(at) - Date.parse(events[0].at)) / 1000).toFixed(1)}</td>
      <td class="number">${run}.${attempt}</td>
      <td>${t(`ev_${event}`)}</td>
      <td>${event.startsWith("stage_") ? t(detail) : (detail ?? "")}</td>
    </tr>
  `;
  return html`
    <details class="card events">
      <summary>${t("events")} (${events.length})</summary>
      <table>
        <thead><tr><th scope="col">${t("when")}</th><th scope="col">+ ${t("s")}</th><th scope="col">${t("attempts")}</th><th scope="col">${t("event")}</th><th scope="col">${t("detail")}</th></tr></thead>
        <tbody>${events.map(row)}</tbody>
      </table>
    </details>
  `;
}
