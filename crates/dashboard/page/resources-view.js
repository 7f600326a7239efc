// The newest resources, each of which opens to its JSON. While somebody looks at one, or points at the list, it stands
// still; what comes meanwhile is counted, and shown on demand.

import { byId, element, write } from "./dom.js";
import { layOut } from "./json.js";
import { count, timeOfDay } from "./numbers.js";
import { summary } from "./summary.js";

const SHOWN = 25;
const KEPT = 200;
/** Characters of resources that are kept, however large they are. */
const KEPT_TEXT = 8_000_000;
/** Longer ones are shown without colours. */
const COLOURED = 200_000;

export class ResourcesView {
  #colourOf;
  #kept = [];
  #text = 0;
  #heard = 0;
  #shown = 0;
  #pointedAt = false;
  #list = byId("resources");
  #newer = byId("newer");

  /** `colourOf` gives the slot of a type's colour. */
  constructor(colourOf) {
    this.#colourOf = colourOf;
    // Under a finger a list scrolls; only a pointer rests on it.
    this.#list.addEventListener("pointerenter", (event) => (this.#pointedAt = event.pointerType === "mouse"));
    this.#list.addEventListener("pointerleave", () => (this.#pointedAt = false));
    this.#newer.addEventListener("click", () => this.#goOn());
  }

  /** Takes the text of an event: of a resource, or of the deletion of one. */
  add(type, text, deleted) {
    this.#heard += 1;
    this.#kept.push({ number: this.#heard, type, text, deleted, generation: this.#generation });
    this.#text += text.length;
    while (this.#kept.length > KEPT || (this.#text > KEPT_TEXT && this.#kept.length > 1)) {
      this.#text -= this.#kept.shift().text.length;
    }
  }

  #generation = 0;

  /** Everything comes again, up to `complete`. */
  restart() {
    this.#generation += 1;
  }

  /** What came before the last `restart` is no longer so. */
  complete() {
    const before = this.#kept.length;
    this.#kept = this.#kept.filter(({ generation }) => generation === this.#generation);
    if (this.#kept.length === before) return;
    this.#text = this.#kept.reduce((sum, { text }) => sum + text.length, 0);
    this.#show();
  }

  /** Forgets everything: another stream begins. */
  clear() {
    this.#kept = [];
    this.#text = 0;
    this.#show();
  }

  render() {
    const waiting = this.#heard - this.#shown;
    if (waiting === 0) return;
    const still = this.#list.childElementCount > 0 && this.#isLookedAt();
    this.#newer.hidden = !still;
    if (still) write(this.#newer, `Show ${count(waiting)} newer`);
    else this.#show();
  }

  #isLookedAt() {
    return this.#pointedAt || this.#list.contains(document.activeElement) || this.#list.querySelector("details[open]") !== null;
  }

  #goOn() {
    for (const open of this.#list.querySelectorAll("details[open]")) open.open = false;
    this.#show();
    this.#list.querySelector("summary")?.focus();
  }

  #show() {
    const shown = this.#kept.slice(-SHOWN).reverse();
    const there = new Map([...this.#list.children].map((item) => [Number(item.dataset.number), item]));
    this.#list.replaceChildren(...shown.map((kept) => there.get(kept.number) ?? this.#item(kept)));
    this.#shown = this.#heard;
    this.#newer.hidden = true;
    byId("resources-empty").hidden = shown.length > 0;
  }

  #item({ number, type, text, deleted }) {
    const resource = parsed(text);
    const id = deleted?.id ?? resource.id ?? "";
    const what = deleted ? "deleted" : summary(resource);
    const at = resource.meta?.lastUpdated ?? "";
    const head = element(
      "summary",
      {},
      element("span", { class: "swatch", "data-slot": this.#colourOf(type), "aria-hidden": "true" }),
      element("span", { class: "type" }, type),
      element("span", { class: "id" }, id),
      element("span", { class: "what" }, what),
      element("time", { datetime: at }, timeOfDay(at)),
    );
    const details = element("details", { class: deleted ? "deleted" : undefined }, head);
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(json(text, `${type} ${id}`));
    });
    return element("li", { "data-number": number, "data-id": id }, details);
  }
}

/** The JSON of a resource for people, reachable by keyboard so that it can be scrolled. */
function json(text, label) {
  const block = element("pre", { tabindex: 0, role: "region", "aria-label": `JSON of ${label}` });
  const tokens = layOut(text);
  if (text.length > COLOURED) block.append(tokens.map((token) => token.text).join(""));
  else {
    block.append(...tokens.map(({ kind, text }) => (kind === "mark" ? text : element("span", { class: kind }, text))));
  }
  return block;
}

/** Numbers as they are written where the browser can tell: 7.0 says how exactly it was measured. */
function parsed(text) {
  try {
    return JSON.parse(text, (_key, value, context) => (typeof value === "number" ? (context?.source ?? value) : value));
  } catch {
    return {};
  }
}
