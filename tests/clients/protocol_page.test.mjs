// The numbers on the protocol page, recomputed in both languages. Needs no server.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { canonical, channelHash, isSigned, payload, valueHash } from "./canonical.mjs";
import { PYTHON } from "./clients.mjs";
import { example, exampleFrames, exampleText, fieldsOf } from "./protocol_page.mjs";
import { State } from "./state.mjs";

test("the worked example holds in JavaScript", () => {
  for (const line of example.hashed) {
    const value = example.items[line.key];
    assert.equal(canonical(value), line.value);
    assert.equal(valueHash(value).toString("hex"), line.valueSha256);
    assert.equal(Buffer.byteLength(line.key), line.keyBytes);
  }
  assert.equal(channelHash(new Map(Object.entries(example.items))), example.hash);
  const claims = JSON.parse(example.payload);
  assert.equal(payload(claims), example.payload);
  assert.ok(isSigned(example.signature, claims, [example.jwk]));
  assert.ok(!isSigned(example.signature, { ...claims, revision: 43 }, [example.jwk]));
});

test("the worked example holds in Python", () => {
  execFileSync(PYTHON, [join(import.meta.dirname, "check_example.py")], { input: exampleText, stdio: "pipe" });
});

test("the example frames carry the right hash and signature, and name every field they have", () => {
  const [snapshot, delta] = [exampleFrames.get("snapshot"), exampleFrames.get("delta")];
  const applied = new State().apply(snapshot);
  assert.ok(applied.isRight, applied.computed);
  assert.ok(isSigned(applied.sig, JSON.parse(example.payload), [example.jwk]));
  const state = new State();
  state.apply({ ...snapshot, revision: delta.from, items: { ...example.items, "features/payments": false, "features/old": 1 } });
  assert.ok(state.apply(delta).isRight);
  for (const type of ["hello", "resumed", "snapshot", "delta", "hint", "bookmark", "reauth", "goaway", "error"]) {
    assert.ok(exampleFrames.has(type), `there is an example of ${type}`);
    assert.ok(fieldsOf(type).size > 1);
  }
});
