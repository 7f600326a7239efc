// Events per second of the last minute by type, as stacked bars in SVG: one path for each colour, so that a second costs
// a handful of attributes whatever the traffic.

import { byId, element, shape, write } from "./dom.js";
import { count, rate } from "./numbers.js";
import { Colours, SECONDS } from "./rates.js";

/** As many types have a colour of their own; what is left is drawn together. */
const SLOTS = 7;
const HEIGHT = 180;
const MARGIN = { left: 44, right: 4, top: 10, bottom: 22 };

export class Chart {
  #rates;
  #colours = new Colours(SLOTS);
  #width = 600;
  #paths = Array.from({ length: SLOTS + 1 }, (_, slot) => shape("path", { class: "bars", "data-slot": slot }));
  #grid = shape("g", { class: "grid" });
  #svg = shape("svg", { role: "img", height: HEIGHT, "aria-label": "Events per second" }, this.#grid, ...this.#paths);

  constructor(rates) {
    this.#rates = rates;
    const place = byId("chart");
    place.append(this.#svg);
    new ResizeObserver(([entry]) => {
      this.#width = Math.max(200, Math.round(entry.contentRect.width));
      this.render();
    }).observe(place);
  }

  /** The colour of a type, for others who show it: a number of a slot. */
  colourOf(type) {
    return this.#colours.of(type);
  }

  render() {
    const series = this.#rates.series(Math.floor(performance.now() / 1000));
    this.#colours.assign(series.map(({ type }) => type));
    const bySlot = this.#bySlot(series);
    const sums = Array.from({ length: SECONDS }, (_, at) => bySlot.reduce((sum, values) => sum + values[at], 0));
    const top = ceiling(Math.max(...sums));
    this.#svg.setAttribute("viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    this.#svg.setAttribute("width", this.#width);
    this.#drawGrid(top);
    this.#drawBars(bySlot, top);
    this.#writeLegend(series);
    const now = sums[SECONDS - 1];
    this.#svg.setAttribute("aria-label", `Events per second in the last minute: ${rate(now)} now, ${rate(Math.max(...sums))} at most`);
  }

  #bySlot(series) {
    const sums = Array.from({ length: SLOTS + 1 }, () => new Array(SECONDS).fill(0));
    for (const { type, values } of series) {
      const slot = sums[this.#colours.of(type)];
      values.forEach((value, at) => (slot[at] += value));
    }
    return sums;
  }

  #y(value, top) {
    return HEIGHT - MARGIN.bottom - ((HEIGHT - MARGIN.top - MARGIN.bottom) * value) / top;
  }

  #drawGrid(top) {
    const key = `${top} ${this.#width}`;
    if (this.#grid.dataset.drawn === key) return;
    this.#grid.dataset.drawn = key;
    const right = this.#width - MARGIN.right;
    const lines = [0, top / 2, top].flatMap((value) => {
      const y = this.#y(value, top);
      return [
        shape("path", { d: `M${MARGIN.left} ${Math.round(y) + 0.5}H${right}`, class: value === 0 ? "base" : undefined }),
        shape("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, rate(value)),
      ];
    });
    const at = (seconds) => right - ((right - MARGIN.left) * seconds) / SECONDS;
    const ticks = [60, 45, 30, 15, 0].map((seconds) => {
      const anchor = seconds === 60 ? "start" : seconds === 0 ? "end" : "middle";
      const text = seconds === 0 ? "now" : `${seconds} s`;
      return shape("text", { x: at(seconds), y: HEIGHT - 5, "text-anchor": anchor }, text);
    });
    this.#grid.replaceChildren(...lines, ...ticks);
  }

  #drawBars(bySlot, top) {
    const pitch = (this.#width - MARGIN.left - MARGIN.right) / SECONDS;
    const width = Math.max(1, pitch - Math.min(2, pitch / 4));
    const floor = new Array(SECONDS).fill(0);
    for (const slot of [...Array(SLOTS).keys()].map((index) => index + 1).concat(0)) {
      let path = "";
      bySlot[slot].forEach((value, at) => {
        if (value === 0) return;
        const [low, high] = [this.#y(floor[at], top), this.#y(floor[at] + value, top)];
        floor[at] += value;
        path += `M${(MARGIN.left + at * pitch).toFixed(1)} ${low.toFixed(1)}V${high.toFixed(1)}h${width.toFixed(1)}V${low.toFixed(1)}z`;
      });
      this.#paths[slot].setAttribute("d", path);
    }
  }

  #writeLegend(series) {
    const shown = series.filter(({ type }) => this.#colours.of(type) > 0);
    const others = series.length - shown.length;
    const rest = series.filter(({ type }) => this.#colours.of(type) === 0).reduce((sum, { total }) => sum + total, 0);
    const items = shown.map(({ type, total }) => [this.#colours.of(type), type, total]);
    if (others > 0) items.push([0, `${count(others)} more`, rest]);
    const legend = byId("legend");
    while (legend.children.length > items.length) legend.lastChild.remove();
    items.forEach(([slot, type, total], index) => {
      const item = legend.children[index] ?? legend.appendChild(legendItem());
      item.firstChild.dataset.slot = slot;
      write(item.children[1], type);
      write(item.children[2], rate(total / SECONDS));
    });
  }
}

function legendItem() {
  const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
  return element("li", {}, swatch, element("span", {}), element("span", { class: "number" }));
}

/** The next 1, 2 or 5 times a power of ten; at least 4, so that single events look like single events. */
function ceiling(value) {
  if (value <= 4) return 4;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((factor) => factor * power).find((round) => round >= value);
}
