// The request for a stream: from what is in the boxes to its URL and its curl.

const ID = /^[A-Za-z0-9.-]{1,64}$/;
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

/** Why a text cannot be `_since`, or undefined; nothing at all means everything. */
export function sinceProblem(text) {
  if (text === "") return undefined;
  if (INSTANT.test(text) && !Number.isNaN(Date.parse(text))) return undefined;
  return "Write an instant such as 2026-01-31T09:30:00Z, or leave it empty for everything.";
}

/** An instant in UTC, in whole seconds. */
export function instant(milliseconds) {
  return new Date(milliseconds).toISOString().replace(/\.\d+Z$/, "Z");
}

/** Why a text cannot be the id of a Group, or undefined; nothing at all means none. */
export function groupProblem(text) {
  return text === "" || ID.test(text) ? undefined : "A Group's id has letters, digits, - and ., such as payer-blue-heron.";
}

/** Why a text cannot be ids of patients, or undefined; nothing at all means none. */
export function patientsProblem(text) {
  const ids = text.split(",").map((id) => id.trim().replace(/^Patient\//, ""));
  return text === "" || ids.every((id) => ID.test(id)) ? undefined : "Write ids of patients, separated by commas.";
}

/**
 * The URL of a stream of these types (of all, if there are none) since an instant (from the beginning, if it is empty), of
 * what belongs to the members of a Group and to patients, where these are given.
 */
export function streamUrl(base, types, since, { group = "", patients = "" } = {}) {
  const query = [];
  const level = group !== "" ? `Group/${group}/` : patients !== "" ? "Patient/" : "";
  if (patients !== "") query.push(`patient=${patients.split(",").map((id) => escaped(id.trim())).join(",")}`);
  if (types.length > 0) query.push(`_type=${types.map(escaped).join(",")}`);
  if (since !== "") query.push(`_since=${escaped(since)}`);
  return `${new URL(`fhir/${level}$export`, base)}${query.length > 0 ? "?" : ""}${query.join("&")}`;
}

/** The same URL after an event. */
export function after(url, lastEventId) {
  return lastEventId ? `${url}${url.includes("?") ? "&" : "?"}_lastEventId=${escaped(lastEventId)}` : url;
}

/** The command that reads the same stream. */
export function curl(url) {
  return `curl -N -H 'Accept: text/event-stream' '${url}'`;
}

/** As people write it: colons stay, what a shell or a URL takes for its own does not. */
function escaped(text) {
  return encodeURIComponent(text).replaceAll("%3A", ":").replaceAll("'", "%27");
}
