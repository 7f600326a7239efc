// Whose gaps the board shows: everybody's, or those of a Group's members.

import { remember } from "./address.js";
import { byId, write } from "./dom.js";
import { groupProblem } from "./request.js";

export class BoardChoice {
  #box = byId("board-group");
  #changed;
  #group;

  /** `changed` is called with the Group, empty for everybody, at once and whenever another is asked for. */
  constructor(changed) {
    this.#changed = changed;
    this.#box.value = new URLSearchParams(location.search).get("board") ?? "";
    byId("board-request").addEventListener("submit", (event) => event.preventDefault());
    this.#box.addEventListener("change", () => this.#ask());
    this.#ask();
    // What cannot be an id is shown as that; the board is everybody's meanwhile.
    if (this.#group === undefined) this.#become("");
  }

  #ask() {
    const group = this.#box.value.trim();
    const problem = groupProblem(group);
    this.#box.setAttribute("aria-invalid", problem !== undefined);
    write(byId("board-problem"), problem ?? "");
    if (problem !== undefined || group === this.#group) return;
    remember({ board: group || undefined });
    this.#become(group);
  }

  #become(group) {
    this.#group = group;
    this.#changed(group);
  }
}
