// What the page understands of FHIR: what an event is, what a reference points to, what people call a thing.

/** The notice that an OperationOutcome of the service's own is, or undefined: what is stored has an id, a notice has none. */
export function noticeIn(outcome) {
  const issue = outcome?.issue?.[0];
  if (!issue || outcome.id !== undefined) return undefined;
  const extension = issue.extension?.find(({ url }) => url === "urn:fhir-tail:transaction-time");
  return {
    code: issue.details?.coding?.[0]?.code ?? issue.code,
    text: issue.diagnostics ?? "",
    about: issue.expression ?? [],
    transactionTime: extension?.valueInstant,
  };
}

/** What a Bundle of the service's own says is gone, `{ type, id }`, or undefined for a Bundle that is stored. */
export function deletionIn(bundle) {
  const request = bundle?.id === undefined ? bundle?.entry?.[0]?.request : undefined;
  if (request?.method !== "DELETE") return undefined;
  const [type, id] = String(request.url).split("/");
  return { type, id };
}

/** `Type/id` of a reference, however it is written: relative, absolute, or to a version. */
export function referenced(reference) {
  const text = reference?.reference;
  return typeof text === "string" ? /([A-Z]\w+\/[\w.-]+)(?:\/_history\/[\w.-]+)?$/.exec(text)?.[1] : undefined;
}

/** A canonical URL without its version. */
export function withoutVersion(canonical) {
  return String(canonical ?? "").split("|")[0];
}

/** A person's name, the official one before others. */
export function personName(names) {
  const list = Array.isArray(names) ? names : [];
  const name = list.find(({ use }) => use === "official") ?? list.find(({ use }) => use !== "old") ?? list[0];
  if (!name) return undefined;
  return name.text || [...(name.given ?? []), name.family].filter(Boolean).join(" ") || undefined;
}

/** The text of a CodeableConcept. */
export function conceptText(concept) {
  const coding = concept?.coding?.find(({ display }) => display) ?? concept?.coding?.[0];
  return concept?.text || coding?.display || coding?.code;
}

/** An instant that compares as text: with all six digits of its fraction. */
export function sortable(instant) {
  const parts = /^(.{19})(?:\.(\d+))?Z$/.exec(instant ?? "");
  return parts ? `${parts[1]}.${(parts[2] ?? "").padEnd(6, "0")}Z` : (instant ?? "");
}
