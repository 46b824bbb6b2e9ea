// One channel on the screen: the stream into the table and the tiles, edits out of them.

import { idempotencyKey } from "./api.js";
import { byId, icon, h, ago, count, duration, setText } from "./dom.js";
import { latencyBars } from "./charts.js";
import { Verifier } from "./integrity.js";
import { Convergence, Log, confirmed, drawVersions, showProblem, tickVersions } from "./panels.js";
import { Follower } from "./stream.js";
import { KeyTable } from "./table.js";

// Bars of the latency chart, and so how many latencies are kept.
const LATENCIES_MAX = 40;
// How often words such as "12 s ago" are renewed, in milliseconds.
const TICK_MS = 1_000;
// How long after a change the list of versions is asked for, in milliseconds. Arbitrary: a person
// does not notice, and a hundred changes a second cost four requests.
const VERSIONS_PAUSE_MS = 250;

const STATES = {
  connecting: "Connecting",
  live: "Live",
  waiting: "Reconnecting",
  stopped: "Stopped",
};

// The table and its listeners live as long as the page; each channel takes them over.
let current = null;
const table = new KeyTable((staged) => current?.showStaged(staged));
const convergence = new Convergence();
const log = new Log();

byId("publish").addEventListener("click", () => current?.publish());
byId("discard").addEventListener("click", () => table.unstage());

export class ChannelView {
  #api;
  #follower;
  #onRejectedKey;
  #latencies = [];
  #pending = new Map();
  #applied = new Map();
  #versions = [];
  #versionsTimer = null;
  #tickTimer = 0;
  #verifier = null;
  #tenant = null;
  #head = null;
  #retryAt = null;
  #stopped = false;
  #hasFailed = { signing: false, versions: false };

  constructor(api, channel, { onRejectedKey }) {
    this.#api = api;
    this.channel = channel;
    this.#onRejectedKey = onRejectedKey;
    this.#follower = new Follower(channel, api.token, (name, detail) => this.#handle(name, detail));
  }

  get stagedCount() {
    return table.staged.size;
  }

