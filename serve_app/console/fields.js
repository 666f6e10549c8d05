// The fields that say how a job is processed: of the form that submits one, and of the form that runs one again.

import { html } from "./vendor/preact-htm.js";
import { t } from "./i18n.js";

const LANGUAGES = ["auto", "ko", "en", "ja", "zh", "es", "fr", "de"];

/** The fields. `keep`: of a job that is run again, where an empty one keeps what the job has. */
export function Fields({ keep = false }) {
  return html`
    <div class="row">
      <label>${t("lang_field")}<input name="language" defaultValue=${keep ? "" : "auto"} list="languages" maxlength="16" aria-describedby="lang-help" /></label>
      <label>${t("workers")}<input name="max_workers" type="number" min="1" max="16" defaultValue=${keep ? "" : "4"} required=${!keep} /></label>
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
      <${Choice} keep=${keep} name="separate" text=${t("separate")} />
      <label>${t("custom_metadata")}<textarea name="custom_metadata" rows="2" spellcheck="false" placeholder='{"order": 7}'></textarea></label>
      <label>${t("callback_headers")}<textarea name="callback_headers" rows="2" spellcheck="false" autocomplete="off" placeholder="Authorization: Bearer …"></textarea></label>
    </details>
    <datalist id="languages">${LANGUAGES.map((code) => html`<option value=${code}></option>`)}</datalist>
    <${Choice} keep=${keep} name="enable_gpu" text=${t("gpu")} checked />
    <${Choice} keep=${keep} name="emotion_detection" text=${t("emotions")} checked />
  `;
}

/** Yes or no; with `keep` also neither. */
function Choice({ keep, name, text, checked = false }) {
  if (!keep)
    return html`<label class="check"><input type="checkbox" name=${name} defaultChecked=${checked} />${text}</label>`;
  return html`
    <label>${text}
      <select name=${name}>
        <option value="">${t("as_it_was")}</option>
        <option value="true">${t("yes")}</option>
        <option value="false">${t("no")}</option>
      </select>
    </label>
  `;
}

/** What a form with `Fields` asks for; what is undefined is not sent. */
export function requestOf(form, { keep = false } = {}) {
  const fields = new FormData(form);
  const text = (name) => fields.get(name).trim() || undefined;
  const list = (name, between) =>
    text(name)
      ?.split(between)
      .map((item) => item.trim())
      .filter(Boolean);
  const number = (name) => (fields.get(name) ? Number(fields.get(name)) : undefined);
  const chosen = (name) => (keep ? { true: true, false: false }[fields.get(name)] : fields.has(name));
  const asked = {
    language: text("language"),
    enable_gpu: chosen("enable_gpu"),
    emotion_detection: chosen("emotion_detection"),
    max_workers: number("max_workers"),
    num_speakers: number("num_speakers"),
    min_speakers: number("min_speakers"),
    max_speakers: number("max_speakers"),
    vocabulary: list("vocabulary", /\n/),
    languages: list("languages", /[\s,]+/),
    audio_track: /^\d+$/.test(text("audio_track") ?? "") ? number("audio_track") : text("audio_track"),
    channels: { true: "separate", false: keep ? "mix" : undefined }[chosen("separate")],
    start_s: number("start_s"),
    end_s: number("end_s"),
    custom_metadata: text("custom_metadata") && parsed(text("custom_metadata")),
    callback_headers: headers(text("callback_headers")),
  };
  if (keep) {
    const clear = (...names) => names.forEach((name) => (asked[name] ??= null)); // null: the default
    if (asked.num_speakers || asked.channels === "separate") clear("min_speakers", "max_speakers");
    if (asked.min_speakers || asked.max_speakers || asked.channels === "separate") clear("num_speakers");
    if (asked.language && asked.language.toLowerCase() !== "auto") clear("languages");
    else if (asked.languages) clear("language");
  }
  return asked;
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
  return (
    lines &&
    Object.fromEntries(
      lines.map((line) =>
        line
          .match(/^([^:]*):?(.*)$/)
          .slice(1)
          .map((part) => part.trim()),
      ),
    )
  );
}
