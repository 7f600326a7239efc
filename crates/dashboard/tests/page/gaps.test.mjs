import assert from "node:assert/strict";
import { test } from "node:test";
import { BOARD_TYPES, Gaps } from "../../page/gaps.js";

const URL = "http://example.org/Measure/";
let clock = 0;
const written = () => ({ lastUpdated: `2026-03-01T10:00:00.${String((clock += 1)).padStart(6, "0")}Z` });

const report = (id, { measure = "crc", patient = "p1", date = "2026-01-10", year = 2026, ...more } = {}) => ({
  resourceType: "MeasureReport",
  id,
  meta: written(),
  status: "complete",
  measure: `${URL}${measure}|1.0`,
  subject: { reference: `Patient/${patient}` },
  date,
  period: { start: `${year}-01-01`, end: `${year}-12-31` },
  ...more,
});

const issue = (id, reports, status, more) => ({
  resourceType: "DetectedIssue",
  id,
  meta: written(),
  status: "final",
  modifierExtension: [
    { url: "http://example.org/other", valueBoolean: true },
    {
      url: "http://hl7.org/fhir/uv/deqm/StructureDefinition/deqm-gapStatus",
      valueCodeableConcept: { coding: [{ code: status }] },
    },
  ],
  evidence: [{ detail: [reports].flat().map((id) => ({ reference: `MeasureReport/${id}` })) }],
  ...more,
});

/** A board that has settled on these. */
function board(...resources) {
  const gaps = new Gaps();
  resources.forEach((resource) => gaps.put(resource));
  gaps.settle(true);
  return gaps;
}

/** Puts these as one transaction, and gives the flips that they are. */
function flips(gaps, ...resources) {
  const before = gaps.flips.length;
  resources.forEach((resource) => gaps.put(resource));
  gaps.settle();
  return gaps.flips.slice(0, gaps.flips.length - before).map(({ from, to }) => `${from} ${to}`);
}

const counts = (gaps) => {
  const { open, closed, prospective } = gaps.total();
  return [open, closed, prospective];
};

test("the state that there was is no flip", () => {
  const gaps = board(report("r1"), issue("i1", "r1", "open-gap"));
  assert.deepEqual(counts(gaps), [1, 0, 0]);
  assert.deepEqual(gaps.flips, []);
});

test("a gap closes by an update of its issue", () => {
  const gaps = board(report("r1"), issue("i1", "r1", "open-gap"));
  assert.deepEqual(flips(gaps, issue("i1", "r1", "closed-gap")), ["open closed"]);
  assert.deepEqual(counts(gaps), [0, 1, 0]);
});

test("a gap closes by a new issue with a newer report, in either order", () => {
  for (const swap of [false, true]) {
    const gaps = board(report("r1"), issue("i1", "r1", "open-gap"));
    const both = [report("r2", { date: "2026-02-01T08:00:00+02:00" }), issue("i2", "r2", "closed-gap")];
    assert.deepEqual(flips(gaps, ...(swap ? both.reverse() : both)), ["open closed"]);
    assert.deepEqual(counts(gaps), [0, 1, 0]);
    assert.equal(gaps.gaps.size, 1);
  }
});

test("an older report that comes late does not decide", () => {
  const gaps = board(report("r2", { date: "2026-02-01" }), issue("i2", "r2", "closed-gap"));
  assert.deepEqual(flips(gaps, report("r1"), issue("i1", "r1", "open-gap")), []);
  assert.deepEqual(counts(gaps), [0, 1, 0]);
});

test("of two reports of one date the one that was written last decides", () => {
  const gaps = board(report("r2"), issue("i2", "r2", "open-gap"), report("r1"), issue("i1", "r1", "closed-gap"));
  assert.deepEqual(counts(gaps), [0, 1, 0]);
});

test("a report without an issue takes nothing away", () => {
  const gaps = board(report("r1"), issue("i1", "r1", "open-gap"));
  assert.deepEqual(flips(gaps, report("r2", { date: "2026-02-01" })), []);
  assert.deepEqual(counts(gaps), [1, 0, 0]);
});

test("patients, measures and periods are apart, versions of a measure are not", () => {
  const gaps = board(
    report("r1"), issue("i1", "r1", "open-gap"),
    report("r2", { patient: "p2" }), issue("i2", "r2", "closed-gap"),
    report("r3", { year: 2025 }), issue("i3", "r3", "prospective-gap"),
    report("r4", { measure: "bcs" }), issue("i4", "r4", "not-applicable"),
    report("r5", { measure: undefined, date: "2026-02-01" }), issue("i5", "r5", "open-gap"),
  );
  assert.equal(gaps.gaps.size, 4);
  const rows = gaps.perMeasure().map(({ measure, open, closed, prospective }) => [measure, open, closed, prospective]);
  assert.deepEqual(rows, [[`${URL}crc`, 1, 1, 1]]);
});

