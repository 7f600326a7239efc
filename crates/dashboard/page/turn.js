// Whether this page may hold its streams. Over HTTP/1.1 a browser opens six connections to one host, for all of its tabs and
// windows together, and a page has two streams: a fourth page could not even be loaded, and could not say why.
//
// So a page that cannot be seen has no streams. Of the pages that can be seen, in several windows, two have them, and two
// connections are left to load pages with; the others say what they wait for.

/** So many pages have streams at the same time. */
const PAGES = 2;
/** Milliseconds after which it is said that a page waits: mostly it need not. */
const SAID_AFTER = 500;

export class Turn {
  /** "mine", "asked for", "waiting" or "none". */
  state = "none";
  /** The user has paused the page. */
  paused = false;

  #changed;
  #stop;
  #release;
  #timer;

  /** `changed` is called when the state has changed. */
  constructor(changed) {
    this.#changed = changed;
    document.addEventListener("visibilitychange", () => this.#look());
    this.#look();
  }

  /** Pauses, or goes on. */
  toggle() {
    this.paused = !this.paused;
    this.#look();
  }

  #look() {
    const wanted = !this.paused && document.visibilityState === "visible";
    if (wanted && this.state === "none") this.#ask();
    if (!wanted) this.#end();
  }

  #ask() {
    if (!isLimited()) {
      this.#become("mine");
      return;
    }
    this.#become("asked for");
    this.#timer = setTimeout(() => this.#become("waiting"), SAID_AFTER);
    const stop = new AbortController();
    this.#stop = stop;
    for (let page = 1; page <= PAGES; page += 1) {
      // It is held until what is returned is resolved. Refused is only what was taken back.
      navigator.locks.request(`streams of page ${page}`, { signal: stop.signal }, () => this.#granted(stop)).catch(() => {});
    }
  }

  #granted(stop) {
    // Another one was granted too, or it is not wanted any more.
    if (stop.signal.aborted) return undefined;
    stop.abort();
    clearTimeout(this.#timer);
    const held = new Promise((release) => (this.#release = release));
    this.#become("mine");
    return held;
  }

  #end() {
    this.#stop?.abort();
    clearTimeout(this.#timer);
    this.#become("none");
    this.#release?.();
    this.#release = undefined;
  }

  #become(state) {
    this.state = state;
    this.#changed();
  }
}

/** HTTP/2 has one connection for all streams. Without TLS, elsewhere than on this machine, a browser has no locks. */
function isLimited() {
  const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol;
  return navigator.locks !== undefined && !["h2", "h3"].includes(protocol);
}
