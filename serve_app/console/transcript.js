// The transcript by speaker, under a ruler with lanes and curves. A click on a word moves the playhead.
//
// Words are added to the page once, a few milliseconds at a time, and the browser lays out only what is in view
// (content-visibility): an hour of speech scrolls smoothly, and find-in-page and screen readers still get all of it.

import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import * as api from "./api.js";
import { clock, t } from "./i18n.js";
import { Lanes } from "./lanes.js";
import { Player } from "./player.js";
import { createScore } from "./score.js";
import { sources } from "./sources.js";

const WRITE_MS = 6;
const WORDS_PER_LINE = 14; // an estimate, for the height of segments that are not laid out yet
const [STEP_S, PAGE_S] = [5, 30];

export function Transcript(props) {
  return html`<${TranscriptInOneLanguage} key=${document.documentElement.lang} ...${props} />`; // created again when the language changes
}

function TranscriptInOneLanguage({ id, result, names, announce, refresh }) {
  const root = useRef();
  const view = useRef(null);
  const [, redraw] = useState(0);
  const [asked, setAsked] = useState(null); // the speaker who gets a name
  useEffect(() => {
    view.current = new View(root.current, result, { changed: () => redraw((n) => n + 1), rename: setAsked });
    if (sources.has(id)) view.current.player.use(sources.get(id));
    redraw((n) => n + 1);
    return () => view.current.close();
  }, [result]);
  useEffect(() => {
    view.current.name(names ?? {});
    redraw((n) => n + 1);
  }, [result, JSON.stringify(names)]);

  const rename = async (speaker, name) => {
    const { speakers = {} } = await api.status(id); // another tab may have named another speaker
    for (const each of speaker.ids) {
      if (name) speakers[each] = name;
      else delete speakers[each];
    }
    await api.nameSpeakers(id, speakers);
    await refresh();
    announce(name ? t("renamed", name) : t("unnamed"));
  };
  if (!result.segments.length)
    return html`<section class="card" ref=${root}><h2>${t("transcript")}</h2><p class="empty">${t("no_speech")}</p></section>`;
  const { player, lanes, score } = view.current ?? {};
  return html`
    <section class="transcript" aria-labelledby="transcript" ref=${root}>
      <h2 id="transcript">${t("transcript")}</h2>
      <${Speakers} speakers=${score?.speakers ?? []} rename=${setAsked} />
      <div class="player">
        <div class="controls">
          <button class="main" disabled=${!player?.source} onClick=${() => player.toggle()}>${player?.playing ? `❚❚ ${t("pause")}` : `▶ ${t("play")}`}</button>
          <span class="time"></span>
          <span class="word"></span>
          <span class="spacer"></span>
          <label class="check"><input type="checkbox" class="follow" defaultChecked />${t("follow")}</label>
          <button aria-label=${t("zoom_out")} title=${t("zoom_out")} onClick=${() => lanes.zoom(1.6)}>−</button>
          <button aria-label=${t("zoom_in")} title=${t("zoom_in")} onClick=${() => lanes.zoom(1 / 1.6)}>+</button>
        </div>
        <div class="score">
          <canvas class="overview" aria-hidden="true" title=${t("overview")}></canvas>
          <div class="ruler" role="slider" tabindex="0" aria-label=${t("playhead")} aria-describedby="keys-help" aria-valuemin="0"><canvas class="detail"></canvas></div>
        </div>
        <video class="picture" playsinline preload="metadata" hidden></video>
      </div>
      <${Sound} id=${id} player=${player} />
      <p class="help" id="keys-help">${t("keys_help")} <span class="c3">${t("low_confidence")}</span></p>
      <ol class="segments" lang=${result.language}></ol>
      ${asked && html`<${RenameDialog} key=${asked.ids[0]} speaker=${asked} rename=${rename} close=${() => setAsked(null)} />`}
    </section>
  `;
}

/** The speakers in the colours of their lanes: each is a button that gives a name. */
function Speakers({ speakers, rename }) {
  const item = (speaker, n) => html`
    <li class="s${n % 8}"><button class="who" aria-haspopup="dialog" aria-label=${t("rename", called(speaker))} title=${t("rename", called(speaker))} onClick=${() => rename(speaker)}>${called(speaker)}</button></li>
  `;
  return html`<ul class="speakers" aria-label=${t("who_speaks")}>${speakers.map(item)}</ul>`;
}

