// The board's own stream: all gaps whatever the boxes filter, and from the beginning, as a gap is judged by all of its
// reports.

import { BOARD_TYPES, Gaps } from "./gaps.js";
import { streamUrl } from "./request.js";
import { Subscription } from "./subscription.js";

/** What comes within so many milliseconds is looked at together: a transaction has the gap and its report. */
const TOGETHER = 60;

export class Board {
  gaps = new Gaps();
  /** How many resources have come. */
  heard = 0;
  /** Whether the state has been read: what changes from then on is a flip. */
  known = false;
  subscription;

  #changed;
  #timer;

  constructor(changed) {
    this.#changed = changed;
    this.subscription = new Subscription(streamUrl(document.baseURI, BOARD_TYPES, ""), BOARD_TYPES, {
      resource: (_type, text) => {
        this.heard += 1;
        this.#put(text);
        this.#settleSoon();
      },
      deletion: ({ type, id }, _text, bundle) => {
        this.gaps.remove(type, id, bundle.meta?.lastUpdated);
        this.#settleSoon();
      },
      notice: ({ code }) => this.#notice(code),
      changed,
    });
  }

  /** Pauses, or goes on. */
  run(runs) {
    if (runs) this.subscription.resume();
    else this.subscription.pause();
  }

  /** A table takes any JSON: what is not as FHIR has it is no gap, and the stream goes on. */
  #put(text) {
    try {
      this.gaps.put(JSON.parse(text));
    } catch (error) {
      console.warn("a resource that the board cannot read", error);
    }
  }

  #notice(code) {
    if (code === "reset-all") this.gaps.restart();
    if (code !== "live") return;
    this.gaps.complete();
    this.#settle();
    this.known = true;
  }

  #settleSoon() {
    this.#timer ??= setTimeout(() => this.#settle(), TOGETHER);
  }

  #settle() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.gaps.settle(!this.known);
    this.#changed();
  }
}
