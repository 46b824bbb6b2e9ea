// The three third-party clients as the test sees them: a list of events each, and orders to leave
// and to come back.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { State } from "./state.mjs";
import { until } from "./server.mjs";

const HERE = import.meta.dirname;
export const PYTHON = process.env.FRESHET_TEST_PYTHON ?? join(HERE, "../../.cache/venv/bin/python");
// How long curl waits before it comes back when the server named no time, in milliseconds.
// Arbitrary: well below the test's patience.
const CURL_RETRY_MS = 200;

/** What all three have in common. */
class Client {
  events = [];
  errors = "";

  constructor(name) {
    this.name = name;
  }

  #describe(what) {
    const tail = this.events.slice(-6).map((event) => JSON.stringify(event)).join("\n  ");
    return `${this.name}: ${what}; its last events:\n  ${tail}\n${this.errors}`;
  }

  /** The newest applied state, once it is at `revision` or beyond. */
  async reaches(revision) {
    return until(() => this.#describe(`reaches revision ${revision}`), () => {
      const applied = this.events.findLast((event) => event.event === "applied");
      return applied?.revision >= revision && applied;
    });
  }

  /** The first event of this name after the first `since` ones. */
  async sees(name, since = 0) {
    return until(() => this.#describe(`sees ${name}`), () => this.events.slice(since).find((event) => event.event === name));
  }

  /** Everything that must never happen. */
  faults() {
    return this.events.filter((event) => event.event === "unexpected" || event.isRight === false)
      .concat(this.errors ? [{ stderr: this.errors }] : []);
  }
}

/** A client that is a process of its own and speaks in lines of JSON. */
class ProcessClient extends Client {
  #child;

  constructor(name, command, args) {
    super(name);
    this.#child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] });
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.events.push(JSON.parse(line)));
    this.#child.stderr.on("data", (bytes) => (this.errors += bytes));
    this.#child.stdin.on("error", () => {});
  }

  leave() {
    this.#child.stdin.write("leave\n");
  }

  return() {
    this.#child.stdin.write("return\n");
  }

  stop() {
    return new Promise((ended) => {
      if (this.#child.exitCode !== null) return ended();
      this.#child.once("close", ended);
      this.#child.stdin.end();
    });
  }
}

export function npmWs(url, key) {
  return new ProcessClient("npm ws", process.execPath, [join(HERE, "follow_ws.mjs"), url, key]);
}

export function pythonWebsockets(url, key) {
  return new ProcessClient("python websockets", PYTHON, [join(HERE, "follow_ws.py"), url, key]);
}

/** `curl -N` on server-sent events, started again with `Last-Event-ID` whenever it ends. */
export class CurlSse extends Client {
  #url;
  #key;
  #child = null;
  #state = new State();
  #lastId = null;
  #retryMs = CURL_RETRY_MS;
  #hasLeft = false;
  #timer = null;

  constructor(url, key) {
    super("curl -N");
    this.#url = `${url}/v1/stream/changes?env=prod&set=storefront&app=web`;
    this.#key = key;
    this.#start();
  }

  get lastId() {
    return this.#lastId;
  }

  #start() {
    const args = ["-sSN", "--fail", "-H", `Authorization: Bearer ${this.#key}`, "-H", "Accept: text/event-stream"];
    if (this.#lastId) args.push("-H", `Last-Event-ID: ${this.#lastId}`);
    const child = spawn("curl", [...args, this.#url], { stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    let fields = {};
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (line === "") {
        this.#take(fields);
        fields = {};
        return;
      }
      const at = line.indexOf(":");
      fields[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, "");
    });
    // curl says on standard error that the connection was refused or cut; that is no fault here.
    child.stderr.resume();
    child.on("close", (code) => {
      this.events.push({ event: "closed", code });
      if (!this.#hasLeft) this.#timer = setTimeout(() => this.#start(), this.#retryMs);
      this.#retryMs = CURL_RETRY_MS;
    });
  }

  #take({ event, id, data, retry }) {
    if (retry) this.events.push({ event: "retry", retry });
    if (data === undefined) return;
    const frame = JSON.parse(data);
    if (frame.type !== event) this.events.push({ event: "unexpected", frame, named: event });
    if (frame.type === "resumed") this.events.push({ event: "resumed", mode: frame.mode, why: frame.why, revision: frame.revision });
    else if (frame.type === "snapshot" || frame.type === "delta") this.#apply(frame);
    else if (frame.type === "goaway") {
      this.#retryMs = frame.reconnectMs;
      this.events.push({ event: "goaway", reconnectMs: frame.reconnectMs });
    } else if (frame.type !== "hello" && frame.type !== "bookmark") this.events.push({ event: "unexpected", frame });
    if (id) this.#lastId = id;
  }

  #apply(frame) {
    try {
      const applied = this.#state.apply(frame);
      if (applied) this.events.push({ event: "applied", kind: frame.type, ...applied });
    } catch (error) {
      this.events.push({ event: "unexpected", frame, error: error.message });
    }
  }

  leave() {
    this.#hasLeft = true;
    clearTimeout(this.#timer);
    this.#child.kill("SIGTERM");
  }

  return() {
    this.#hasLeft = false;
    this.#start();
  }

  async stop() {
    this.leave();
    const { exitCode, signalCode } = this.#child;
    if (exitCode === null && signalCode === null) await new Promise((ended) => this.#child.once("close", ended));
  }
}
