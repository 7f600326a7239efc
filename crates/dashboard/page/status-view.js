// What the stream does now: its state, how much came, how late, and up to where.

import { byId, copies, write } from "./dom.js";
import { count, duration, rate, timeOfDay } from "./numbers.js";

const WORDS = {
  connecting: "Connecting",
  replaying: "Replaying",
  live: "Live",
  resumed: "Resumed",
  reconnecting: "Reconnecting",
  stale: "Stale",
  waiting: "Waiting",
  paused: "Paused",
};

export class StatusView {
  #pausing = byId("pause");

  /** `toggle` pauses, or goes on. */
  constructor(toggle) {
    this.#pausing.addEventListener("click", toggle);
    copies(byId("copy-position"), byId("position"));
  }

  render(subscription, figures, turn) {
    const { trouble, resumed, lastEventId, stale } = subscription;
    const state = stateOf(subscription, turn);
    const badge = byId("state");
    badge.dataset.state = state;
    write(badge, WORDS[state]);
    write(byId("state-detail"), trouble || detail(state, resumed, figures, stale));
    write(this.#pausing, turn.paused ? "Resume" : "Pause");

    write(byId("events"), count(figures.events));
    const deletions = figures.deletions > 0 ? `, ${count(figures.deletions)} deletions` : "";
    const replaying = state === "replaying" && figures.replayed > 0;
    const speed = replaying ? ` at ${count((1000 * figures.replayed) / (performance.now() - figures.replayBegan))} /s` : "";
    write(byId("events-note"), replaying ? `${count(figures.replayed)} replayed${speed}` : `${count(figures.live)} live${deletions}`);
    byId("progress").hidden = state !== "replaying";

    write(byId("rate"), rate(figures.lastSecond));
    write(byId("rate-note"), `mean of a minute ${rate(figures.minute)}`);

    const median = figures.latency.quantile(0.5);
    if (median !== undefined) {
      write(byId("latency"), median < 0 ? "–" : duration(median));
      const most = figures.latency.quantile(0.95);
      write(byId("latency-note"), median < 0 ? "this clock is behind the database's" : `95 % within ${duration(most)}`);
    }

    if (lastEventId) {
      const position = byId("position");
      position.dataset.whole = lastEventId;
      write(position, lastEventId);
    }
    write(byId("notice"), figures.notice);
    write(byId("position-time"), figures.upTo ? timeOfDay(figures.upTo) : "–");
  }
}

/** The state as it is shown: of the stream, or why there is none. */
function stateOf({ state, stale }, turn) {
  if (turn.paused) return "paused";
  if (turn.state === "waiting") return "waiting";
  if (state === "paused") return "connecting";
  return stale && ["live", "resumed"].includes(state) ? "stale" : state;
}

function detail(state, resumed, { liveSince }, stale) {
  const times = resumed > 0 ? `, resumed ${resumed === 1 ? "once" : `${count(resumed)} times`} without a gap` : "";
  if (state === "live" && liveSince) return `since ${timeOfDay(liveSince)}${times}`;
  if (state === "stale") return `what changed after ${timeOfDay(stale)} may be missing: the database is away, or the service is behind`;
  if (state === "waiting") return "other windows of this page have the connections that the browser opens to one host: close or hide one";
  if (state === "resumed") return "nothing was missed";
  if (state === "paused") return "the position is kept; nothing will be missed";
  return "";
}
