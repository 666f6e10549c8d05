// The playhead, with a sound behind it or without.

/** Tells `moved` when the playhead moves (its `detail`: whether by a hand), `changed` when playing or the sound change. */
export class Player extends EventTarget {
  constructor(duration, media) {
    super();
    this.duration = duration;
    this.media = media;
    this.time = 0;
    this.playing = false;
    this.source = null;
    this.failed = false;
    for (const event of ["play", "pause", "ended"]) media.addEventListener(event, () => this.#state());
    media.addEventListener("loadedmetadata", () => (media.currentTime = this.time));
    media.addEventListener("error", () => this.source && this.#lose());
  }

  seek(time, byHand = true) {
    this.time = Math.min(this.duration, Math.max(0, time));
    if (this.source && byHand) this.media.currentTime = this.time;
    this.dispatchEvent(new CustomEvent("moved", { detail: byHand }));
  }

  /** Play from a URL; null: without sound. */
  use(url) {
    this.failed = false;
    this.source = url;
    this.media.pause();
    if (url) this.media.src = url;
    else this.media.removeAttribute("src");
    this.media.load();
    this.dispatchEvent(new Event("changed"));
  }

  toggle() {
    if (!this.source) return;
    if (this.media.paused) this.media.play().catch(() => {});
    else this.media.pause();
  }

  close() {
    this.source = null;
    this.media.pause();
    this.media.removeAttribute("src");
    this.playing = false;
  }

  #lose() {
    this.source = null;
    this.failed = true;
    this.playing = false;
    this.dispatchEvent(new Event("changed"));
  }

  #state() {
    const began = !this.media.paused && !this.playing;
    this.playing = !this.media.paused;
    this.dispatchEvent(new Event("changed"));
    if (began) this.#run();
  }

  #run() {
    if (!this.playing) return;
    this.seek(this.media.currentTime, false);
    requestAnimationFrame(() => this.#run());
  }
}
