// The canonical hash and the signature of docs/protocol.md, section 12, written from that page
// alone and sharing nothing with the server or its page.

import { createHash, createPublicKey, verify } from "node:crypto";

const sha256 = (bytes) => createHash("sha256").update(bytes).digest();

/** RFC 8785. */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    // The default order of `sort` is that of UTF-16 code units, which is the one wanted.
    return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

export function valueHash(value) {
  return sha256(canonical(value));
}

/** The hash of a `Map` of keys to parsed values. */
export function channelHash(map) {
  const hasher = createHash("sha256");
  const keys = [...map.keys()].map((key) => [Buffer.from(key), key]).sort(([a], [b]) => Buffer.compare(a, b));
  for (const [bytes, key] of keys) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hasher.update(length).update(bytes).update(valueHash(map.get(key)));
  }
  return `sha256:${hasher.digest("hex")}`;
}

/** The payload that is signed. */
export function payload({ tenant, environment, set, app, epoch, revision, hash }) {
  return JSON.stringify({ tenant, environment, set, app, epoch, revision, hash });
}

/** Whether one of the keys signed these claims. */
export function isSigned(signature, claims, keys) {
  const [, header, bytes] = /^sig:v1:([\w-]+)\.\.([\w-]+)$/.exec(signature);
  const { alg, kid } = JSON.parse(Buffer.from(header, "base64url"));
  const jwk = keys.find((key) => key.kid === kid);
  if (alg !== "EdDSA" || !jwk) return false;
  const input = `${header}.${Buffer.from(payload(claims)).toString("base64url")}`;
  const key = createPublicKey({ key: { kty: jwk.kty, crv: jwk.crv, x: jwk.x }, format: "jwk" });
  return verify(null, Buffer.from(input), key, Buffer.from(bytes, "base64url"));
}
