// The playhead, with or without media that plays.

/** Dispatches `moved` when the playhead moves (`detail`: whether the user moved it), `changed` when play state or source do. */
export class Player extends EventTarget {
  constructor(duration, media) {
    super();
    this.duration = duration;
    this.media = media;
    this.time = 0;
    this.playing = false;
    this.source = null;
    this.failed = false;
    for (const event of ["play", "pause", "ended"]) media.addEventListener(event, () => this.#playStateChanged());
    media.addEventListener("loadedmetadata", () => (media.currentTime = this.time));
    media.addEventListener("error", () => this.source && this.#sourceFailed());
  }

  seek(time, byHand = true) {
    this.time = Math.min(this.duration, Math.max(0, time));
    if (this.source && byHand) this.media.currentTime = this.time;
    this.dispatchEvent(new CustomEvent("moved", { detail: byHand }));
  }

  /** Play from a URL; null: no media. */
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

  #sourceFailed() {
    this.source = null;
    this.failed = true;
    this.playing = false;
    this.dispatchEvent(new Event("changed"));
  }

  #playStateChanged() {
    const began = !this.media.paused && !this.playing;
    this.playing = !this.media.paused;
    this.dispatchEvent(new Event("changed"));
    if (began) this.#followMedia();
  }

  #followMedia() {
    if (!this.playing) return;
    this.seek(this.media.currentTime, false);
    requestAnimationFrame(() => this.#followMedia());
  }
}
