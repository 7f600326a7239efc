// The care-gap board, as numbers: from Patient, Measure, MeasureReport and DetectedIssue as Da Vinci DEQM has them to one
// status per patient, measure and period. It knows neither the page nor the stream, and is tested without a browser.
//
// A DetectedIssue has the status of a gap, and as evidence the MeasureReport that says whose gap it is, of which measure
// and period. A gap changes by an update of its DetectedIssue, or by a new one with a newer report: the newest report
// that has a DetectedIssue decides, by its date, and among several for one report the one that was written last.

import { personName, referenced, sortable, withoutVersion } from "./fhir.js";

/** The resource types that the board is made of. */
export const BOARD_TYPES = ["Patient", "Measure", "MeasureReport", "DetectedIssue"];

/** The statuses of a gap that are counted, in the order in which they are shown. */
export const STATUSES = ["open", "closed", "prospective"];

const CODES = new Map([
  ["open-gap", "open"],
  ["closed-gap", "closed"],
  ["prospective-gap", "prospective"],
  ["not-applicable", "not applicable"],
]);

/** The most resources that are kept of a type: a browser's memory is not a database. */
const MOST = 400_000;
const FLIPS = 50;

export class Gaps {
  /** The gaps: key to `{ patient, measure, period, status }`. */
  gaps = new Map();
  /** The last that changed their status, the newest first: `{ at, patient, measure, period, from, to }`. */
  flips = [];
  /** Whether there was more than can be kept. */
  full = false;

  #most;
  #patients = new Map();
  #measures = new Map();
  #reports = new Map();
  #issues = new Map();
  #reportsOf = new Map();
  #issuesOf = new Map();
  #counts = new Map();
  #unsettled = new Map();
  /** By type: the ids that have not come again since everything of the type began to come again. */
  #missing = new Map();

  constructor(most = MOST) {
    this.#most = most;
  }

