import assert from "node:assert/strict";
import { test } from "node:test";
import { Course, Recent } from "../../page/measured.js";
import { Colours, Rates, SECONDS } from "../../page/rates.js";

test("seconds are counted where they belong, and leave after a minute", () => {
  const rates = new Rates();
  for (const second of [100, 100, 101, 103]) rates.count("Patient", second);
  rates.count("Observation", 103);
  const [patient, observation] = rates.series(104);
  assert.deepEqual(patient.values.slice(-5), [0, 2, 1, 0, 1]);
  assert.equal(patient.total, 4);
  assert.deepEqual([observation.type, observation.total], ["Observation", 1]);
  assert.equal(rates.series(100 + SECONDS)[0].total, 4);
  assert.equal(rates.series(101 + SECONDS)[0].total, 2);
  assert.deepEqual(rates.series(1000), []);
});

test("the second that runs is not shown yet", () => {
  const rates = new Rates();
  rates.count("Patient", 7);
  assert.deepEqual(rates.series(7), []);
  assert.equal(rates.series(8)[0].values.at(-1), 1);
});

test("a type keeps its colour while it is among the first", () => {
  const colours = new Colours(2);
  colours.assign(["a", "b", "c"]);
  assert.deepEqual(["a", "b", "c"].map((type) => colours.of(type)), [1, 2, 0]);
  colours.assign(["c", "b", "a"]);
  assert.deepEqual(["a", "b", "c"].map((type) => colours.of(type)), [0, 2, 1]);
});

test("a quantile is one of the values", () => {
  const recent = new Recent(4);
  assert.equal(recent.quantile(0.5), undefined);
  for (const value of [900, 4, 1, 3, 2]) recent.add(value);
  assert.deepEqual([0, 0.5, 0.95].map((share) => recent.quantile(share)), [1, 3, 4]);
});

test("a course has its first value for ever, in bounded room", () => {
  const course = new Course(10);
  for (let value = 0; value < 1000; value += 1) course.add(value);
  assert.equal(course.samples[0], 0);
  assert.ok(course.samples.length <= 10);
  assert.ok(course.samples.at(-1) > 800);
});
