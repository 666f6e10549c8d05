// Texts in the reader's language, Korean or English, and numbers and times as that language writes them.

import { SENTENCES } from "./sentences.js"; // the server generates this module (serve_app/api/console.py)
import { WORDS } from "./words.js";

const LANGUAGES = ["en", "ko"]; // the order of the texts in WORDS
const STORED = "language";
let language = remembered() ?? (navigator.language.startsWith("ko") ? "ko" : "en");
document.documentElement.lang = language;

function remembered() {
  const stored = localStorage.getItem(STORED);
  return LANGUAGES.includes(stored) ? stored : null;
}

export function switchLanguage() {
  language = language === "ko" ? "en" : "ko";
  localStorage.setItem(STORED, language);
  document.documentElement.lang = language;
}

/** The text for `key`, with {0}, {1}, … replaced by `values`; the key itself where there is no text. */
export function t(key, ...values) {
  const words = WORDS[key]?.[LANGUAGES.indexOf(language)] ?? key;
  return words.replace(/\{(\d)\}/g, (_, n) => values[n]);
}

/** A result's warnings in the reader's language. One without a code, or with an unknown one, stays as the server wrote it. */
export function warnings({ warnings: texts, warning_codes: codes = [] }) {
  return texts.map((text, i) => (codes.length === texts.length ? sentence(codes[i]) : null) ?? text);
}

const AMOUNTS = { seconds: (value) => value.toFixed(1), share: (value) => (100 * value).toFixed(0) };

function sentence({ code, ...amounts }) {
  const words = SENTENCES[code]?.[language];
  const wanted = words?.match(/(?<=\{)\w+(?=\})/g) ?? [];
  if (!words || wanted.some((name) => amounts[name] == null)) return null;
  return words.replace(/\{(\w+)\}/g, (_, name) => AMOUNTS[name]?.(amounts[name]) ?? amounts[name]);
}

/** The keys that lack a text in some language; for a test. */
export function missing() {
  return Object.keys(WORDS).filter((key) => LANGUAGES.some((_, i) => !WORDS[key][i]));
}

/** 5.23 → "5.2 s", 75 → "1:15", 3675 → "1:01:15". */
export function length(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "–";
  return seconds < 60 ? `${seconds.toFixed(1)} ${t("s")}` : clock(seconds);
}

/** A place in a video: 75.25 → "1:15", with `digits` behind the second. */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  const whole = Math.floor(seconds * unit + 1e-6) / unit;
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, (whole % 60).toFixed(digits)];
  const rest = s.padStart(digits ? digits + 3 : 2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${rest}` : `${m}:${rest}`;
}

const UNITS = [
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
];

/** "3 min ago". */
export function age(seconds) {
  const [unit, size] = UNITS.find(([, least]) => seconds >= least) ?? UNITS.at(-1);
  return new Intl.RelativeTimeFormat(language, { style: "narrow", numeric: "always" }).format(
    -Math.max(0, Math.floor(seconds / size)),
    unit,
  );
}

/** A time of day with its date. */
export function moment(iso) {
  return iso ? new Date(iso).toLocaleString(language, { dateStyle: "medium", timeStyle: "medium" }) : "–";
}

export function number(value) {
  return value.toLocaleString(language);
}
