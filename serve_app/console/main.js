// The frame around the pages: where the hash leads, the key, the language, and what is heard of the server.

import { html, render, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { key, watch } from "./api.js";
import { switchLanguage, t } from "./i18n.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { news } from "./parts.js";
import { Submit } from "./submit.js";

const THEME = "theme";

/** {page, id, query} of `#/jobs?state=failed`, `#/jobs/ID`, `#/submit`. */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [page = "", id = ""] = path.split("/", 2);
  return { page: page || "jobs", id: decode(id), query: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function App() {
  const [where, setWhere] = useState(place);
  const [heard, setHeard] = useState("connecting");
  const [said, say] = useState("");
  const [wanted, setWanted] = useState(null);
  const [, redraw] = useState(0);
  const main = useRef();

  useEffect(() => {
    const moved = () => {
      setWhere(place());
      window.scrollTo(0, 0);
      main.current.focus({ preventScroll: true });
    };
    const locked = (event) => setWanted({ wrong: event.detail });
    window.addEventListener("hashchange", moved);
    window.addEventListener("key-wanted", locked);
    return () => (window.removeEventListener("hashchange", moved), window.removeEventListener("key-wanted", locked));
  }, []);

  useEffect(() => {
    if (wanted) return undefined; // nothing is heard without a key
    return watch({
      onJob: (line) => news.dispatchEvent(new CustomEvent("job", { detail: line })),
      onFresh: () => news.dispatchEvent(new Event("fresh")),
      onState: setHeard,
    });
  }, [!wanted]);

  const unlock = (value) => (key.set(value), setWanted(null), news.dispatchEvent(new Event("fresh")));
  const relock = () => (key.forget(), location.reload());
  const turn = () => (switchLanguage(), redraw((n) => n + 1));
  const pages = {
    jobs: where.id
      ? html`<${Job} key=${where.id} id=${where.id} say=${say} />`
      : html`<${Jobs} query=${where.query} say=${say} />`,
    submit: html`<${Submit} say=${say} />`,
  };
  const titles = { jobs: where.id || t("jobs"), submit: t("submit") };
  useEffect(() => {
    document.title = `${titles[where.page] ?? t("console")} · ${t("title")}`;
  });

  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>${t("skip")}</a>
    <header class="bar">
      <a class="brand" href="#/jobs"><img src="icon.svg" alt="" width="22" height="22" />${t("title")}</a>
      <nav aria-label=${t("console")}>
        <a href="#/jobs" aria-current=${where.page === "jobs" && !where.id ? "page" : null}>${t("jobs")}</a>
        <a href="#/submit" aria-current=${where.page === "submit" ? "page" : null}>${t("submit")}</a>
      </nav>
      <span class="heard ${heard}"><i aria-hidden="true"></i><span>${t(heard)}</span></span>
      ${key.get() && html`<button class="quiet" onClick=${relock}>${t("forget_key")}</button>`}
      <button class="quiet" lang=${t("language") === "English" ? "en" : "ko"} onClick=${turn}>${t("language")}</button>
      <button class="quiet" aria-label=${t("theme")} title=${t("theme")} onClick=${switchTheme}>◐</button>
    </header>
    <p class="said" role="status">${said}</p>
    <main id="main" tabindex="-1" ref=${main}>
      ${pages[where.page] ?? html`<p class="empty">${t("no_page")} <a href="#/jobs">${t("back")}</a></p>`}
    </main>
    ${wanted && html`<${KeyDialog} wrong=${wanted.wrong} use=${unlock} />`}
  `;
}

function KeyDialog({ wrong, use }) {
  const dialog = useRef();
  useEffect(() => dialog.current.showModal(), []);
  const sent = (event) => {
    event.preventDefault();
    const value = new FormData(event.target).get("key").trim();
    if (value) use(value);
  };
  return html`
    <dialog ref=${dialog} aria-labelledby="key-title" onCancel=${(event) => event.preventDefault()}>
      <form onSubmit=${sent}>
        <h2 id="key-title">${t("key")}</h2>
        <p>${t("key_ask")}</p>
        ${wrong && html`<p role="alert" class="bad">${t("key_wrong")}</p>`}
        <label>${t("key")}<input name="key" type="password" autocomplete="off" required /></label>
        <p class="actions"><button class="main">${t("use")}</button></p>
      </form>
    </dialog>
  `;
}

function switchTheme() {
  const next = isDark() ? "light" : "dark";
  localStorage.setItem(THEME, next);
  wear(next);
}

function isDark() {
  const worn = document.documentElement.dataset.theme;
  return worn ? worn === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function wear(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  window.dispatchEvent(new Event("theme"));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("theme")));
wear(localStorage.getItem(THEME));
const app = document.getElementById("app");
app.replaceChildren();
render(html`<${App} />`, app);
