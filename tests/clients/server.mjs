// Starts and ends one real server for a test, on loopback ports of its own and a folder of its own.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../..");
// How long the server may take to be ready, and to end, in milliseconds. Arbitrary: a debug build
// on a busy machine needs a few seconds.
const READY_MS = 30_000;
const END_MS = 30_000;
const POLL_MS = 50;
// Output that is kept for the report of a failure, in characters.
const OUTPUT_CHARS_MAX = 8_000;

/** The binary under test. */
export function binary() {
  const path = resolve(ROOT, process.env.FRESHET_BIN ?? "target/debug/freshet");
  if (!existsSync(path)) throw new Error(`there is no ${path}; build it first (cargo build) or set FRESHET_BIN`);
  return path;
}

/** Resolves when `probe` answers something true, asked every few milliseconds; else throws. */
export async function until(what, probe, deadlineMs = 20_000) {
  const deadline = Date.now() + deadlineMs;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${typeof what === "function" ? what() : what}`);
    await new Promise((wake) => setTimeout(wake, POLL_MS));
  }
}

/** Two loopback ports that nobody listens on. */
async function freePorts() {
  const held = await Promise.all([0, 1].map(() => new Promise((ready, fail) => {
    const server = createServer();
    server.once("error", fail);
    server.listen(0, "127.0.0.1", () => ready(server));
  })));
  const ports = held.map((server) => server.address().port);
  await Promise.all(held.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}

export class Server {
  #process = null;
  #output = "";
  #ended = null;

  /** A server with a fresh folder, ready. `options` are further arguments of `serve`. */
  static async start(options = []) {
    const server = new Server();
    server.data = mkdtempSync(join(tmpdir(), "freshet-test-"));
    [server.port, server.adminPort] = await freePorts();
    server.options = options;
    try {
      await server.start();
    } catch (error) {
      await server.dispose();
      throw error;
    }
    return server;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  get output() {
    return this.#output;
  }

  /** Starts the process; the same ports and folder each time. */
  async start() {
    const args = ["serve", "--demo", "--data", this.data, "--listen", `127.0.0.1:${this.port}`,
      "--admin-listen", `127.0.0.1:${this.adminPort}`, ...this.options];
    const child = spawn(binary(), args, { stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    this.#ended = new Promise((ended) => child.once("close", (code, signal) => ended({ code, signal })));
    const keep = (bytes) => {
      this.#output = (this.#output + bytes).slice(-OUTPUT_CHARS_MAX);
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    await until(() => `the server is ready; it said:\n${this.#output}`, async () => {
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}:\n${this.#output}`);
      try {
        return (await fetch(`http://127.0.0.1:${this.adminPort}/readyz`)).ok;
      } catch {
        return false;
      }
    }, READY_MS);
  }

  /** Ends the process as an operator does, and waits for it. Answers `{code, signal}`. */
  async terminate() {
    const child = this.#process;
    if (!child) return null;
    this.#process = null;
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), END_MS);
    const ended = await this.#ended;
    clearTimeout(late);
    return ended;
  }

  /** Ends the process and removes its folder. */
  async dispose() {
    await this.terminate();
    rmSync(this.data, { recursive: true, force: true });
  }

  /** A request with a key; answers the JSON and throws on any other status than 2xx. */
  async request(method, path, body, headers = {}, key = "demo-key") {
    const response = await fetch(this.url + path, {
      method,
      headers: { Authorization: `Bearer ${key}`, ...(body && { "Content-Type": "application/json" }), ...headers },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  }
}
