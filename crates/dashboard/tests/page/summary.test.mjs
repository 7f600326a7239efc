import assert from "node:assert/strict";
import { test } from "node:test";
import { summary } from "../../page/summary.js";

test("what a resource is about, in one line", () => {
  const concept = (display) => ({ coding: [{ code: "x" }, { display }] });
  for (const [resource, line] of [
    [{ resourceType: "Patient", name: [{ family: "Berg", given: ["Ann"] }], birthDate: "1980-02-29" }, "Ann Berg, 1980-02-29"],
    [{ resourceType: "Observation", code: concept("Glucose"), valueString: "high", status: "final" }, "Glucose · high · final"],
    [{ resourceType: "Condition", code: { text: "Asthma" } }, "Asthma"],
    [{ resourceType: "Immunization", vaccineCode: concept("MMR"), status: "completed" }, "MMR · completed"],
    [{ resourceType: "Basic" }, ""],
  ]) {
    assert.equal(summary(resource), line);
  }
});

test("what is not as FHIR has it does no harm", () => {
  for (const odd of [{ resourceType: "Patient", name: [7] }, { code: "x", name: {} }, { resourceType: "DetectedIssue", modifierExtension: {} }]) {
    assert.equal(typeof summary(odd), "string");
  }
});
