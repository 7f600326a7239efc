import assert from "node:assert/strict";
import { test } from "node:test";
import { layOut } from "../../page/json.js";

const readable = (text) => layOut(text).map((token) => token.text).join("");

test("numbers keep their digits, keys their order", () => {
  const text = '{"b":1.50,"a":[1e-7,-0.0,12345678901234567890.10],"1":true}';
  assert.equal(
    readable(text),
    '{\n  "b": 1.50,\n  "a": [\n    1e-7,\n    -0.0,\n    12345678901234567890.10\n  ],\n  "1": true\n}',
  );
});

test("strings keep what is in them", () => {
  const text = String.raw`{"a":"{\"x\": [1, 2]}\\","b":"\u0000\ud800","c":"a:b, c"}`;
  const tokens = layOut(text).filter(({ kind }) => kind === "string");
  assert.deepEqual(tokens.map(({ text }) => text), [String.raw`"{\"x\": [1, 2]}\\"`, String.raw`"\u0000\ud800"`, '"a:b, c"']);
});

test("laid out anew it is the same", () => {
  const resource = { a: [], b: {}, c: [[], [{}]], d: null, e: "é\n\t\"", f: [1, { g: false }] };
  assert.equal(readable(JSON.stringify(resource)), JSON.stringify(resource, null, 2));
  assert.equal(readable(JSON.stringify(resource, null, 7)), JSON.stringify(resource, null, 2));
});

test("kinds are told apart", () => {
  const kinds = layOut('{"k":"v","n":-1,"t":null}').filter(({ kind }) => kind !== "mark");
  assert.deepEqual(kinds.map(({ kind }) => kind), ["key", "string", "key", "number", "key", "word"]);
});

test("what is no JSON stays as it is", () => {
  for (const text of ['{"a', 'a "', "", '{"a": "b}']) assert.equal(readable(text), text);
});
