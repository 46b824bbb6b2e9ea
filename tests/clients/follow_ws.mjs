// A client with npm's `ws`: follows one channel, comes back by itself, and reports each step as a
// line of JSON. `leave` and `return` on standard input make it close and come back.

import { createInterface } from "node:readline";
import WebSocket from "ws";
import { State } from "./state.mjs";

const [, , url, key] = process.argv;
const CHANNEL = { environment: "prod", set: "storefront", app: "web" };
const RETRY_MS_MAX = 500;

const state = new State();
let socket = null;
let hasLeft = false;
let reconnectMs = null;

const report = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

function connect() {
  // The key goes in the query here; the Python client sends a header, the page an auth frame.
  socket = new WebSocket(`${url.replace("http", "ws")}/v1/stream?access_token=${encodeURIComponent(key)}`, "ecs.refresh.v1");
  socket.on("open", () => {
    report({ event: "open", protocol: socket.protocol });
    socket.send(JSON.stringify({ type: "subscribe", sub: 7, ...CHANNEL, cursor: state.cursor }));
  });
  socket.on("message", (data) => handle(JSON.parse(data)));
  socket.on("error", () => {});
  socket.on("close", (code) => {
    report({ event: "closed", code });
    if (hasLeft) return;
    const wait = reconnectMs ?? Math.random() * RETRY_MS_MAX;
    reconnectMs = null;
    setTimeout(connect, wait);
  });
}

const shapes = new Set();

/** Reports the fields of a frame once for each set of them. */
function reportShape(frame) {
  const shape = `${frame.type}: ${Object.keys(frame).join(" ")}`;
  if (shapes.has(shape)) return;
  shapes.add(shape);
  report({ event: "shape", type: frame.type, fields: Object.keys(frame) });
}

function handle(frame) {
  reportShape(frame);
  switch (frame.type) {
    case "hello":
    case "bookmark":
      break;
    case "resumed":
      report({ event: "resumed", mode: frame.mode, why: frame.why, revision: frame.revision });
      break;
    case "snapshot":
    case "delta": {
      const applied = state.apply(frame);
      if (!applied) break;
      report({ event: "applied", kind: frame.type, ...applied });
      socket.send(JSON.stringify({ type: "ack", sub: 7, revision: applied.revision, outcome: applied.isRight ? "applied" : "rejected" }));
      break;
    }
    case "goaway":
      reconnectMs = frame.reconnectMs;
      report({ event: "goaway", reconnectMs });
      break;
    default:
      report({ event: "unexpected", frame });
  }
}

createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "leave") {
    hasLeft = true;
    socket.close(1000);
  } else if (line === "return") {
    hasLeft = false;
    connect();
  }
}).on("close", () => process.exit(0));

connect();
