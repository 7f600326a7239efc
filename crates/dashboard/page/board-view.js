// The care-gap board as people see it: a line per measure, and the gaps that flipped last.

import { byId, element, shape, write } from "./dom.js";
import { STATUSES } from "./gaps.js";
import { Course } from "./measured.js";
import { count, timeOfDay } from "./numbers.js";

const SHOWN_FLIPS = 6;
/** A sparkline is at least so many gaps high, so that one gap is not a mountain. */
const LEAST_SPAN = 6;

export class BoardView {
  #board;
  #rows = new Map();
  #courses = new Map();
  #total = new Row("All measures");
  #shownFlips = [];

  constructor(board) {
    this.#board = board;
    byId("measures-total").append(this.#total.line);
  }

  /** Other gaps come than before. */
  clear() {
    this.#rows.clear();
    this.#courses.clear();
  }

  get #gaps() {
    return this.#board.gaps;
  }

  /** Once a second: how many are open now. */
  sample() {
    if (!this.#board.known) return;
    for (const { measure, open } of this.#gaps.perMeasure()) this.#courseOf(measure).add(open);
    this.#courseOf("").add(this.#gaps.total().open);
  }

  render() {
    const measures = this.#gaps.perMeasure();
    for (const { measure, title, ...counts } of measures) {
      if (!this.#rows.has(measure)) this.#rows.set(measure, new Row());
      this.#rows.get(measure).write(title, measure.split("/").pop(), counts, this.#courseOf(measure));
    }
    const lines = measures.map(({ measure }) => this.#rows.get(measure).line);
    const body = byId("measures");
    if (lines.some((line, index) => body.children[index] !== line)) body.replaceChildren(...lines);
    const total = this.#gaps.total();
    this.#total.write("All measures", "", total, this.#courseOf(""));
    const any = measures.length > 0;
    byId("measures-total").hidden = measures.length < 2;
    byId("board-empty").hidden = any;
    write(byId("board-detail"), this.#detail());
    this.#renderFlips();
  }

  #detail() {
    const { subscription, heard, group } = this.#board;
    const whose = group === "" ? "every patient" : `the members of ${group}`;
    const held = `${count(this.#gaps.gaps.size)} gaps of ${whose}, by measure and period`;
    switch (subscription.state) {
      case "live":
      case "resumed":
        if (subscription.stale) return `${held}; stale: as of ${timeOfDay(subscription.stale)}`;
        return this.#gaps.full ? `${held}; there are more than this page can hold` : held;
      case "replaying":
        return this.#board.known ? "catching up" : `reading the state, ${count(heard)} resources so far`;
      default:
        return [subscription.state, subscription.trouble].filter(Boolean).join(": ");
    }
  }

  #courseOf(measure) {
    if (!this.#courses.has(measure)) this.#courses.set(measure, new Course());
    return this.#courses.get(measure);
  }

  #renderFlips() {
    const flips = this.#gaps.flips.slice(0, SHOWN_FLIPS);
    if (flips.every((flip, index) => flip === this.#shownFlips[index]) && flips.length === this.#shownFlips.length) return;
    const fresh = flips.indexOf(this.#shownFlips[0]);
    const items = flips.map((flip, index) => this.#flip(flip, fresh < 0 || index < fresh));
    byId("flips").replaceChildren(...items);
    byId("flips-empty").hidden = flips.length > 0;
    this.#shownFlips = flips;
  }

  #flip(flip, fresh) {
    const [start, end] = flip.period.split(" to ");
    const change = element("span", { class: "change" });
    change.append(badge(flip.from ?? "new"), element("span", { class: "arrow" }, "→"), badge(flip.to ?? "removed"));
    return element(
      "li",
      { class: fresh ? "fresh" : undefined },
      element("p", {}, element("span", { class: "who" }, this.#gaps.nameOf(flip.patient)), change),
      element(
        "p",
        {},
        element("span", { class: "which" }, `${this.#gaps.titleOf(flip.measure)}, ${yearOr(start, end)}`),
        element("time", { datetime: flip.at }, timeOfDay(flip.at)),
      ),
    );
  }
}

const badge = (status) => element("span", { class: "badge", "data-status": status }, status);

/** A period by its year, where it is one. */
function yearOr(start, end) {
  const year = start?.slice(0, 4);
  return start === `${year}-01-01` && end === `${year}-12-31` ? year : [start, end].filter(Boolean).join(" to ");
}

/** Whether a title has all the words of a name: a measure's title often says the same as the end of its URL. */
const says = (title, name) => name.split(/[^\p{L}\d]+/u).every((word) => title.toLowerCase().includes(word.toLowerCase()));

/** One line of the table, whose cells are written when they change. */
class Row {
  constructor() {
    this.title = element("span", { class: "title" });
    this.name = element("span", { class: "name" });
    this.numbers = STATUSES.map((status) => element("td", { class: "number", "data-status": status }));
    this.share = element("span", { class: "share-text" });
    this.parts = STATUSES.map((status) => shape("rect", { class: "part", "data-status": status, y: 0, height: 8 }));
    const bar = shape("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" }, ...this.parts);
    this.area = shape("path", { class: "area" });
    this.trend = shape("path", { class: "trend-line", "vector-effect": "non-scaling-stroke" });
    const spark = shape("svg", { class: "spark", viewBox: "0 0 120 28", preserveAspectRatio: "none", role: "img" }, this.area, this.trend);
    this.spark = spark;
    this.line = element(
      "tr",
      {},
      element("th", { scope: "row" }, this.title, this.name),
      ...this.numbers,
      element("td", { class: "wide" }, element("span", { class: "share" }, bar, this.share)),
      element("td", { class: "trend" }, spark),
    );
  }

  write(title, name, counts, course) {
    write(this.title, title);
    write(this.name, says(title, name) ? "" : name);
    STATUSES.forEach((status, index) => write(this.numbers[index], count(counts[status])));
    const all = STATUSES.reduce((sum, status) => sum + counts[status], 0);
    write(this.share, all > 0 ? `${Math.round((100 * counts.closed) / all)} %` : "–");
    let x = 0;
    for (const status of ["closed", "prospective", "open"]) {
      const part = this.parts[STATUSES.indexOf(status)];
      const width = all > 0 ? (100 * counts[status]) / all : 0;
      part.setAttribute("x", x);
      part.setAttribute("width", width);
      x += width;
    }
    this.#draw(course.samples, counts.open);
  }

  #draw(samples, now) {
    const values = [...samples, now];
    const key = `${values.length} ${now}`;
    if (key === this.drawn) return;
    this.drawn = key;
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const span = Math.max(LEAST_SPAN, most - least);
    const step = 120 / Math.max(1, values.length - 1);
    const height = (value) => 14 - (22 * (value - (least + most) / 2)) / span;
    const points = values.map((value, index) => `${(index * step).toFixed(1)} ${height(value).toFixed(1)}`);
    const path = values.length > 1 ? `M${points.join("L")}` : `M0 14H120`;
    this.trend.setAttribute("d", path);
    this.area.setAttribute("d", `${path}V28H0Z`);
    this.spark.setAttribute("aria-label", `open gaps from ${count(values[0])} to ${count(now)}`);
  }
}
