// The form that submits a job, as the backend does.

import { html, useState } from "./vendor/preact-htm.js";
import * as api from "./api.js";
import { t } from "./i18n.js";
import { sources } from "./sources.js";

const LANGUAGES = ["auto", "ko", "en", "ja", "zh", "es", "fr", "de"];

export function Submit({ announce }) {
  const [id, setId] = useState(newId);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);

  const send = async (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    const text = (name) => fields.get(name).trim() || undefined;
    const list = (name, between) => text(name)?.split(between).map((item) => item.trim()).filter(Boolean);
    const number = (name) => (fields.get(name) ? Number(fields.get(name)) : undefined);
    setBusy(true);
    setError("");
    try {
      const body = {
        job_id: id.trim(),
        video_url: text("video_url"),
        fastapi_base_url: text("fastapi_base_url"),
        language: text("language"),
        enable_gpu: fields.has("enable_gpu"),
        emotion_detection: fields.has("emotion_detection"),
        max_workers: number("max_workers"),
        num_speakers: number("num_speakers"),
        min_speakers: number("min_speakers"),
        max_speakers: number("max_speakers"),
        vocabulary: list("vocabulary", /\n/),
        languages: list("languages", /[\s,]+/),
        audio_track: /^\d+$/.test(text("audio_track") ?? "") ? number("audio_track") : text("audio_track"),
        channels: fields.has("separate") ? "separate" : undefined,
        start_s: number("start_s"),
        end_s: number("end_s"),
        custom_metadata: text("custom_metadata") && parsed(text("custom_metadata")),
        callback_headers: headers(text("callback_headers")),
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
      <div class="row">
        <label>${t("lang_field")}<input name="language" defaultValue="auto" list="languages" maxlength="16" aria-describedby="lang-help" /></label>
        <label>${t("workers")}<input name="max_workers" type="number" min="1" max="16" defaultValue="4" required /></label>
      </div>
      <p class="help" id="lang-help">${t("lang_help")}</p>
      <div class="row">
        <label>${t("num_speakers")}<input name="num_speakers" type="number" min="1" max="50" aria-describedby="speakers-help" /></label>
        <label>${t("min_speakers")}<input name="min_speakers" type="number" min="1" max="50" /></label>
        <label>${t("max_speakers")}<input name="max_speakers" type="number" min="1" max="50" /></label>
      </div>
      <p class="help" id="speakers-help">${t("speakers_help")}</p>
      <details>
        <summary>${t("more_fields")}</summary>
        <label>${t("vocabulary")}<textarea name="vocabulary" rows="3" aria-describedby="vocabulary-help"></textarea></label>
        <p class="help" id="vocabulary-help">${t("vocabulary_help")}</p>
        <div class="row">
          <label>${t("languages")}<input name="languages" spellcheck="false" placeholder="ko, en" /></label>
          <label>${t("audio_track")}<input name="audio_track" maxlength="3" spellcheck="false" placeholder="1, ko" /></label>
        </div>
        <div class="row">
          <label>${t("start_s")}<input name="start_s" type="number" min="0" step="any" /></label>
          <label>${t("end_s")}<input name="end_s" type="number" min="0" step="any" /></label>
        </div>
        <label class="check"><input type="checkbox" name="separate" />${t("separate")}</label>
        <label>${t("custom_metadata")}<textarea name="custom_metadata" rows="2" spellcheck="false" placeholder='{"order": 7}'></textarea></label>
        <label>${t("callback_headers")}<textarea name="callback_headers" rows="2" spellcheck="false" autocomplete="off" placeholder="Authorization: Bearer …"></textarea></label>
      </details>
      <datalist id="languages">${LANGUAGES.map((code) => html`<option value=${code}></option>`)}</datalist>
      <label class="check"><input type="checkbox" name="enable_gpu" defaultChecked />${t("gpu")}</label>
      <label class="check"><input type="checkbox" name="emotion_detection" defaultChecked />${t("emotions")}</label>
      ${error && html`<p role="alert" class="bad">${error}</p>`}
      <p class="actions"><button class="main" disabled=${busy}>${t("send")}</button></p>
    </form>
  `;
}

/** The JSON of a text; the text itself where it is none, which the server then refuses. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Lines `Name: value` as an object. */
function headers(text) {
  const lines = text?.split("\n").filter((line) => line.trim());
  return lines && Object.fromEntries(lines.map((line) => line.match(/^([^:]*):?(.*)$/).slice(1).map((part) => part.trim())));
}

/** A random UUID; `crypto.randomUUID` exists in secure contexts only. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