function RenameDialog({ speaker, rename, close }) {
  const dialog = useRef();
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => dialog.current.showModal(), []);
  const leave = () => (dialog.current.close(), close()); // closing gives the focus back
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await rename(speaker, new FormData(event.target).get("name").trim());
      leave();
    } catch (problem) {
      setError(problem.status === 400 ? t("name_wrong") : problem.message);
      setBusy(false);
    }
  };
  return html`
    <dialog ref=${dialog} aria-labelledby="rename-title" onCancel=${(event) => (event.preventDefault(), leave())}>
      <form onSubmit=${submit}>
        <h2 id="rename-title">${t("rename", called(speaker))}</h2>
        ${error && html`<p role="alert" class="bad">${error}</p>`}
        <label>${t("name")}<input name="name" maxlength="100" autocomplete="off" autofocus value=${speaker.name ?? ""} aria-describedby="rename-help" /></label>
        <p class="help" id="rename-help">${t("rename_help")}</p>
        <p class="actions"><button type="button" onClick=${leave}>${t("no_change")}</button><button class="main" disabled=${busy}>${t("save")}</button></p>
      </form>
    </dialog>
  `;
}

/** What a speaker is called: by the given name, else by a number. */
const called = ({ name, number }) => name ?? t("speaker_n", number);

function Sound({ id, player }) {
  const use = (url) => {
    if (url) sources.set(id, url);
    else sources.delete(id);
    player.use(url);
  };
  const chooseFile = (event) => event.target.files[0] && use(URL.createObjectURL(event.target.files[0]));
  const submitUrl = (event) => {
    event.preventDefault();
    use(new FormData(event.target).get("url").trim());
  };
  if (player?.source) {
    return html`<p class="sound">${t("source")}: ${player.source.startsWith("blob:") ? t("source_file") : t("source_sent")}
      <button onClick=${() => use(null)}>${t("source_forget")}</button></p>`;
  }
  return html`
    <details class="sound" open=${Boolean(player?.failed)}>
      <summary>${t("source")} <span class="muted">${t("source_none")}</span></summary>
      ${player?.failed && html`<p role="alert" class="bad">${t("source_gone")}</p>`}
      <div class="row">
        <label>${t("source_file")}<input type="file" accept="video/*,audio/*" onChange=${chooseFile} /></label>
        <form onSubmit=${submitUrl}><label>${t("source_url")}<span class="beside"><input name="url" type="url" required spellcheck="false" autocomplete="off" /><button>${t("source_use")}</button></span></label></form>
      </div>
    </details>
  `;
}