  /** Takes a resource of one of the types. */
  put(resource) {
    this.#missing.get(resource.resourceType)?.delete(resource.id);
    switch (resource.resourceType) {
      case "Patient":
        this.#keep(this.#patients, resource.id, { name: personName(resource.name) });
        break;
      case "Measure":
        this.#keep(this.#measures, resource.id, {
          url: withoutVersion(resource.url),
          title: [resource.title, resource.name].find((text) => typeof text === "string"),
        });
        break;
      case "MeasureReport":
        this.#putReport(resource);
        break;
      case "DetectedIssue":
        this.#putIssue(resource);
        break;
    }
  }

  /** Forgets a resource that was deleted. */
  remove(type, id, at = "") {
    switch (type) {
      case "Patient":
        this.#patients.delete(id);
        break;
      case "Measure":
        this.#measures.delete(id);
        break;
      case "MeasureReport":
        this.#removeReport(id, at);
        break;
      case "DetectedIssue":
        this.#removeIssue(id, at);
        break;
    }
  }

  /** Everything of these types comes again, up to `complete`. */
  restart(types) {
    for (const type of types) this.#missing.set(type, new Set(this.#kept(type).keys()));
  }

  /** All that there is has come: what did not come again since `restart` is gone. */
  complete() {
    const missing = [...this.#missing];
    this.#missing.clear();
    for (const [type, ids] of missing) {
      for (const id of ids) this.remove(type, id);
    }
  }

  /**
   * Works out the status of the gaps that were touched since the last time, several events at once, as a transaction has
   * them. Those that changed are the newest flips, unless they are only the state that there was: `quietly`.
   */
  settle(quietly = false) {
    for (const [key, at] of this.#unsettled) {
      const before = this.gaps.get(key);
      const now = this.#decide(key);
      if (before?.status === now?.status) continue;
      const { patient, measure, period } = now ?? before;
      this.#count(measure, before?.status, -1);
      this.#count(measure, now?.status, 1);
      if (now) this.gaps.set(key, now);
      else this.gaps.delete(key);
      if (!quietly) this.flips.unshift({ at, patient, measure, period, from: before?.status, to: now?.status });
    }
    this.#unsettled.clear();
    this.flips.length = Math.min(this.flips.length, FLIPS);
  }

  /** The measures with their counts, by title: `{ measure, title, open, closed, prospective }`. */
  perMeasure() {
    const rows = [...this.#counts].map(([measure, counts]) => ({ measure, title: this.titleOf(measure), ...counts }));
    return rows.sort((one, other) => one.title.localeCompare(other.title) || (one.measure < other.measure ? -1 : 1));
  }

  /** What people call a measure. */
  titleOf(measure) {
    for (const { url, title } of this.#measures.values()) {
      if (url === measure && title) return title;
    }
    return measure.split("/").pop() || "unnamed measure";
  }

  /** What people call a patient. */
  nameOf(patient) {
    return this.#patients.get(patient.slice("Patient/".length))?.name ?? patient;
  }

  /** How many gaps there are of all measures: `{ open, closed, prospective }`. */
  total() {
    const total = Object.fromEntries(STATUSES.map((status) => [status, 0]));
    for (const counts of this.#counts.values()) {
      for (const status of STATUSES) total[status] += counts[status];
    }
    return total;
  }

  #keep(kept, id, value) {
    if (kept.size >= this.#most && !kept.has(id)) {
      this.full = true;
      return false;
    }
    kept.set(id, value);
    return true;
  }

  #kept(type) {
    switch (type) {
      case "Patient":
        return this.#patients;
      case "Measure":
        return this.#measures;
      case "MeasureReport":
        return this.#reports;
      default:
        return this.#issues;
    }
  }

  #putReport(resource) {
    const at = sortable(resource.meta?.lastUpdated);
    const parts = {
      patient: referenced(resource.subject),
      measure: withoutVersion(resource.measure),
      period: [resource.period?.start, resource.period?.end].map((day) => day?.slice(0, 10) ?? "").join(" to "),
    };
    const key = [parts.patient, parts.measure, parts.period].join("\n");
    const before = this.#reports.get(resource.id);
    if (before && before.key !== key) this.#removeReport(resource.id, at);
    if (!parts.patient || resource.status === "error") {
      this.#removeReport(resource.id, at);
      return;
    }
    const date = Date.parse(resource.date);
    if (this.#keep(this.#reports, resource.id, { key, parts, date: Number.isNaN(date) ? -Infinity : date, at })) {
      add(this.#reportsOf, key, resource.id);
      this.#unsettled.set(key, at);
    }
  }

  #removeReport(id, at) {
    const report = this.#reports.get(id);
    if (!report) return;
    this.#reports.delete(id);
    take(this.#reportsOf, report.key, id);
    this.#unsettled.set(report.key, at);
  }

  #putIssue(resource) {
    const at = sortable(resource.meta?.lastUpdated);
    // It may have other evidence than before.
    this.#removeIssue(resource.id, at);
    const extension = resource.modifierExtension?.find(({ url }) => url.endsWith("gapStatus"));
    const codes = extension?.valueCodeableConcept?.coding?.map(({ code }) => CODES.get(code)) ?? [];
    const status = codes.find(Boolean);
    if (!status || ["entered-in-error", "cancelled"].includes(resource.status)) return;
    const evidence = (resource.evidence ?? []).flatMap(({ detail }) => detail ?? []).map(referenced);
    const reports = evidence.filter((name) => name?.startsWith("MeasureReport/")).map((name) => name.split("/")[1]);
    if (this.#keep(this.#issues, resource.id, { status, reports, at })) {
      for (const report of reports) add(this.#issuesOf, report, resource.id);
      this.#touchReports(reports, at);
    }
  }

  #removeIssue(id, at) {
    const issue = this.#issues.get(id);
    if (!issue) return;
    this.#issues.delete(id);
    for (const report of issue.reports) take(this.#issuesOf, report, id);
    this.#touchReports(issue.reports, at);
  }

  #touchReports(reports, at) {
    for (const id of reports) {
      const report = this.#reports.get(id);
      if (report) this.#unsettled.set(report.key, at);
    }
  }

  #decide(key) {
    let decided;
    for (const reportId of this.#reportsOf.get(key) ?? []) {
      const report = this.#reports.get(reportId);
      for (const issueId of this.#issuesOf.get(reportId) ?? []) {
        const issue = this.#issues.get(issueId);
        const rank = [report.date, report.at, reportId, issue.at, issueId];
        if (!decided || isAfter(rank, decided.rank)) decided = { rank, gap: { ...report.parts, status: issue.status } };
      }
    }
    return decided?.gap;
  }

  #count(measure, status, by) {
    if (!STATUSES.includes(status)) return;
    if (!this.#counts.has(measure)) {
      this.#counts.set(measure, Object.fromEntries(STATUSES.map((status) => [status, 0])));
    }
    this.#counts.get(measure)[status] += by;
  }
}

function isAfter(rank, other) {
  const at = rank.findIndex((value, index) => value !== other[index]);
  return at >= 0 && rank[at] > other[at];
}

function add(sets, key, member) {
  if (!sets.has(key)) sets.set(key, new Set());
  sets.get(key).add(member);
}

function take(sets, key, member) {
  const set = sets.get(key);
  set?.delete(member);
  if (set?.size === 0) sets.delete(key);
}
