// Three clients that this project did not write follow one channel through publish, rollback and
// restart, and check every state by a hash that they compute on their own.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { isSigned } from "./canonical.mjs";
import { CurlSse, npmWs, pythonWebsockets } from "./clients.mjs";
import { fieldsOf } from "./protocol_page.mjs";
import { Server } from "./server.mjs";

const KEY = "demo-key";
const CHANNEL = { environment: "prod", set: "storefront", app: "web" };

let server;
let clients = [];

before(async () => {
  server = await Server.start(["--drain-window", "500ms"]);
  clients = [new CurlSse(server.url, KEY), pythonWebsockets(server.url, KEY), npmWs(server.url, KEY)];
});

after(async () => {
  await Promise.all(clients.map((client) => client.stop()));
  await server?.dispose();
});

function publish(set, unset = []) {
  return server.request("POST", "/v1/config/publish", { ...CHANNEL, layer: "app", changes: { set, unset } }, { "Idempotency-Key": randomUUID() });
}

/** All clients reach `head`, with its hash. */
async function allReach(head) {
  const states = await Promise.all(clients.map((client) => client.reaches(head.revision)));
  for (const [index, state] of states.entries()) {
    const { name } = clients[index];
    assert.equal(state.revision, head.revision, name);
    assert.equal(state.computed, head.hash, `${name} computes the hash that the publisher was told`);
    assert.equal(state.hash, head.hash, `${name} is sent the hash that the publisher was told`);
  }
}

/** Restarts the server on its port and folder; answers how each client was resumed. */
async function restart(between = async () => {}) {
  const seen = clients.map((client) => client.events.length);
  const ended = await server.terminate();
  assert.deepEqual(ended, { code: 0, signal: null }, `the server ends cleanly on SIGTERM:\n${server.output}`);
  await server.start();
  await between();
  return Promise.all(clients.map((client, index) => client.sees("resumed", seen[index])));
}

test("a client without a cursor begins with a snapshot whose hash it can compute", async () => {
  for (const client of clients) {
    const resumed = await client.sees("resumed");
    assert.equal(resumed.mode, "snapshot", client.name);
    assert.equal(resumed.why, "no_cursor", client.name);
    const applied = await client.sees("applied");
    assert.ok(applied.isRight, `${client.name}: ${applied.computed} is not ${applied.hash}`);
  }
});

test("a publish reaches every client, whatever JSON its values are", async () => {
  const head = await publish({
    "test/numbers": [0, -0, 1.0, 1e-7, 0.1, 5e-324, 123456789.125, 9007199254740991],
    "test/text": "Grüße, 世界 \u{1f30a} \" \\ / \b\f\n\r\t \u0001 \u2028 \u007f",
    "test/deep": { z: [true, false, null, {}], "\u{1f30a}": 1, "\ufb01": 2, "10": 3, "9": 4, "": 5 },
    "test/\u{1f30a}": "a key beyond the BMP sorts by its bytes",
    "test/\ufb01": "and this one before it",
    ["__proto__"]: "an awkward name",
  });
  await allReach(head);
});

test("publishes in quick succession end at the same state everywhere", async () => {
  let head;
  for (let round = 0; round < 20; round += 1) head = await publish({ "test/round": round, [`test/of/${round % 5}`]: round });
  await allReach(head);
});

test("a key that is unset disappears everywhere", async () => {
  const head = await publish({}, ["test/deep", "test/of/3"]);
  await allReach(head);
});

test("a rollback is a new revision with the old content", async () => {
  const before = await publish({ "test/rollback": "before" });
  const changed = await publish({ "test/rollback": "after", "test/new": 1 });
  const head = await server.request("POST", "/v1/config/rollback", { ...CHANNEL, toRevision: before.revision }, { "Idempotency-Key": randomUUID() });
  assert.ok(head.revision > changed.revision);
  assert.equal(head.hash, before.hash);
  await allReach(head);
});

test("every client that is connected hears that the server leaves, and resumes unchanged after a restart", async () => {
  const seen = clients.map((client) => client.events.length);
  const resumed = await restart();
  for (const [index, client] of clients.entries()) {
    assert.equal(resumed[index].mode, "unchanged", `${client.name}: ${resumed[index].why}`);
    await client.sees("goaway", seen[index]);
    const closed = await client.sees("closed", seen[index]);
    // curl has no close code: 0 says that the stream ended as streams do.
    assert.equal(closed.code, client.name === "curl -N" ? 0 : 4000, client.name);
  }
  await allReach(await publish({ "test/after restart": true }));
});

test("a client that was away resumes with a delta, though the server restarted meanwhile", async () => {
  const left = clients.map((client) => client.events.length);
  for (const client of clients) client.leave();
  await Promise.all(clients.map((client, index) => client.sees("closed", left[index])));
  await publish({ "test/away": 1, "test/text": "shorter" }, ["test/numbers"]);
  let head;
  const resumed = await restart(async () => {
    head = await publish({ "test/away": 2 });
    for (const client of clients) client.return();
  });
  for (const [index, client] of clients.entries()) assert.equal(resumed[index].mode, "delta", `${client.name}: ${resumed[index].why}`);
  await allReach(head);
});

test("the signature of a delta holds under the published key", async () => {
  const { keys } = await server.request("GET", "/v1/keys/signing");
  const { tenantId } = await server.request("GET", "/v1/config?env=prod&set=storefront&app=web");
  const head = await publish({ "test/signed": randomUUID() });
  const { epoch, revision, computed, sig } = await clients[0].reaches(head.revision);
  const claims = { tenant: tenantId, ...CHANNEL, epoch, revision, hash: computed };
  assert.ok(isSigned(sig, claims, keys));
  assert.ok(!isSigned(sig, { ...claims, tenant: "demo2" }, keys));
});

test("every field that the server sent is on the protocol page", () => {
  const shapes = clients[2].events.filter((event) => event.event === "shape");
  const seen = new Set(shapes.map((shape) => shape.type));
  for (const type of ["hello", "resumed", "snapshot", "delta", "goaway"]) assert.ok(seen.has(type), `a ${type} was seen`);
  for (const { type, fields } of shapes) {
    const known = fieldsOf(type);
    assert.deepEqual(fields.filter((field) => !known.has(field)), [], `${type}: ${fields}`);
  }
});

test("no client ever went back, saw a wrong hash, or was told something unknown", () => {
  for (const client of clients) {
    assert.deepEqual(client.faults(), [], client.name);
    const revisions = client.events.filter((event) => event.event === "applied").map((event) => event.revision);
    assert.deepEqual(revisions, [...revisions].sort((a, b) => a - b), client.name);
    const snapshots = client.events.filter((event) => event.event === "applied" && event.kind === "snapshot");
    assert.equal(snapshots.length, 1, `${client.name} needed one snapshot, at its beginning`);
  }
});
