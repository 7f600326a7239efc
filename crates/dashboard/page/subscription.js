// A subscription that loses nothing: one EventSource at a time, and the id of the last event that was dealt with.
//
// A browser's EventSource comes back by itself when a connection is lost, and never from any answer but 200 (a proxy's
// 502 while the service restarts): then this makes a new one, from the last id, after a wait that differs from page to page.

import { deletionIn, noticeIn } from "./fhir.js";
import { after } from "./request.js";

const WAIT = { least: 1000, spread: 3000 };
/** How long it is "resumed" before it is "live" again. */
const RESUMED = 8000;
/** How much of a refusal is read. */
const REFUSAL = 20_000;

export class Subscription {
  /** The id of the last event that was dealt with. */
  lastEventId = "";
  /** "connecting", "replaying", "live", "resumed", "reconnecting" or "paused". */
  state = "paused";
  /** Why the server does not answer with a stream, if it said so. */
  trouble = "";
  /** While what comes is late: the instant since when something may be missing; else "". */
  stale = "";
  /** How often a connection was lost and the stream went on where it was. */
  resumed = 0;

  #url;
  #types;
  #hear;
  #source;
  #timer;
  #wasLive = false;
  #lost = false;

  /**
   * Subscribes to a URL, for these names of events. `hear` has: `resource(type, text)`, `deletion({ type, id }, text,
   * bundle)`, `notice(notice)` and `changed()`, after the state has changed. It is paused at first.
   */
  constructor(url, types, hear) {
    this.#url = url;
    this.#types = types;
    this.#hear = hear;
  }

  /** Closes the connection, and keeps the position. */
  pause() {
    if (this.state === "paused") return;
    this.#close();
    this.#become("paused");
  }

  /** Begins, or goes on after the last event. */
  resume() {
    if (this.state !== "paused") return;
    this.#lost = this.lastEventId !== "";
    this.#open();
  }

  /** Ends it for good. */
  end() {
    this.#close();
    this.#hear = { resource() {}, deletion() {}, notice() {}, changed() {} };
  }

  #open() {
    this.#close();
    this.#become(this.#lost ? "reconnecting" : "connecting");
    const source = new EventSource(after(this.#url, this.lastEventId));
    this.#source = source;
    const listen = (type, deal) =>
      source.addEventListener(type, (event) => {
        deal(type, event.data);
        // Only now: what was not dealt with comes again.
        this.lastEventId = event.lastEventId;
      });
    for (const type of this.#types) listen(type, this.#hear.resource);
    listen("Bundle", (type, text) => this.#bundle(type, text));
    listen("OperationOutcome", (type, text) => this.#outcome(type, text));
    source.onerror = () => this.#failed(source);
  }

  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
  }

  #bundle(type, text) {
    const bundle = JSON.parse(text);
    const deletion = deletionIn(bundle);
    if (deletion) this.#hear.deletion(deletion, text, bundle);
    else this.#hear.resource(type, text);
  }

  #outcome(type, text) {
    const notice = noticeIn(JSON.parse(text));
    if (!notice) {
      this.#hear.resource(type, text);
      return;
    }
    if (notice.code === "start") {
      this.stale = "";
      this.#become("replaying");
    }
    if (notice.code === "stale" || notice.code === "fresh") {
      this.stale = notice.code === "stale" ? (notice.transactionTime ?? "unknown") : "";
      this.#hear.changed();
    }
    if (notice.code === "live") {
      this.trouble = "";
      if (this.#lost && this.#wasLive) this.resumed += 1;
      const state = this.#lost && this.#wasLive ? "resumed" : "live";
      this.#wasLive = true;
      this.#lost = false;
      this.#hear.notice(notice);
      this.#become(state);
      if (state === "resumed") this.#timer = setTimeout(() => this.#become("live"), RESUMED);
      return;
    }
    if (["transient", "throttled", "shutdown"].includes(notice.code)) this.trouble = notice.text;
    this.#hear.notice(notice);
  }

  #failed(source) {
    if (source !== this.#source) return;
    this.#lost = true;
    clearTimeout(this.#timer);
    this.#become("reconnecting");
    if (source.readyState !== EventSource.CLOSED) return;
    this.#timer = setTimeout(() => this.#ask(source), WAIT.least + WAIT.spread * Math.random());
  }

  /** An EventSource does not say why it was refused: this asks, and opens a new one. */
  async #ask(source) {
    const trouble = await refusal(after(this.#url, this.lastEventId));
    if (source !== this.#source) return;
    this.trouble = trouble?.text ?? "";
    if (trouble?.about.includes("_lastEventId")) {
      // The service cannot read its own id of another day: everything comes again.
      this.lastEventId = "";
      this.#hear.notice({ code: "reset-all", text: trouble.text, about: [] });
    }
    this.#open();
  }

  #become(state) {
    this.state = state;
    this.#hear.changed();
  }
}

/** What the server says instead of a stream, or undefined if it does stream or cannot be reached. */
async function refusal(url) {
  const stop = new AbortController();
  try {
    const response = await fetch(url, { headers: { Accept: "text/event-stream" }, signal: stop.signal });
    if (response.ok) return undefined;
    const said = `The server answers ${response.status}`;
    const outcome = (await response.text()).slice(0, REFUSAL);
    try {
      const notice = noticeIn(JSON.parse(outcome));
      return { text: `${said}: ${notice.text}`, about: notice.about };
    } catch {
      return { text: said, about: [] };
    }
  } catch {
    return undefined;
  } finally {
    stop.abort();
  }
}