test("what was deleted leaves the board", () => {
  const gaps = board(report("r1"), issue("i1", "r1", "open-gap"), report("r2", { date: "2026-02-01" }), issue("i2", "r2", "closed-gap"));
  gaps.remove("DetectedIssue", "i2", "2026-03-01T10:00:01Z");
  gaps.settle();
  assert.deepEqual(counts(gaps), [1, 0, 0]);
  gaps.remove("MeasureReport", "r1");
  gaps.settle();
  assert.deepEqual(counts(gaps), [0, 0, 0]);
  assert.equal(gaps.gaps.size, 0);
  assert.deepEqual(gaps.flips.map(({ from, to }) => [from, to]), [["open", undefined], ["closed", "open"]]);
  // Its report comes back before its issue is touched.
  assert.deepEqual(flips(gaps, report("r1")), ["undefined open"]);
});

test("an issue that was entered in error counts no more", () => {
  const gaps = board(report("r1"), issue("i1", "r1", "open-gap"));
  assert.deepEqual(flips(gaps, issue("i1", "r1", "open-gap", { status: "entered-in-error" })), ["open undefined"]);
});

test("an issue may move to another report, a report to another patient", () => {
  const gaps = board(report("r1"), report("r2", { patient: "p2" }), issue("i1", "r1", "open-gap"));
  flips(gaps, issue("i1", "r2", "open-gap"));
  assert.deepEqual([...gaps.gaps.values()].map(({ patient }) => patient), ["Patient/p2"]);
  flips(gaps, report("r2", { patient: "p3" }));
  assert.deepEqual([...gaps.gaps.values()].map(({ patient }) => patient), ["Patient/p3"]);
  assert.deepEqual(counts(gaps), [1, 0, 0]);
});

test("references are understood however they are written", () => {
  const gaps = board(
    report("r1", { subject: { reference: "https://example.org/fhir/Patient/p1/_history/3" } }),
    issue("i1", [], "open-gap", { evidence: [{}, { detail: [{ reference: "https://example.org/fhir/MeasureReport/r1" }, { display: "no reference" }] }] }),
  );
  assert.deepEqual([...gaps.gaps.values()].map(({ patient }) => patient), ["Patient/p1"]);
});

test("when everything comes again, what does not is gone", () => {
  const gaps = board(report("r1"), issue("i1", "r1", "open-gap"), report("r2", { patient: "p2" }), issue("i2", "r2", "open-gap"));
  gaps.restart(BOARD_TYPES);
  flips(gaps, report("r2", { patient: "p2" }), issue("i2", "r2", "open-gap"));
  assert.deepEqual(counts(gaps), [2, 0, 0]);
  gaps.complete();
  gaps.settle();
  assert.deepEqual(counts(gaps), [1, 0, 0]);
  // A later end of a replay takes nothing away.
  gaps.complete();
  gaps.settle();
  assert.deepEqual(counts(gaps), [1, 0, 0]);
});

test("types that do not come again stay", () => {
  const gaps = board({ resourceType: "Measure", id: "m", url: `${URL}crc`, title: "Screening" }, report("r1"), issue("i1", "r1", "open-gap"));
  gaps.restart(BOARD_TYPES.filter((type) => type !== "Measure"));
  gaps.complete();
  gaps.settle();
  assert.deepEqual(counts(gaps), [0, 0, 0]);
  assert.equal(gaps.titleOf(`${URL}crc`), "Screening");
});

test("a patient who left and is back counts, although nothing of hers is newer than her leaving", () => {
  const all = [report("r1"), issue("i1", "r1", "open-gap")];
  const gaps = board(...all);
  const left = "2026-12-01T10:00:00Z";
  gaps.remove("MeasureReport", "r1", left);
  gaps.remove("DetectedIssue", "i1", left);
  gaps.settle();
  assert.deepEqual(counts(gaps), [0, 0, 0]);
  assert.deepEqual(flips(gaps, ...all), ["undefined open"]);
  assert.deepEqual(counts(gaps), [1, 0, 0]);
});

test("names are those of the resources", () => {
  const gaps = board(
    { resourceType: "Patient", id: "p1", name: [{ use: "old", family: "Before" }, { given: ["Ann", "B."], family: "Now" }] },
    { resourceType: "Measure", id: "m", url: `${URL}crc`, title: "Colorectal Cancer Screening" },
    report("r1"), issue("i1", "r1", "open-gap"),
  );
  assert.equal(gaps.nameOf("Patient/p1"), "Ann B. Now");
  assert.equal(gaps.nameOf("Patient/unknown"), "Patient/unknown");
  assert.equal(gaps.perMeasure()[0].title, "Colorectal Cancer Screening");
});

test("it holds no more than it may", () => {
  const gaps = new Gaps(2);
  for (const id of ["1", "2", "3"]) {
    gaps.put(report(`r${id}`, { patient: id }));
    gaps.put(issue(`i${id}`, `r${id}`, "open-gap"));
  }
  gaps.settle();
  assert.deepEqual(counts(gaps), [2, 0, 0]);
  assert.equal(gaps.full, true);
});
