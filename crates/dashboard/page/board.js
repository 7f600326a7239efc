// The board's own streams: all gaps whatever the boxes filter, or those of a Group's members, and from the beginning, as a
// gap is judged by all of its reports.

import { BOARD_TYPES, Gaps } from "./gaps.js";
import { streamUrl } from "./request.js";
import { Subscription } from "./subscription.js";

/** What comes within so many milliseconds is looked at together: a transaction has the gap and its report. */
const TOGETHER = 60;
/** What belongs to patients, and so may come from a Group; Measures belong to nobody. */
const OF_PATIENTS = BOARD_TYPES.filter((type) => type !== "Measure");

export class Board {
  gaps;
  /** The Group whose members are looked at; empty for everybody. */
  group;
  /** How many resources have come. */
  heard;
  /** Whether the state has been read: what changes from then on is a flip. */
  known;
  /** The stream of the gaps. */
  subscription;

  #changed;
  #runs = false;
  /** The stream that is open: at most one, as a browser has few connections for all of its pages. */
  #open;
  #timer;

  constructor(changed) {
    this.#changed = changed;
  }

  /** The gaps of the members of this Group instead of those before; of everybody, if it is empty. */
  ask(group) {
    this.#open?.end();
    this.subscription?.end();
    this.gaps = new Gaps();
    this.group = group;
    this.heard = 0;
    this.known = false;
    if (group === "") {
      this.#open = this.subscription = this.#subscribe(BOARD_TYPES, "", () => this.#isKnown());
    } else {
      this.subscription = this.#subscribe(OF_PATIENTS, group, () => this.#isKnown());
      // What the measures are called, before the gaps.
      const titles = this.#subscribe(["Measure"], "", () => {
        titles.end();
        this.#open = this.subscription;
        this.run(this.#runs);
      });
      this.#open = titles;
    }
    this.run(this.#runs);
  }

  /** Pauses, or goes on. */
  run(runs) {
    this.#runs = runs;
    if (runs) this.#open?.resume();
    else this.#open?.pause();
    this.#changed();
  }

  #isKnown() {
    this.gaps.complete();
    this.#settle();
    this.known = true;
  }

  #subscribe(types, group, live) {
    return new Subscription(streamUrl(document.baseURI, types, "", { group }), types, {
      resource: (_type, text) => {
        this.heard += 1;
        this.#put(text);
        this.#settleSoon();
      },
      deletion: ({ type, id }, _text, bundle) => {
        this.gaps.remove(type, id, bundle.meta?.lastUpdated);
        this.#settleSoon();
      },
      notice: ({ code }) => {
        if (code === "reset-all") this.gaps.restart(types);
        if (code === "live") live();
      },
      changed: this.#changed,
    });
  }

  /** A table takes any JSON: what is not as FHIR has it is no gap, and the stream goes on. */
  #put(text) {
    try {
      this.gaps.put(JSON.parse(text));
    } catch (error) {
      console.warn("a resource that the board cannot read", error);
    }
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
