// The frame around the pages: routes by the URL's hash, the API key, the language, the theme, and the server's events.

import { html, render, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { key, watch } from "./api.js";
import { switchLanguage, t } from "./i18n.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { news } from "./parts.js";
import { Submit } from "./submit.js";

const THEME = "theme";

/** {page, id, query} of `#/jobs?state=failed`, `#/jobs/ID`, `#/submit`. */
function currentRoute() {
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
  const [route, setRoute] = useState(currentRoute);
  const [connection, setConnection] = useState("connecting");
  const [announced, announce] = useState("");
  const [keyWanted, setKeyWanted] = useState(null);
  const [, redraw] = useState(0);
  const main = useRef();

  useEffect(() => {
    const navigate = () => {
      setRoute(currentRoute());
      window.scrollTo(0, 0);
      main.current.focus({ preventScroll: true });
    };
    const askForKey = (event) => setKeyWanted({ wrong: event.detail });
    window.addEventListener("hashchange", navigate);
    window.addEventListener("key-wanted", askForKey);
    return () => (
      window.removeEventListener("hashchange", navigate),
      window.removeEventListener("key-wanted", askForKey)
    );
  }, []);

  useEffect(() => {
    if (keyWanted) return undefined; // the server sends no events without a key
    return watch({
      onJob: (summary) => news.dispatchEvent(new CustomEvent("job", { detail: summary })),
      onFresh: () => news.dispatchEvent(new Event("fresh")),
      onState: setConnection,
    });
  }, [!keyWanted]);

  const enterKey = (value) => (key.set(value), setKeyWanted(null), news.dispatchEvent(new Event("fresh")));
  const forgetKey = () => (key.forget(), location.reload());
  const changeLanguage = () => (switchLanguage(), redraw((n) => n + 1));
  const pages = {
    jobs: route.id
      ? html`<${Job} key=${route.id} id=${route.id} announce=${announce} />`
      : html`<${Jobs} query=${route.query} announce=${announce} />`,
    submit: html`<${Submit} announce=${announce} />`,
  };
  const titles = { jobs: route.id || t("jobs"), submit: t("submit") };
  useEffect(() => {
    document.title = `${titles[route.page] ?? t("console")} · ${t("title")}`;
  });

  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>${t("skip")}</a>
    <header class="bar">
      <a class="brand" href="#/jobs"><img src="icon.svg" alt="" width="22" height="22" />${t("title")}</a>
      <nav aria-label=${t("console")}>
        <a href="#/jobs" aria-current=${route.page === "jobs" && !route.id ? "page" : null}>${t("jobs")}</a>
        <a href="#/submit" aria-current=${route.page === "submit" ? "page" : null}>${t("submit")}</a>
      </nav>
      <span class="connection ${connection}"><i aria-hidden="true"></i><span>${t(connection)}</span></span>
      ${key.get() && html`<button class="quiet" onClick=${forgetKey}>${t("forget_key")}</button>`}
      <button class="quiet" lang=${t("language") === "English" ? "en" : "ko"} onClick=${changeLanguage}>${t("language")}</button>
      <button class="quiet" aria-label=${t("theme")} title=${t("theme")} onClick=${switchTheme}>◐</button>
    </header>
    <p class="announced" role="status">${announced}</p>
    <main id="main" tabindex="-1" ref=${main}>
      ${pages[route.page] ?? html`<p class="empty">${t("no_page")} <a href="#/jobs">${t("back")}</a></p>`}
    </main>
    ${keyWanted && html`<${KeyDialog} wrong=${keyWanted.wrong} use=${enterKey} />`}
  `;
}

function KeyDialog({ wrong, use }) {
  const dialog = useRef();
  useEffect(() => dialog.current.showModal(), []);
  const submit = (event) => {
    event.preventDefault();
    const value = new FormData(event.target).get("key").trim();
    if (value) use(value);
  };
  return html`
    <dialog ref=${dialog} aria-labelledby="key-title" onCancel=${(event) => event.preventDefault()}>
      <form onSubmit=${submit}>
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
  applyTheme(next);
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  window.dispatchEvent(new Event("theme"));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("theme")));
applyTheme(localStorage.getItem(THEME));
const app = document.getElementById("app");
app.replaceChildren();
render(html`<${App} />`, app);
