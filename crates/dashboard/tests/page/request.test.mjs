import assert from "node:assert/strict";
import { test } from "node:test";
import { deletionIn, noticeIn, sortable } from "../../page/fhir.js";
import { after, curl, instant, sinceProblem, streamUrl } from "../../page/request.js";

test("the URL says what is in the boxes", () => {
  assert.equal(streamUrl("https://example.org/tail/?x=1#y", [], ""), "https://example.org/tail/fhir/$export");
  assert.equal(
    streamUrl("http://localhost:8080/", ["Patient", "Observation"], "2026-01-01T00:00:00+02:00"),
    "http://localhost:8080/fhir/$export?_type=Patient,Observation&_since=2026-01-01T00:00:00%2B02:00",
  );
});

test("a shell gets the URL as one word", () => {
  assert.match(curl(streamUrl("http://localhost/", ["it's"], "")), /'http:\/\/localhost\/fhir\/\$export\?_type=it%27s'$/);
});

test("a position is added to what is asked", () => {
  assert.equal(after("/x", ""), "/x");
  assert.equal(after("/x", "a+b"), "/x?_lastEventId=a%2Bb");
  assert.equal(after("/x?_type=Patient", "a"), "/x?_type=Patient&_lastEventId=a");
});

test("an instant has a time and a zone", () => {
  for (const good of ["", "2026-01-31T09:30:00Z", "2026-01-31T09:30:00.123456-05:00", instant(Date.now())]) {
    assert.equal(sinceProblem(good), undefined, good);
  }
  for (const bad of ["2026-01-31", "2026-01-31T09:30:00", "yesterday", "2026-13-31T09:30:00Z"]) {
    assert.equal(typeof sinceProblem(bad), "string", bad);
  }
});

test("what the service makes is told from what is stored", () => {
  const issue = [{ code: "informational", details: { coding: [{ code: "live" }] }, diagnostics: "now",
    extension: [{ url: "urn:fhir-tail:transaction-time", valueInstant: "2026-01-01T00:00:00Z" }] }];
  assert.deepEqual(noticeIn({ issue }), { code: "live", text: "now", about: [], transactionTime: "2026-01-01T00:00:00Z" });
  assert.equal(noticeIn({ id: "1", issue }), undefined);
  const entry = [{ request: { method: "DELETE", url: "Patient/p.1" } }];
  assert.deepEqual(deletionIn({ entry }), { type: "Patient", id: "p.1" });
  assert.equal(deletionIn({ id: "1", entry }), undefined);
  assert.equal(deletionIn({ entry: [{ request: { method: "PUT", url: "Patient/p" } }] }), undefined);
});

test("instants compare as text", () => {
  const instants = ["2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456Z"];
  assert.deepEqual(instants.map(sortable).sort(), [
    "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.123456Z", "2026-01-01T00:00:00.500000Z",
  ]);
});
