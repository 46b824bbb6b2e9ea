// One subscription on the stream protocol `ecs.refresh.v1` (docs/protocol.md), over a WebSocket.
// It keeps the map and the cursor across connections, so a return is `unchanged` or a `delta`.

import { Entry, channelHash, hashUnsupported } from "./integrity.js";

const SUBPROTOCOL = "ecs.refresh.v1";
// The wait before the first return and the longest one, in milliseconds. Arbitrary: shorter than
// a person notices, and no longer than a person waits.
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 15_000;
// Silence for more than two heartbeats and this grace, in milliseconds, is a dead peer.
const SILENCE_GRACE_MS = 5_000;
// Close codes from here on say "do not come back unchanged".
const CLOSE_FATAL_FROM = 4500;

/**
 * Follows one channel. Emits through `on(name, detail)`:
 *
 * - `state` `{state, detail, retryAt}`: connecting, live, waiting, stopped
 * - `resumed` the frame, and `snapshot` or `delta` once it is applied:
 *   `{revision, changes: [{key, was, is}], issuedAt, appliedAt, appliedWall}`, a delta also with
 *   `from` and whether it `isCatchUp`, for what was missed while away
 * - `bookmark` `{revision, head}`
 * - `integrity` `{revision, outcome, detail, hash}` for the newest revision that was checked
 * - `refused` an `error` frame
 */
export class Follower {
  #channel;
  #token;
  #on;
  #socket = null;
  #sub = 0;
  #timer = 0;
  #watchdog = 0;
  #attempt = 0;
  #heartbeatMs = 25_000;
  #goawayMs = null;
  #chunks = null;
  #checking = false;
  #stopped = false;
  #lastError = null;
  #mismatches = 0;
  #isCatchingUp = false;

  entries = new Map();
  cursor = null;
  head = null;
  signed = null;

  constructor(channel, token, on) {
    this.#channel = channel;
    this.#token = token;
    this.#on = on;
  }

  /** Opens the connection. Call once. */
  start() {
    this.#open();
  }

  /** Ends it for good. */
  stop() {
    this.#stopped = true;
    this.#drop();
  }

  /** Drops the connection and returns at once with the cursor; also skips a wait. */
  reconnectNow() {
    if (this.#stopped) return;
    this.#drop();
    this.#attempt = 0;
    this.#open();
  }

  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    this.#socket = null;
    this.#chunks = null;
    if (socket) socket.close(1000);
  }

  #open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/v1/stream`, SUBPROTOCOL);
    this.#socket = socket;
    this.#goawayMs = null;
    this.#lastError = null;
    this.#on("state", { state: "connecting" });
    this.#awaitTraffic();
    socket.addEventListener("open", () => this.#send({ type: "auth", token: this.#token }));
    socket.addEventListener("message", (event) => {
      if (this.#socket === socket) this.#handle(event.data);
    });
    socket.addEventListener("close", (event) => {
      if (this.#socket === socket) this.#closed(event);
    });
  }

  #send(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #awaitTraffic() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      this.#drop();
      this.#wait("nothing was heard for two heartbeats");
    }, 2 * this.#heartbeatMs + SILENCE_GRACE_MS);
  }

  #closed(event) {
    clearTimeout(this.#watchdog);
    this.#socket = null;
    this.#chunks = null;
    const said = this.#lastError ? `${this.#lastError.code}: ${this.#lastError.message}` : event.reason;
    if (event.code >= CLOSE_FATAL_FROM && event.code < 5000) {
      this.#stopped = true;
      this.#on("state", { state: "stopped", code: event.code, detail: said || `closed with ${event.code}` });
      return;
    }
    this.#wait(said || (event.code === 1006 ? "the connection was lost" : `closed with ${event.code}`));
  }

  #wait(detail) {
    if (this.#stopped) return;
    // Full jitter: many clients that lost one node must not return in one instant.
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.#attempt);
    const delay = this.#goawayMs ?? Math.max(this.#lastError?.retryAfterMs ?? 0, Math.random() * ceiling);
    this.#goawayMs = null;
    this.#attempt += 1;
    this.#on("state", { state: "waiting", detail, retryAt: Date.now() + delay });
    this.#timer = setTimeout(() => this.#open(), delay);
  }

  #subscribe() {
    this.#sub += 1;
    this.#chunks = null;
    const frame = { type: "subscribe", sub: this.#sub, ...this.#channel };
    if (this.cursor) frame.cursor = this.cursor;
    this.#send(frame);
  }

