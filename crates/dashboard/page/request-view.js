// The boxes that make the request: types, a Group, patients and `_since`; its URL, its curl, and the page's own address follow them.

import { remember } from "./address.js";
import { byId, copies, element, write } from "./dom.js";
import { curl, groupProblem, instant, patientsProblem, sinceProblem, streamUrl } from "./request.js";
import { TYPES } from "./types.js";

/** Those that are offered from the beginning. */
const OFFERED = [
  "Patient", "Encounter", "Observation", "Condition", "Procedure", "Immunization", "MedicationRequest",
  "DetectedIssue", "MeasureReport", "Measure", "Group", "Practitioner", "Organization", "Provenance",
];
const MINUTE = 60_000;

export class RequestView {
  #changed;
  #since = byId("since");
  #group = byId("group");
  #patients = byId("patients");
  #url = "";

  /** `changed` is called with the URL whenever another stream is asked for. */
  constructor(changed) {
    this.#changed = changed;
    const asked = new URLSearchParams(location.search);
    const types = (asked.get("_type") ?? "").split(",").filter((type) => TYPES.includes(type));
    for (const type of new Set([...OFFERED, ...types])) this.#offer(type, types.includes(type));
    byId("all-types").append(...TYPES.map((type) => element("option", { value: type })));
    this.#group.value = asked.get("group") ?? "";
    this.#patients.value = asked.get("patient") ?? "";
    this.#since.value = asked.get("_since") ?? instant(Date.now() - 15 * MINUTE);

    byId("request").addEventListener("submit", (event) => event.preventDefault());
    byId("types").addEventListener("change", () => this.#ask());
    for (const box of [this.#since, this.#group, this.#patients]) box.addEventListener("change", () => this.#ask());
    byId("another").addEventListener("change", (event) => this.#another(event.target));
    for (const preset of document.querySelectorAll("[data-minutes]")) {
      preset.addEventListener("click", () => this.#sinceBecomes(instant(Date.now() - preset.dataset.minutes * MINUTE)));
    }
    byId("replay-all").addEventListener("click", () => this.#sinceBecomes(""));
    copies(byId("copy-url"), byId("url"));
    copies(byId("copy-curl"), byId("curl"));
    this.#ask();
  }

  #sinceBecomes(text) {
    this.#since.value = text;
    // Also when it was empty before: all is wanted once more.
    this.#url = "";
    this.#ask();
  }

  #offer(type, checked) {
    const box = element("input", { type: "checkbox", value: type });
    box.checked = checked;
    byId("types").append(element("label", { class: "chip" }, box, element("span", {}, type)));
  }

  #another(input) {
    const type = TYPES.find((name) => name.toLowerCase() === input.value.trim().toLowerCase());
    if (!type) return;
    const box = [...byId("types").querySelectorAll("input")].find(({ value }) => value === type);
    if (box) box.checked = true;
    else this.#offer(type, true);
    input.value = "";
    this.#ask();
  }

  #ask() {
    const [since, group, patients] = [this.#since, this.#group, this.#patients].map((box) => box.value.trim());
    const problems = [
      [this.#since, sinceProblem(since)], [this.#group, groupProblem(group)], [this.#patients, patientsProblem(patients)],
    ];
    for (const [box, problem] of problems) box.setAttribute("aria-invalid", problem !== undefined);
    const problem = problems.map(([, problem]) => problem).find((problem) => problem !== undefined);
    write(byId("since-problem"), problem ?? "");
    if (problem) return;
    const types = [...byId("types").querySelectorAll("input:checked")].map(({ value }) => value);
    const url = streamUrl(document.baseURI, types, since, { group, patients });
    write(byId("types-hint"), types.length > 0 ? `${types.length} chosen` : "all, as none is chosen");
    write(byId("url"), url);
    write(byId("curl"), curl(url));
    if (url === this.#url) return;
    this.#url = url;
    // An empty `_since` stays: it is everything, and a page without one asks for the last minutes.
    remember({
      _type: types.join(",") || undefined,
      _since: since,
      group: group || undefined,
      patient: patients || undefined,
    });
    this.#changed(url);
  }
}
