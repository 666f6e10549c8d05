// The form that submits a job, as the backend does.

import { html, useState } from "./vendor/preact-htm.js";
import * as api from "./api.js";
import { Fields, requestOf } from "./fields.js";
import { t } from "./i18n.js";
import { sources } from "./sources.js";

export function Submit({ announce }) {
  const [id, setId] = useState(newId);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);

  const send = async (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    const text = (name) => fields.get(name).trim() || undefined;
    setBusy(true);
    setError("");
    try {
      const body = {
        job_id: id.trim(),
        video_url: text("video_url"),
        fastapi_base_url: text("fastapi_base_url"),
        ...requestOf(event.target),
      };
      const { job_id, message } = await api.submit(body);
      sources.set(job_id, body.video_url);
      announce(message);
      location.hash = `#/jobs/${encodeURIComponent(job_id)}`;
    } catch (problem) {
      setError(problem.message);
      setBusy(false);
    }
  };

  return html`
    <div class="head"><h1>${t("submit")}</h1></div>
    <form class="card fields" onSubmit=${send}>
      <label>${t("job_id")}
        <span class="beside">
          <input name="job_id" required maxlength="128" pattern="[A-Za-z0-9][A-Za-z0-9._:\\-]*" spellcheck="false" value=${id} onInput=${(event) => setId(event.target.value)} />
          <button type="button" onClick=${() => setId(newId())}>${t("new_id")}</button>
        </span>
      </label>
      <label>${t("video_url")}<input name="video_url" type="url" required maxlength="8192" spellcheck="false" aria-describedby="url-help" /></label>
      <p class="help" id="url-help">${t("video_url_help")}</p>
      <label>${t("base_url")}<input name="fastapi_base_url" type="url" maxlength="8192" spellcheck="false" aria-describedby="base-help" /></label>
      <p class="help" id="base-help">${t("base_url_help")}</p>
      <${Fields} />
      ${error && html`<p role="alert" class="bad">${error}</p>`}
      <p class="actions"><button class="main" disabled=${busy}>${t("send")}</button></p>
    </form>
  `;
}

/** A random UUID; `crypto.randomUUID` exists in secure contexts only. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