  #startOver(why) {
    this.#send({ type: "unsubscribe", sub: this.#sub });
    this.cursor = null;
    this.#on("refused", { code: "client.resubscribe", message: `${why}; asking for a snapshot` });
    this.#subscribe();
  }

  #handle(text) {
    this.#awaitTraffic();
    const frame = JSON.parse(text);
    if (frame.sub !== undefined && frame.sub !== this.#sub) return;
    switch (frame.type) {
      case "hello":
        this.#heartbeatMs = frame.heartbeatSeconds * 1000;
        this.#subscribe();
        break;
      case "resumed":
        this.#attempt = 0;
        this.#isCatchingUp = frame.mode === "delta";
        this.#on("state", { state: "live" });
        this.#on("resumed", frame);
        if (frame.mode === "unchanged") this.#moved(frame.revision);
        break;
      case "snapshot":
        this.#snapshot(frame);
        break;
      case "delta":
        this.#delta(frame);
        break;
      case "bookmark":
        // Where the node says this client stands; a filtered view moves without a delta.
        if (this.cursor) this.cursor = { epoch: this.cursor.epoch, revision: frame.revision };
        this.#on("bookmark", frame);
        break;
      case "reauth":
        this.#send({ type: "auth", token: this.#token });
        break;
      case "goaway":
        this.#goawayMs = frame.reconnectMs;
        this.#drop();
        this.#wait("the node is draining");
        break;
      case "error":
        this.#refused(frame);
        break;
      default:
        this.#on("refused", { code: "client.unknown_type", message: `the server sent the unknown type ${frame.type}` });
        this.#drop();
        this.#wait("an unknown frame type");
    }
  }

  #refused(frame) {
    this.#lastError = frame;
    this.#on("refused", frame);
    if (frame.sub === undefined) return;
    if (frame.code === "cursor.future") {
      this.#startOver("the cursor is ahead of this server");
    } else if (frame.code === "channel.unavailable" || frame.code === "limit.exceeded") {
      this.#drop();
      this.#wait(frame.message);
    } else {
      this.#stopped = true;
      this.#drop();
      this.#on("state", { state: "stopped", code: frame.code, detail: frame.message });
    }
  }

  #snapshot(frame) {
    if (frame.chunk === 1) this.#chunks = new Map();
    if (!this.#chunks) return;
    for (const [key, value] of Object.entries(frame.items)) this.#chunks.set(key, value);
    if (frame.chunk < frame.chunks) return;
    const before = this.entries;
    this.entries = new Map();
    const changes = [];
    for (const [key, value] of this.#chunks) {
      const entry = new Entry(key, value);
      const was = before.get(key);
      this.entries.set(key, was?.text === entry.text ? was : entry);
      if (was?.text !== entry.text) changes.push({ key, was, is: entry });
    }
    for (const [key, was] of before) if (!this.entries.has(key)) changes.push({ key, was });
    this.#chunks = null;
    this.cursor = { epoch: frame.epoch, revision: frame.revision };
    this.#applied("snapshot", frame, frame.revision, { changes, version: frame.version });
  }

  #delta(frame) {
    if (frame.from !== this.cursor?.revision) {
      this.#startOver(`a delta from ${frame.from} does not follow ${this.cursor?.revision ?? "nothing"}`);
      return;
    }
    const changes = [];
    for (const key of frame.del) {
      const was = this.entries.get(key);
      if (this.entries.delete(key)) changes.push({ key, was });
    }
    for (const [key, value] of Object.entries(frame.set)) {
      const entry = new Entry(key, value);
      changes.push({ key, was: this.entries.get(key), is: entry });
      this.entries.set(key, entry);
    }
    this.cursor = { epoch: this.cursor.epoch, revision: frame.to };
    const isCatchUp = this.#isCatchingUp;
    this.#isCatchingUp = false;
    this.#applied("delta", frame, frame.to, { from: frame.from, changes, isCatchUp });
  }

  #applied(kind, frame, revision, detail) {
    this.signed = { revision, hash: frame.hash ?? null, signature: frame.sig ?? null };
    this.#moved(revision);
    this.#on(kind, {
      revision,
      issuedAt: Date.parse(frame.issuedAt),
      appliedAt: performance.now(),
      appliedWall: Date.now(),
      ...detail,
    });
  }

  #moved(revision) {
    this.head = revision;
    this.#check();
  }

  /** Hashes the whole map; while one check runs, only the newest state waits for the next. */
  async #check() {
    if (this.#checking || this.#stopped || !this.signed) return;
    this.#checking = true;
    let checked = null;
    while (checked !== this.signed && !this.#stopped) {
      checked = this.signed;
      await this.#checkOne(checked, this.cursor, [...this.entries.values()]);
    }
    this.#checking = false;
  }

  async #checkOne({ revision, hash, signature }, cursor, entries) {
    const unsupported = hashUnsupported();
    if (unsupported) {
      this.#on("integrity", { revision, outcome: "unsupported", detail: unsupported });
      this.#ack(revision, "applied");
      return;
    }
    const computed = await channelHash(entries);
    if (this.#stopped) return;
    if (hash && computed !== hash) {
      this.#on("integrity", { revision, outcome: "mismatch", hash, detail: `computed ${computed}` });
      this.#ack(revision, "rejected", "hash");
      this.#mismatched();
      return;
    }
    this.#mismatches = 0;
    const facts = { ...this.#channel, epoch: cursor.epoch, revision, hash: computed };
    this.#on("integrity", { revision, outcome: hash ? "verified" : "unsigned", hash: computed, signature, facts, keys: entries.length });
    this.#ack(revision, "applied");
  }

  /** A first mismatch is answered with a fresh snapshot; a second in a row is not for a client to mend. */
  #mismatched() {
    this.#mismatches += 1;
    if (this.#mismatches === 1) {
      this.#startOver("the hash does not match");
      return;
    }
    this.stop();
    this.#on("state", { state: "stopped", code: "hash", detail: "a fresh snapshot does not match its hash either" });
  }

  #ack(revision, outcome, reason) {
    this.#send({ type: "ack", sub: this.#sub, revision, outcome, ...(reason && { reason }) });
  }
}
