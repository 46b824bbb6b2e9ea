// The canonical form of values, the hash of a channel and the signature over it, as
// docs/protocol.md defines them. Everything here is checked in this browser; no server is asked.

const utf8 = new TextEncoder();

/** The canonical JSON text of a parsed value (RFC 8785): keys sorted by UTF-16 code units. */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const members = Object.keys(value)
      .sort()
      .map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
    return `{${members.join(",")}}`;
  }
  return JSON.stringify(value);
}

/** Why this browser cannot hash, or null. SubtleCrypto exists only on https and on loopback. */
export function hashUnsupported() {
  return globalThis.crypto?.subtle ? null : "needs https or a loopback address";
}

async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/**
 * One value with what is computed from it once: its canonical text, and the SHA-256 of that when
 * it is first asked for. A large value is so hashed only when it changes.
 */
export class Entry {
  constructor(key, value) {
    this.key = key;
    this.keyBytes = utf8.encode(key);
    this.value = value;
    this.text = canonical(value);
    this.digest = null;
  }

  valueHash() {
    this.digest ??= sha256(utf8.encode(this.text));
    return this.digest;
  }
}

function byBytes(a, b) {
  const length = Math.min(a.keyBytes.length, b.keyBytes.length);
  for (let at = 0; at < length; at += 1) {
    const difference = a.keyBytes[at] - b.keyBytes[at];
    if (difference !== 0) return difference;
  }
  return a.keyBytes.length - b.keyBytes.length;
}

/** `sha256:…` over entries in any order: sorted by the bytes of their keys first. */
export async function channelHash(entries) {
  const sorted = [...entries].sort(byBytes);
  const values = await Promise.all(sorted.map((entry) => entry.valueHash()));
  const bytes = new Uint8Array(sorted.reduce((sum, entry) => sum + 4 + entry.keyBytes.length + 32, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  sorted.forEach((entry, index) => {
    view.setUint32(at, entry.keyBytes.length);
    bytes.set(entry.keyBytes, at + 4);
    bytes.set(values[index], at + 4 + entry.keyBytes.length);
    at += 4 + entry.keyBytes.length + 32;
  });
  const digest = await sha256(bytes);
  return `sha256:${[...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

function base64url(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function unbase64url(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

/** The bytes the control plane signed: fields in this order, no white space. */
export function claims({ tenant, environment, set, app, epoch, revision, hash }) {
  return JSON.stringify({ tenant, environment, set, app, epoch, revision, hash });
}

/** Verifies signatures with the keys of a JWKS document; imports each key once. */
export class Verifier {
  #keys = new Map();

  constructor(jwks) {
    for (const jwk of jwks.keys ?? []) {
      if (jwk.kty === "OKP" && jwk.crv === "Ed25519" && jwk.kid) this.#keys.set(jwk.kid, { jwk, key: null });
    }
  }

  /** `{outcome: "valid" | "invalid" | "unsupported", detail}`. */
  async verify(signature, facts) {
    const parts = /^sig:v1:([\w-]+)\.\.([\w-]+)$/.exec(signature);
    if (!parts) return { outcome: "invalid", detail: "not of the form sig:v1:header..signature" };
    const header = JSON.parse(new TextDecoder().decode(unbase64url(parts[1])));
    const known = this.#keys.get(header.kid);
    if (header.alg !== "EdDSA" || !known) return { outcome: "invalid", detail: `signed with the unknown key ${header.kid}` };
    try {
      const { kty, crv, x } = known.jwk;
      known.key ??= await crypto.subtle.importKey("jwk", { kty, crv, x }, { name: "Ed25519" }, false, ["verify"]);
    } catch {
      return { outcome: "unsupported", detail: "not supported by this browser" };
    }
    const input = utf8.encode(`${parts[1]}.${base64url(utf8.encode(claims(facts)))}`);
    const valid = await crypto.subtle.verify({ name: "Ed25519" }, known.key, unbase64url(parts[2]), input);
    return valid
      ? { outcome: "valid", detail: `Ed25519, key ${header.kid}` }
      : { outcome: "invalid", detail: "the signature is not over what was received" };
  }
}
