// What a client holds: the map, the cursor, and the rules of docs/protocol.md for both.

import { channelHash } from "./canonical.mjs";

export class State {
  map = new Map();
  epoch = null;
  revision = null;
  #chunks = null;

  get cursor() {
    return this.revision === null ? undefined : { epoch: this.epoch, revision: this.revision };
  }

  /**
   * Applies a snapshot or a delta. Answers what to report: `null` for an incomplete snapshot, else
   * `{revision, hash, computed, isRight}`. Throws if the frame breaks the protocol.
   */
  apply(frame) {
    return frame.type === "snapshot" ? this.#snapshot(frame) : this.#delta(frame);
  }

  #snapshot({ epoch, revision, chunk, chunks, items, hash, sig }) {
    if (chunk === 1) this.#chunks = new Map();
    for (const [key, value] of Object.entries(items)) this.#chunks.set(key, value);
    if (chunk < chunks) return null;
    this.map = this.#chunks;
    this.#chunks = null;
    return this.#moved(epoch, revision, hash, sig);
  }

  #delta({ from, to, set, del, hash, sig }) {
    if (from !== this.revision) throw new Error(`a delta from ${from} to a client at ${this.revision}`);
    for (const key of del) this.map.delete(key);
    for (const [key, value] of Object.entries(set)) this.map.set(key, value);
    return this.#moved(this.epoch, to, hash, sig);
  }

  #moved(epoch, revision, hash, sig) {
    if (epoch === this.epoch && revision < this.revision) throw new Error(`from ${this.revision} back to ${revision}`);
    this.epoch = epoch;
    this.revision = revision;
    const computed = channelHash(this.map);
    return { epoch, revision, hash, computed, isRight: computed === hash, sig };
  }
}
