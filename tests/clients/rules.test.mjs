// The rules of docs/protocol.md, one by one, as a client meets them. Section numbers are the page's.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { channelHash } from "./canonical.mjs";
import { Server, until } from "./server.mjs";

const CHANNEL = { environment: "prod", set: "storefront", app: "web" };
const QUERY = "env=prod&set=storefront&app=web";
const BEARER = { Authorization: "Bearer demo-key" };

let server;

before(async () => {
  server = await Server.start(["--heartbeat", "1s", "--handshake-timeout", "1s", "--drain-window", "100ms"]);
});
after(() => server?.dispose());

/** A bare client: it sends what it is told to and keeps what it gets. */
class Peer {
  frames = [];
  closed = null;

  constructor(headers = BEARER, path = "/v1/stream") {
    this.socket = new WebSocket(server.url.replace("http", "ws") + path, "ecs.refresh.v1", { headers });
    this.socket.on("message", (data) => this.frames.push(JSON.parse(data)));
    this.socket.on("error", (error) => (this.error = error));
    this.socket.on("close", (code) => (this.closed = code));
  }

  async open() {
    await until(() => `the connection opens: ${this.error}`, () => this.socket.readyState === WebSocket.OPEN);
    return this;
  }

  send(frame) {
    this.socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** Takes the first frame of this type that `matches`, and forgets those before it. */
  async next(type, matches = () => true) {
    const isWanted = (frame) => frame.type === type && matches(frame);
    await until(() => `a ${type} comes; there is ${JSON.stringify(this.frames)} ${this.closed ?? ""}`, () => this.frames.some(isWanted));
    const at = this.frames.findIndex(isWanted);
    return this.frames.splice(0, at + 1).at(-1);
  }

  async ends() {
    await until("the connection ends", () => this.closed !== null);
    return this.closed;
  }
}

async function subscribed(extra = {}) {
  const peer = await new Peer().open();
  peer.send({ type: "subscribe", sub: 1, ...CHANNEL, ...extra });
  const resumed = await peer.next("resumed");
  return { peer, resumed };
}

const publish = (set, unset = []) => server.request("POST", "/v1/config/publish", { ...CHANNEL, changes: { set, unset } });

test("2: an auth frame opens the stream, and hello follows it", async () => {
  const peer = await new Peer({}).open();
  peer.send({ type: "auth", token: "demo-key" });
  // Subscribing without waiting for hello is allowed.
  peer.send({ type: "subscribe", sub: 1, ...CHANNEL });
  assert.equal((await peer.next("hello")).heartbeatSeconds, 1);
  await peer.next("snapshot");
  peer.socket.close();
});

test("2: an unknown key is 401 before the upgrade, and 4500 after it", async () => {
  const early = new Peer({ Authorization: "Bearer nobody" });
  await until("the upgrade is refused", () => early.error);
  assert.match(early.error.message, /401/);
  const late = await new Peer({}).open();
  late.send({ type: "auth", token: "nobody" });
  assert.equal((await late.next("error")).code, "auth.unauthorized");
  assert.equal(await late.ends(), 4500);
});

test("2: without a key in time the connection ends with 4004", async () => {
  const peer = await new Peer({}).open();
  assert.equal((await peer.next("error")).code, "handshake.timeout");
  assert.equal(await peer.ends(), 4004);
});

test("2: another tenant's key sees its own channel and never this one", async () => {
  await publish({ "test/of-demo": "only" });
  const peer = await new Peer({ Authorization: "Bearer demo2-key" }).open();
  peer.send({ type: "subscribe", sub: 1, ...CHANNEL });
  assert.ok(!("test/of-demo" in (await peer.next("snapshot")).items));
  const refused = await fetch(`${server.url}/v1/config?${QUERY}`, { headers: { ...BEARER, "X-Tenant-Id": "demo2" } });
  assert.equal(refused.status, 403);
  peer.socket.close();
});

test("4: a ping is answered with a bookmark for each subscription, and heartbeats come by themselves", async () => {
  const { peer, resumed } = await subscribed();
  peer.send({ type: "subscribe", sub: 2, ...CHANNEL, app: "ios" });
  await peer.next("snapshot", ({ sub }) => sub === 2);
  peer.send({ type: "ping" });
  const one = await peer.next("bookmark", ({ sub }) => sub === 1);
  assert.deepEqual([one.revision, one.head], [resumed.revision, resumed.revision]);
  for (let beat = 0; beat < 2; beat += 1) await peer.next("bookmark", ({ sub }) => sub === 1);
  peer.socket.close();
});

test("5: a hint names the entity tag that a read answers with", async () => {
  const { peer } = await subscribed({ mode: "hint" });
  await peer.next("hint");
  const { revision } = await publish({ "test/hint": Date.now() });
  const hint = await peer.next("hint", (frame) => frame.revision >= revision);
  const read = await fetch(`${server.url}/v1/config?${QUERY}`, { headers: BEARER });
  assert.equal(read.headers.get("etag"), hint.etag);
  peer.socket.close();
});

test("6: the cursor decides what follows", async () => {
  const { peer, resumed } = await subscribed();
  peer.socket.close();
  assert.deepEqual([resumed.mode, resumed.why], ["snapshot", "no_cursor"]);
  const { epoch, revision } = resumed;
  const ask = async (cursor) => {
    const again = await subscribed({ cursor });
    again.peer.socket.close();
    return [again.resumed.mode, again.resumed.why];
  };
  assert.deepEqual(await ask({ epoch, revision }), ["unchanged", "current"]);
  assert.deepEqual(await ask({ epoch: epoch + 1, revision }), ["snapshot", "other_epoch"]);
  await publish({ "test/behind": Date.now() });
  assert.deepEqual(await ask({ epoch, revision }), ["delta", "behind"]);
  const ahead = await new Peer().open();
  ahead.send({ type: "subscribe", sub: 1, ...CHANNEL, cursor: { epoch, revision: revision + 1000 } });
  assert.equal((await ahead.next("error")).code, "cursor.future");
  ahead.send({ type: "subscribe", sub: 1, ...CHANNEL });
  await ahead.next("snapshot");
  ahead.socket.close();
});

test("7: a value too large for one chunk comes in several, each in order, with one hash", async () => {
  const head = await publish({ "test/large/1": "x".repeat(50_000), "test/large/2": "y".repeat(50_000), "test/large/3": "z".repeat(50_000) });
  const peer = await new Peer().open();
  peer.send({ type: "subscribe", sub: 1, ...CHANNEL });
  const chunks = [await peer.next("snapshot")];
  while (chunks.at(-1).chunk < chunks.at(-1).chunks) chunks.push(await peer.next("snapshot"));
  assert.ok(chunks.length > 1);
  assert.deepEqual(chunks.map(({ chunk }) => chunk), chunks.map((_, index) => index + 1));
  const items = chunks.flatMap((chunk) => Object.entries(chunk.items));
  assert.equal(channelHash(new Map(items)), head.hash);
  peer.socket.close();
  await publish({}, ["test/large/1", "test/large/2", "test/large/3"]);
});

test("10 and 11: what is not a frame ends the connection with its code", async () => {
  for (const [sent, code, close] of [
    ["[", "frame.malformed", 4503],
    ['{"type":"dance"}', "frame.unknown_type", 4503],
    [{ type: "subscribe", sub: -1, ...CHANNEL }, "frame.malformed", 4503],
    ["x".repeat(70_000), "frame.too_large", 4502],
  ]) {
    const peer = await new Peer().open();
    peer.send(sent);
    assert.equal((await peer.next("error")).code, code);
    assert.equal(await peer.ends(), close, code);
  }
  const binary = await new Peer().open();
  binary.socket.send(Buffer.from("{}"), { binary: true });
  assert.equal((await binary.next("error")).code, "frame.protocol");
  assert.equal(await binary.ends(), 4501);
});

test("11: what is refused about one subscription leaves the others alone", async () => {
  const { peer } = await subscribed();
  for (const [frame, code] of [
    [{ type: "subscribe", sub: 1, ...CHANNEL }, "subscription.duplicate"],
    [{ type: "subscribe", sub: 2, ...CHANNEL, app: "no-such-app" }, "channel.unknown"],
    [{ type: "unsubscribe", sub: 3 }, "subscription.unknown"],
    [{ type: "ack", sub: 3, revision: 1, outcome: "applied" }, "subscription.unknown"],
  ]) {
    peer.send(frame);
    const error = await peer.next("error");
    assert.deepEqual([error.code, error.sub], [code, frame.sub]);
  }
  const { revision } = await publish({ "test/still": Date.now() });
  assert.equal((await peer.next("delta")).to, revision);
  peer.socket.close();
});

test("13: a filtered view has its keys alone, no hash, and a cursor that bookmarks move", async () => {
  await publish({ "filter/in": 1, "filtered/out": 1 });
  const { peer } = await subscribed({ keys: ["filter/*"] });
  const snapshot = await peer.next("snapshot");
  assert.deepEqual([snapshot.items, snapshot.filtered, snapshot.hash, snapshot.sig], [{ "filter/in": 1 }, true, undefined, undefined]);
  const unseen = await publish({ "filtered/out": Date.now() });
  const bookmark = await peer.next("bookmark", ({ revision }) => revision >= unseen.revision);
  const seen = await publish({ "filter/in": 2, "filtered/out": 2 });
  const delta = await peer.next("delta");
  assert.deepEqual([delta.from, delta.to, delta.set, delta.filtered], [bookmark.revision, seen.revision, { "filter/in": 2 }, true]);
  peer.socket.close();
  const wide = await new Peer().open();
  wide.send({ type: "subscribe", sub: 1, ...CHANNEL, keys: Array.from({ length: 65 }, (_, index) => `k${index}`) });
  const refused = await wide.next("error");
  assert.deepEqual([refused.code, refused.sub], ["subscription.filter", 1]);
  wide.send({ type: "subscribe", sub: 1, ...CHANNEL, keys: ["filter/*"] });
  assert.equal((await wide.next("resumed")).sub, 1);
  wide.socket.close();
  const asked = await fetch(`${server.url}/v1/config?${QUERY}&keys=a*b`, { headers: BEARER });
  assert.deepEqual([asked.status, (await asked.json()).reasonCodes], [400, ["subscription.filter"]]);
});

test("14: a stream of events is refused before it begins", async () => {
  const get = (query, headers = BEARER) => fetch(`${server.url}/v1/stream/changes?${query}`, { headers });
  for (const [response, status, reason] of [
    [await get(QUERY, {}), 401, "auth.unauthorized"],
    [await get("env=prod&set=storefront&app=nobody"), 404, "channel.unknown"],
    [await get(QUERY, { ...BEARER, "Last-Event-ID": "yesterday" }), 400, "request.malformed"],
  ]) {
    assert.equal(response.status, status);
    assert.equal(response.headers.get("content-type"), "application/problem+json");
    assert.deepEqual((await response.json()).reasonCodes, [reason]);
  }
});

test("15: a read that waits is answered by the change, or by 304 when there was none", async () => {
  const url = `${server.url}/v1/config?${QUERY}`;
  const first = await fetch(url, { headers: BEARER });
  const etag = first.headers.get("etag");
  const body = await first.json();
  assert.equal(channelHash(new Map(Object.entries(body.items))), body.hash);
  assert.equal(etag, `"${body.epoch}-${body.revision}"`);
  const conditional = { ...BEARER, "If-None-Match": etag };
  assert.equal((await fetch(url, { headers: conditional })).status, 304);
  assert.equal((await fetch(`${url}&wait=100ms`, { headers: conditional })).status, 304);
  const waiting = fetch(`${url}&wait=30s`, { headers: conditional });
  const head = await publish({ "test/poll": Date.now() });
  const answer = await waiting;
  assert.equal(answer.status, 200);
  assert.equal((await answer.json()).revision, head.revision);
});

test("17: a field that the server does not know is passed over", async () => {
  const { peer } = await subscribed({ colour: "blue" });
  await peer.next("snapshot");
  peer.socket.close();
});