  start() {
    current = this;
    table.reset();
    log.clear();
    this.#blank();
    this.#tickTimer = setInterval(() => this.#tick(), TICK_MS);
    this.#follower.start();
    convergence.start(() => this.#api.convergence(this.channel));
    this.#loadVersions();
    this.#loadSigning();
  }

  stop() {
    this.#stopped = true;
    this.#follower.stop();
    convergence.stop();
    clearTimeout(this.#versionsTimer);
    clearInterval(this.#tickTimer);
    if (current === this) current = null;
  }

  reconnect() {
    this.#follower.reconnectNow();
  }

  #blank() {
    setText(byId("tenant"), "");
    setText(byId("head-revision"), "–");
    setText(byId("head-detail"), "waiting for the stream");
    setText(byId("latency"), "–");
    setText(byId("latency-detail"), "no change seen yet");
    setText(byId("integrity-hash"), "");
    setText(byId("signature"), "");
    setText(byId("at-head"), "–");
    setText(byId("at-head-detail"), "asking the node");
    setText(byId("cursor"), "");
    this.#integrity("none", "not checked yet");
    latencyBars(byId("latency-chart"), [], LATENCIES_MAX);
    for (const id of ["versions-error", "publish-error", "notice"]) showProblem(byId(id), null);
  }

  /** The stream is there again, so what could not be loaded without the server can be now. */
  #retryLoads() {
    if (!this.#verifier && this.#hasFailed.signing) this.#loadSigning();
    if (this.#hasFailed.versions) this.#loadVersions();
  }

  async #loadSigning() {
    try {
      const [config, keys] = await Promise.all([this.#api.config(this.channel), this.#api.signingKeys()]);
      if (this.#stopped) return;
      this.#tenant = config.tenantId;
      this.#verifier = new Verifier(keys);
      setText(byId("tenant"), config.tenantId);
      if (this.#head?.facts) this.#verifySignature(this.#head);
    } catch (problem) {
      this.#hasFailed.signing = true;
      if (!this.#stopped) setText(byId("signature"), `signature not checked: ${problem.detail ?? problem.message}`);
    }
  }

  #handle(name, detail) {
    if (this.#stopped) return;
    switch (name) {
      case "state":
        this.#state(detail);
        break;
      case "resumed":
        byId("connection").dataset.mode = detail.mode;
        this.#retryLoads();
        log.add(detail.mode, `resumed at ${detail.revision}: ${detail.why.replaceAll("_", " ")}`);
        break;
      case "snapshot":
        log.add("snapshot", `revision ${detail.revision}, ${count(this.#follower.entries.size, "key")}`);
        this.#took(detail, false);
        break;
      case "delta":
        log.add("delta", `${detail.from} → ${detail.revision}, ${count(detail.changes.length, "key")}`);
        this.#took(detail, true);
        break;
      case "bookmark":
        log.add("bookmark", detail.revision === detail.head ? `at the head, ${detail.head}` : `at ${detail.revision}, the head is ${detail.head}`);
        break;
      case "integrity":
        this.#checked(detail);
        break;
      case "refused":
        log.add("error", `${detail.code}: ${detail.message}`);
        break;
    }
  }

  #state({ state, detail, retryAt, code }) {
    byId("connection").dataset.state = state;
    this.#retryAt = retryAt ?? null;
    setText(byId("connection-text"), STATES[state]);
    byId("connection").title = detail ?? "";
    if (detail) log.add(state, detail);
    if (state === "stopped" && code === 4500) this.#onRejectedKey(detail);
    else if (state === "stopped") {
      showProblem(byId("notice"), { title: "The stream ended for good", detail: `${detail}. Reload the page to try again.`, reasonCodes: [String(code)] });
    }
  }

  #took(detail, isLive) {
    const { revision, changes, issuedAt, appliedAt, appliedWall } = detail;
    this.#head = { revision };
    setText(byId("head-revision"), String(revision));
    this.#headDetail = { issuedAt, version: detail.version };
    setText(byId("cursor"), `cursor ${this.#follower.cursor.epoch}-${revision}`);
    table.update(this.#follower.entries, changes, { revision, at: appliedWall, flash: isLive });
    this.#applied.set(revision, appliedAt);
    if (this.#applied.size > LATENCIES_MAX) this.#applied.delete(this.#applied.keys().next().value);
    if (isLive) {
      // What was missed while away says nothing about how fast a change travels.
      if (!detail.isCatchUp) this.#measure(revision, issuedAt, appliedAt, appliedWall);
      setText(byId("announce"), `Revision ${revision}: ${count(changes.length, "key")} changed`);
      this.#loadVersionsSoon();
    }
    this.#tick();
  }

  #headDetail = null;

  /**
   * Own publishes are measured with this browser's clock, from the request to the applied change;
   * others from the server's time of commit, so with the difference of both clocks in it.
   */
  #measure(revision, issuedAt, appliedAt, appliedWall) {
    const own = this.#pending.get(revision);
    this.#pending.delete(revision);
    const point = { revision, own: own !== undefined, ms: own === undefined ? Math.max(0, appliedWall - issuedAt) : appliedAt - own };
    this.#latencies = this.#latencies.filter((other) => other.revision !== revision).concat(point).slice(-LATENCIES_MAX);
    const sorted = this.#latencies.map(({ ms }) => ms).sort((a, b) => a - b);
    const median = sorted[Math.floor((sorted.length - 1) / 2)];
    setText(byId("latency"), duration(point.ms));
    byId("latency").dataset.revision = revision;
    setText(byId("latency-detail"), `${point.own ? "request here → applied here" : "commit → applied here"} · median ${duration(median)}`);
    byId("latency-detail").title = point.own
      ? "From this page's request to the change applied in this page, by this browser's clock"
      : "From the server's commit to the change applied in this page, so with the difference of both clocks";
    latencyBars(byId("latency-chart"), this.#latencies, LATENCIES_MAX);
  }

  #integrity(outcome, text) {
    const place = byId("integrity");
    place.dataset.outcome = outcome;
    const glyph = { verified: "check", mismatch: "cross" }[outcome];
    place.replaceChildren(...(glyph ? [icon(glyph)] : []), h("span", { id: "integrity-text" }, text));
  }

  #checked({ revision, outcome, detail, hash, signature, facts, keys }) {
    const text = {
      verified: `revision ${revision} verified`,
      mismatch: "hash does not match",
      unsigned: "no hash was sent",
      unsupported: `not checked: ${detail}`,
    }[outcome];
    this.#integrity(outcome, text);
    byId("integrity").dataset.revision = revision;
    byId("integrity").title = detail ?? `SHA-256 over ${count(keys ?? 0, "key")}, computed in this browser`;
    setText(byId("integrity-hash"), hash ? `${hash.slice(0, 19)}…${hash.slice(-4)}` : "");
    byId("integrity-hash").title = hash ?? "";
    this.#head = { revision, signature, facts };
    if (facts) this.#verifySignature(this.#head);
  }

  async #verifySignature({ revision, signature, facts }) {
    const place = byId("signature");
    if (!signature) return setText(place, "no signature was sent");
    if (!this.#verifier) return;
    let result;
    try {
      result = await this.#verifier.verify(signature, { tenant: this.#tenant, ...facts });
    } catch (error) {
      result = { outcome: "invalid", detail: error.message };
    }
    if (this.#stopped || this.#head.revision !== revision) return;
    place.dataset.outcome = result.outcome;
    const words = { valid: "signature valid", invalid: "signature NOT valid", unsupported: "signature" };
    setText(place, `${words[result.outcome]}: ${result.detail}`);
  }

  /** Several changes in a row lead to one look at the list, and a steady stream of them to a few. */
  #loadVersionsSoon() {
    this.#versionsTimer ??= setTimeout(() => {
      this.#versionsTimer = null;
      this.#loadVersions();
    }, VERSIONS_PAUSE_MS);
  }

  async #loadVersions() {
    try {
      const versions = await this.#api.versions(this.channel);
      if (this.#stopped) return;
      this.#versions = versions;
      this.#hasFailed.versions = false;
      showProblem(byId("versions-error"), null);
      this.#drawVersions();
    } catch (problem) {
      if (this.#stopped) return;
      this.#hasFailed.versions = true;
      byId("versions-empty").hidden = true;
      showProblem(byId("versions-error"), problem);
    }
  }

  #drawVersions() {
    drawVersions(this.#versions, this.#follower.cursor?.revision, (version) => this.#rollback(version));
    const head = this.#versions.find(({ revision }) => revision === this.#follower.cursor?.revision);
    if (head && this.#headDetail) this.#headDetail.version = head.version;
  }

  #tick() {
    table.tick();
    tickVersions();
    if (this.#headDetail) {
      const { version, issuedAt } = this.#headDetail;
      setText(byId("head-detail"), [version, `published ${ago(issuedAt)}`].filter(Boolean).join(" · "));
    }
    if (this.#retryAt) {
      const seconds = Math.max(0, (this.#retryAt - Date.now()) / 1000);
      setText(byId("connection-text"), `Reconnecting in ${seconds.toFixed(0)} s`);
    }
  }

  showStaged(staged) {
    byId("staged").hidden = staged.size === 0;
    setText(byId("staged-count"), `${count(staged.size, "change")} staged`);
    showProblem(byId("publish-error"), null);
  }

  async publish() {
    const staged = new Map(table.staged);
    if (staged.size === 0) return;
    const changes = { set: {}, unset: [] };
    for (const [key, entry] of staged) {
      if (entry === null) changes.unset.push(key);
      else Object.defineProperty(changes.set, key, { value: entry.value, enumerable: true });
    }
    await this.#write(byId("publish"), "Publishing…", byId("publish-error"), async () => {
      const answer = await this.#api.publish(this.channel, changes, idempotencyKey());
      const published = [...staged].filter(([key, entry]) => table.staged.get(key) === entry).map(([key]) => key);
      table.unstage(published);
      return answer;
    });
  }

  async #rollback(version) {
    const yes = await confirmed(`Roll back to revision ${version.revision}?`,
      `Its content becomes a new revision and goes to every subscriber at once. ${version.version} was published ${ago(Date.parse(version.issuedAt))}.`,
      "Roll back");
    if (!yes || this.#stopped) return;
    await this.#write(null, "", byId("versions-error"), () =>
      this.#api.rollback(this.channel, version.revision, idempotencyKey()));
  }

  /** Runs a write: the button waits, the latency starts, a problem is shown where it arose. */
  async #write(button, waitingText, errorPlace, act) {
    const text = button?.textContent;
    if (button) {
      button.disabled = true;
      setText(button, waitingText);
    }
    showProblem(errorPlace, null);
    const sentAt = performance.now();
    try {
      const { revision, changed } = await act();
      if (!changed) {
        log.add("publish", `nothing differs from revision ${revision}; no new one was made`);
        return;
      }
      // The change may have arrived before the answer; then it is measured anew, by one clock.
      const appliedAt = this.#applied.get(revision);
      this.#pending.set(revision, sentAt);
      if (appliedAt !== undefined) this.#measure(revision, 0, appliedAt, 0);
    } catch (problem) {
      showProblem(errorPlace, problem);
    } finally {
      if (button) {
        button.disabled = false;
        setText(button, text);
      }
    }
  }
}
