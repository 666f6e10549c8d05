// Draws a score on two canvases: the whole video, and a window of it with a lane per speaker, the level and the pitch.
// It draws only what the window shows, at most once a frame.

import { clock, t } from "./i18n.js";

const [RULER, LANE, CURVE, GAP] = [18, 20, 40, 6];
const LANES = 120; // px for all speakers together, at most
const OVERVIEW = 40;
const [CLOSEST_S, USUAL_S] = [2, 30];
const FLOOR_DB = -60;
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const MOODS = ["happy", "sad", "angry", "fearful", "disgusted", "surprised"]; // neutral is not drawn
const TEXT_PX = 6; // width of a letter, about
const NAME_LETTERS = 16; // of a speaker's name in its lane, at most

export class Lanes {
  /** `player` has the playhead; the pointer moves it. */
  constructor(score, player, { overview, detail }) {
    Object.assign(this, { score, player, overview, detail });
    this.span = Math.min(score.duration, USUAL_S);
    this.from = 0;
    this.#measure();
    this.frame = 0;
    this.whole = document.createElement("canvas");
    this.#resize();
    this.watcher = new ResizeObserver(() => this.#resize());
    this.watcher.observe(detail.parentElement);
    this.repaint = () => this.#resize();
    window.addEventListener("theme", this.repaint);
    this.#drag(detail, (x) => this.from + (x / this.width) * this.span);
    this.#drag(overview, (x) => (x / this.width) * score.duration);
    detail.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** Draw the lanes anew after the score's speakers got names, and perhaps became fewer. */
  speakersChanged() {
    this.#measure();
    this.#resize();
  }

  #measure() {
    const { speakers } = this.score;
    this.lane = Math.min(LANE, Math.max(5, LANES / Math.max(1, speakers.length)));
    this.height = RULER + this.lane * speakers.length + 2 * (CURVE + GAP) + 2;
  }

  close() {
    this.watcher.disconnect();
    window.removeEventListener("theme", this.repaint);
    cancelAnimationFrame(this.frame);
  }

  /** Draw the playhead; when it has left the window, move the window. */
  follow() {
    const { time } = this.player;
    const margin = this.span * 0.05;
    if (time < this.from || time > this.from + this.span - margin) this.#show(time - this.span * 0.2);
    else this.draw();
  }

  zoom(factor, around = this.player.time) {
    const span = Math.min(this.score.duration, Math.max(CLOSEST_S, this.span * factor));
    const place = (around - this.from) / this.span;
    this.span = span;
    this.#show(around - (place >= 0 && place <= 1 ? place : 0.5) * span);
  }

  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#drawDetail();
      this.#drawOverview();
    });
  }

  #show(from) {
    this.from = Math.max(0, Math.min(this.score.duration - this.span, from));
    this.draw();
  }

  #drag(canvas, timeAt) {
    const seek = (event) => this.player.seek(timeAt(event.offsetX));
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      seek(event);
    });
    canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && seek(event));
  }

  /** Sideways scrolls along the video; with Ctrl (or a pinch) it zooms. Up and down scrolls the page. */
  #wheel(event) {
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!event.ctrlKey && !sideways) return;
    event.preventDefault();
    if (event.ctrlKey) this.zoom(Math.exp(event.deltaY / 300), this.from + (event.offsetX / this.width) * this.span);
    else this.#show(this.from + (event.deltaX / this.width) * this.span);
  }

  #resize() {
    this.width = Math.max(50, this.detail.parentElement.clientWidth);
    this.ratio = window.devicePixelRatio || 1;
    this.colours = palette(this.detail);
    size(this.detail, this.width, this.height, this.ratio);
    size(this.overview, this.width, OVERVIEW, this.ratio);
    size(this.whole, this.width, OVERVIEW, this.ratio);
    this.#drawWhole();
    this.draw();
  }

  /** Draw the part of the overview that stays: speakers and level. */
  #drawWhole() {
    const { score, width, colours } = this;
    const pen = start(this.whole, this.ratio, width, OVERVIEW);
    const scale = width / score.duration;
    const half = OVERVIEW * 0.55;
    const height = half / Math.max(1, score.speakers.length);
    score.segments.forEach(({ start_time, end_time }, n) => {
      pen.fillStyle = colours.speakers[score.speaker[n] % colours.speakers.length];
      pen.fillRect(
        start_time * scale,
        score.speaker[n] * height,
        Math.max(0.5, (end_time - start_time) * scale),
        Math.max(1, height - 1),
      );
    });
    const loudest = new Float32Array(Math.ceil(width)).fill(FLOOR_DB);
    for (let i = 0; i < score.words.count; i++) {
      const x = Math.min(loudest.length - 1, Math.floor(score.words.start[i] * scale));
      loudest[x] = Math.max(loudest[x], score.words.db[i]);
    }
    pen.fillStyle = colours.faint;
    loudest.forEach((db, x) => {
      const tall = (1 - db / FLOOR_DB) * (OVERVIEW - half - 2);
      if (tall > 0) pen.fillRect(x, OVERVIEW - tall, 1, tall);
    });
  }

  #drawOverview() {
    const { width, colours, score } = this;
    const pen = start(this.overview, this.ratio, width, OVERVIEW);
    pen.drawImage(this.whole, 0, 0, width, OVERVIEW);
    const scale = width / score.duration;
    pen.strokeStyle = colours.text;
    pen.strokeRect(this.from * scale + 0.5, 0.5, Math.max(3, this.span * scale) - 1, OVERVIEW - 1);
    pen.fillStyle = colours.playhead;
    pen.fillRect(this.player.time * scale - 1, 0, 2, OVERVIEW);
  }

  #drawDetail() {
    const { score, width, colours, from, span, lane } = this;
    const { words } = score;
    const until = from + span;
    const pen = start(this.detail, this.ratio, width, this.height);
    const scale = width / span;
    const x = (time) => (time - from) * scale;
    const lanes = RULER;
    const level = lanes + lane * score.speakers.length + GAP;
    const pitch = level + CURVE + GAP;
    this.#ruler(pen, x);
    const [low, high] = score.pitch.map(Math.log);

    for (const n of score.segmentsWithin(from, until)) {
      const { start_time, end_time, emotion } = score.segments[n];
      const top = lanes + score.speaker[n] * lane;
      pen.globalAlpha = 0.22;
      pen.fillStyle = this.#speakerColour(n);
      pen.fillRect(x(start_time), top + 1, Math.max(1, (end_time - start_time) * scale), lane - 2);
      pen.globalAlpha = 1;
      if (MOODS.includes(emotion?.label)) {
        pen.fillStyle = colours.moods[MOODS.indexOf(emotion.label)];
        pen.fillRect(x(start_time), top + lane - 3, Math.max(1, (end_time - start_time) * scale), 2);
      }
    }
    for (const i of score.within(from, until)) {
      const n = words.segment[i];
      const [left, wide] = [x(words.start[i]), Math.max(1, (words.end[i] - words.start[i]) * scale - 1)];
      const top = lanes + score.speaker[n] * lane;
      pen.fillStyle = this.#speakerColour(n);
      const written = lane >= 14 && wide > TEXT_PX * words.text[i].length;
      pen.globalAlpha = written ? 0.18 : 0.35 + 0.65 * (words.sure[i] >= 0 ? words.sure[i] : 1);
      pen.fillRect(left, top + 3, wide, lane - 7);
      pen.globalAlpha = 0.55;
      const tall = Math.max(0, 1 - words.db[i] / FLOOR_DB) * (CURVE - 2);
      pen.fillRect(left, level + CURVE - tall, wide, tall);
      pen.globalAlpha = 1;
      if (words.hz[i] > 0) {
        const place = Math.min(1, Math.max(0, (Math.log(words.hz[i]) - low) / (high - low || 1)));
        pen.fillRect(left, pitch + (1 - place) * (CURVE - 4), wide, 3);
      }
      if (written) {
        pen.fillStyle = colours.text;
        pen.fillText(words.text[i], left + 2, top + lane / 2 + 3);
      }
    }
    this.#names(pen);
    pen.fillStyle = colours.muted;
    pen.fillText(t("level"), 4, level + 9);
    pen.fillText(`${t("pitch")} ${Math.round(score.pitch[0])}–${Math.round(score.pitch[1])}`, 4, pitch + 9);
    pen.fillStyle = colours.playhead;
    pen.fillRect(x(this.player.time) - 1, 0, 2, this.height);
  }

  /** Write the names that speakers were given at the left of their lanes, over what lies there. */
  #names(pen) {
    if (this.lane < 14) return;
    this.score.speakers.forEach(({ name }, n) => {
      if (!name) return;
      const text = name.length > NAME_LETTERS ? `${name.slice(0, NAME_LETTERS - 1)}…` : name;
      const top = RULER + n * this.lane;
      pen.globalAlpha = 0.85;
      pen.fillStyle = this.colours.card;
      pen.fillRect(0, top + 1, pen.measureText(text).width + 8, this.lane - 2);
      pen.globalAlpha = 1;
      pen.fillStyle = this.colours.speakers[n % this.colours.speakers.length];
      pen.fillText(text, 4, top + this.lane / 2 + 4);
    });
  }

  #ruler(pen, x) {
    const { colours, from, span, width } = this;
    const step = STEPS_S.find((seconds) => (seconds / span) * width >= 60) ?? STEPS_S.at(-1);
    for (let n = Math.ceil(from / step); n * step <= from + span; n++) {
      const left = Math.round(x(n * step));
      pen.fillStyle = colours.line;
      pen.fillRect(left, 0, 1, this.height);
      pen.fillStyle = colours.muted;
      pen.fillText(clock(n * step, step < 1 ? 1 : 0), left + 3, 11);
    }
  }

  #speakerColour(segment) {
    return this.colours.speakers[this.score.speaker[segment] % this.colours.speakers.length];
  }
}

function size(canvas, width, height, ratio) {
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
}

function start(canvas, ratio, width, height) {
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  return pen;
}

/** The page's colours in the current theme. A probe element is needed: `light-dark()` in a variable resolves on use only. */
function palette(canvas) {
  const probe = canvas.parentElement.appendChild(document.createElement("i"));
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const found = {
    text: colour("text"),
    card: colour("card"),
    muted: colour("muted"),
    line: colour("line"),
    faint: colour("faint"),
    playhead: colour("playhead"),
    speakers: Array.from({ length: 8 }, (_, n) => colour(`s${n}`)),
    moods: MOODS.map((name) => colour(name)),
  };
  probe.remove();
  return found;
}