class View {
  /** `changed` is called whenever the player's state changes, `rename` with a speaker whose name was clicked. */
  constructor(root, result, { changed, rename }) {
    this.score = createScore(result);
    this.find = (selector) => root.querySelector(selector);
    this.list = this.find(".segments");
    this.closed = false;
    this.names = "{}";
    this.player = new Player(this.score.duration, this.find("video") ?? document.createElement("video"));
    if (!this.list) return;
    this.elements = Array.from({ length: this.score.words.count });
    this.now = -1;
    this.lanes = new Lanes(this.score, this.player, { overview: this.find(".overview"), detail: this.find(".detail") });
    this.slider = this.find(".ruler");
    this.slider.setAttribute("aria-valuemax", Math.round(this.score.duration));
    this.player.addEventListener("moved", ({ detail }) => this.#playheadMoved(detail));
    this.player.addEventListener("changed", changed);
    this.player.media.addEventListener("loadedmetadata", ({ target }) => (target.hidden = !target.videoWidth));
    this.player.addEventListener("changed", () => this.player.source || (this.player.media.hidden = true));
    this.slider.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("click", ({ target }) => this.#seekToWord(target));
    this.list.addEventListener("click", ({ target }) => target.segment >= 0 && rename(this.#speaker(target.segment)));
    this.list.addEventListener("pointerover", ({ target }) => target.word >= 0 && this.#showWord(target.word));
    this.list.replaceChildren();
    this.#write(0);
    this.#playheadMoved(false);
  }

  /** Call the speakers by `names`, by speaker id: labels, colours and lanes follow; all else stays as it is. */
  name(names) {
    if (!this.list || JSON.stringify(names) === this.names) return;
    this.names = JSON.stringify(names);
    this.score.name(names);
    for (const [n, item] of [...this.list.children].entries()) this.#label(item, n);
    this.lanes.speakersChanged();
    this.elements[this.now]?.classList.remove("now");
    this.now = -1; // so that the ruler tells the name
    this.#playheadMoved(false);
  }

  close() {
    this.closed = true;
    this.lanes?.close();
    this.player.close();
  }

  /** Add segments from number `n` on for WRITE_MS, the rest in later turns of the event loop. */
  #write(n) {
    if (this.closed) return;
    const until = performance.now() + WRITE_MS;
    const part = document.createDocumentFragment();
    while (n < this.score.segments.length && performance.now() < until) part.append(this.#segment(n++));
    this.list.append(part);
    if (n < this.score.segments.length) setTimeout(() => this.#write(n));
    else this.list.dataset.complete = "";
  }

  #segment(n) {
    const { segments, first, words } = this.score;
    const { start_time, emotion, language } = segments[n];
    const item = make("li", "");
    item.style.containIntrinsicBlockSize = `auto ${2.1 + 1.6 * Math.ceil((first[n + 1] - first[n]) / WORDS_PER_LINE)}rem`;
    const at = make("button", "at", clock(start_time, 1));
    at.tabIndex = -1; // the keyboard moves the playhead by the ruler
    at.word = first[n];
    const mood =
      emotion && make("span", `mood ${emotion.label}`, `${t(emotion.label)} ${Math.round(100 * emotion.confidence)} %`);
    const head = make("div", "about");
    const who = make("button", "who");
    who.tabIndex = -1; // the keyboard has the list of speakers
    who.segment = n;
    head.append(at, who, mood ?? "");
    if (language && language !== this.list.lang) head.append(make("span", "muted language", language));
    head.lang = document.documentElement.lang;
    const text = make("p", "");
    if (language) text.lang = language;
    for (let i = first[n]; i < first[n + 1]; i++) {
      const word = make("span", shade(words.sure[i]), words.text[i]);
      word.word = i;
      this.elements[i] = word;
      if (i > first[n]) text.append(" ");
      text.append(word);
    }
    item.append(head, text);
    this.#label(item, n);
    return item;
  }

  #speaker(n) {
    return this.score.speakers[this.score.speaker[n]];
  }

  /** Give a segment its speaker's name and colour. */
  #label(item, n) {
    item.className = `segment s${this.score.speaker[n] % 8}`;
    const who = item.querySelector(".who");
    who.textContent = called(this.#speaker(n));
    who.title = t("rename", who.textContent);
  }

  #seekToWord(target) {
    if (target.word >= 0 && getSelection().isCollapsed) this.player.seek(this.score.words.start[target.word]);
  }

  #playheadMoved(byHand) {
    const { words, at, segments } = this.score;
    const { time } = this.player;
    const word = at(time);
    this.lanes.follow();
    this.find(".time").textContent = `${clock(time, 1)} / ${clock(this.score.duration)}`;
    this.slider.setAttribute("aria-valuenow", time.toFixed(1));
    if (word === this.now) return;
    this.elements[this.now]?.classList.remove("now");
    this.now = word;
    const who = called(this.#speaker(words.segment[word]));
    this.slider.setAttribute("aria-valuetext", t("at_word", clock(time, 1), who, words.text[word]));
    this.#showWord(word);
    const element = this.elements[word];
    element?.classList.add("now");
    if (segments.length && (byHand || this.player.playing) && this.find(".follow").checked)
      element?.scrollIntoView({ block: "nearest" });
  }

  /** Show a word's time, level, pitch and confidence. */
  #showWord(word) {
    const { text, db, hz, sure, start } = this.score.words;
    const known = [
      `${clock(start[word], 2)}`,
      `${db[word].toFixed(1)} dBFS`,
      hz[word] ? `${Math.round(hz[word])} Hz` : null,
      sure[word] >= 0 ? `${Math.round(100 * sure[word])} %` : null,
    ];
    this.find(".word").textContent = `“${text[word]}” ${known.filter(Boolean).join(" · ")}`;
  }

  #key(event) {
    const { player, lanes, score } = this;
    const word = (steps) => player.seek(score.words.start[score.beside(score.at(player.time), steps)]);
    const by = (seconds) => player.seek(player.time + seconds);
    const moves = {
      ArrowLeft: () => (event.shiftKey ? by(-STEP_S) : word(-1)),
      ArrowRight: () => (event.shiftKey ? by(STEP_S) : word(1)),
      ArrowDown: () => word(-1),
      ArrowUp: () => word(1),
      PageDown: () => by(-PAGE_S),
      PageUp: () => by(PAGE_S),
      Home: () => player.seek(0),
      End: () => player.seek(score.duration),
      "+": () => lanes.zoom(1 / 1.6),
      "=": () => lanes.zoom(1 / 1.6),
      "-": () => lanes.zoom(1.6),
      " ": () => player.toggle(),
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  }
}

function make(tag, name, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}

/** The CSS class of a word's shading: the lower the confidence, the stronger. */
function shade(sure) {
  if (!(sure < 0.85)) return "";
  return sure < 0.5 ? "c3" : sure < 0.7 ? "c2" : "c1";
}
