// The stream of the boxes: what it tells becomes numbers, the chart's seconds and the list of the newest.

import { sortable } from "./fhir.js";
import { Recent } from "./measured.js";
import { Rates } from "./rates.js";
import { Subscription } from "./subscription.js";
import { TYPES } from "./types.js";

const NAMES = TYPES.filter((type) => type !== "Bundle" && type !== "OperationOutcome");
/** In so many milliseconds at most so many events are asked how late they are. */
const ASKED = { within: 100, most: 10 };
/** A replay of more events than this is not left in the chart: its rush would dwarf what comes now. */
const RUSH = 1000;

export class Feed {
  rates = new Rates();
  figures = newFigures();
  subscription;

  #newest;
  #changed;
  #runs = false;
  #isLive = false;
  #restarting = false;
  #asked = { until: 0, left: 0 };

  /** `newest` is told of each event; `changed` is called after each. */
  constructor(newest, changed) {
    this.#newest = newest;
    this.#changed = changed;
  }

  /** Another stream instead of the one before. */
  ask(url) {
    this.subscription?.end();
    this.figures = newFigures();
    this.rates.clear();
    this.#newest.clear();
    this.#isLive = false;
    this.#restarting = false;
    this.subscription = new Subscription(url, NAMES, {
      resource: (type, text) => this.#event(type, text),
      deletion: (deleted, text, bundle) => this.#event(deleted.type, text, deleted, bundle.meta),
      notice: (notice) => this.#notice(notice),
      changed: this.#changed,
    });
    this.run(this.#runs);
  }

  /** Pauses, or goes on. */
  run(runs) {
    this.#runs = runs;
    if (runs) this.subscription.resume();
    else this.subscription.pause();
  }

  /** Once a second: how many events came in the last one, and on average in a minute. */
  measure() {
    const all = this.rates.series(thisSecond());
    this.figures.lastSecond = all.reduce((sum, { values }) => sum + values.at(-1), 0);
    this.figures.minute = all.reduce((sum, { total }) => sum + total, 0) / 60;
  }

  #event(type, text, deleted, meta) {
    const { figures } = this;
    figures.events += 1;
    if (deleted) figures.deletions += 1;
    if (this.#isLive) this.#late(text, meta);
    else figures.replayed += 1;
    this.rates.count(type, thisSecond());
    this.#newest.add(type, text, deleted);
    this.#changed();
  }

  /** How long ago it was committed: of some events only, as each has to be parsed for it. */
  #late(text, meta) {
    this.figures.live += 1;
    const now = performance.now();
    if (now > this.#asked.until) this.#asked = { until: now + ASKED.within, left: ASKED.most };
    if (this.#asked.left === 0) return;
    this.#asked.left -= 1;
    const at = (meta ?? JSON.parse(text).meta)?.lastUpdated;
    if (at === undefined) return;
    this.figures.latency.add(Date.now() - Date.parse(at));
    this.figures.upTo = at;
  }

  #notice({ code, text, transactionTime }) {
    const { figures } = this;
    switch (code) {
      case "start":
        this.#isLive = false;
        figures.replayed = 0;
        figures.replayBegan = performance.now();
        break;
      case "reset":
        figures.notice = text;
        break;
      case "reset-all":
        figures.notice = text;
        this.#restarting = true;
        this.#newest.restart();
        break;
      case "position":
      case "stale":
      case "fresh":
        if (transactionTime && sortable(transactionTime) > sortable(figures.upTo)) figures.upTo = transactionTime;
        break;
      case "live":
        this.#isLive = true;
        if (this.#restarting) this.#newest.complete();
        this.#restarting = false;
        figures.liveSince = new Date();
        figures.upTo ??= transactionTime;
        if (figures.replayed > RUSH) this.rates.clear();
        break;
    }
  }
}

/** What is counted of a stream from its beginning. */
function newFigures() {
  return {
    events: 0,
    live: 0,
    replayed: 0,
    deletions: 0,
    replayBegan: 0,
    lastSecond: 0,
    minute: 0,
    latency: new Recent(),
    /** Everything up to this instant has come: that of the newest event, or what the stream said. */
    upTo: undefined,
    liveSince: undefined,
    /** What the stream said of a reset. */
    notice: "",
  };
}

const thisSecond = () => Math.floor(performance.now() / 1000);
