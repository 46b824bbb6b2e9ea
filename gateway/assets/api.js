// The public HTTP API, and its errors as problem documents.

/** An answer that is not a success: a problem document, or as much of one as there was. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? document.title ?? `status ${status}`);
    this.status = status;
    this.title = document.title ?? `The server answered ${status}`;
    this.detail = document.detail ?? null;
    this.violations = document.violations ?? [];
    this.reasonCodes = document.reasonCodes ?? [];
    this.traceId = document.traceId ?? null;
  }
}

// A request that takes longer is given up, in milliseconds. Arbitrary: longer than any publish,
// shorter than a person's patience.
const TIMEOUT_MS = 15_000;
// Versions that are listed. Arbitrary: the panel shows six, and one scrolls a little.
const VERSIONS_MAX = 20;

/** The API as one key sees it. */
export class Api {
  #token;

  constructor(token) {
    this.#token = token;
  }

  get token() {
    return this.#token;
  }

  async #request(method, path, { query = {}, body, headers = {} } = {}) {
    const url = new URL(path, location.origin);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    let response;
    try {
      response = await fetch(url, {
        method,
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
        headers: {
          Authorization: `Bearer ${this.#token}`,
          Accept: "application/json",
          ...(body !== undefined && { "Content-Type": "application/json" }),
          ...headers,
        },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      const detail = error.name === "TimeoutError"
        ? `No answer to ${method} ${url.pathname} within ${TIMEOUT_MS / 1000} seconds. Try again.`
        : "The server cannot be reached. Check that it runs; the page goes on by itself when it is back.";
      throw new Problem(0, { title: "No answer", detail });
    }
    const text = await response.text();
    const json = parse(text);
    if (!response.ok) throw new Problem(response.status, json ?? { title: `${response.status} ${response.statusText}`, detail: text.slice(0, 300) });
    if (json === undefined) throw new Problem(response.status, { title: "Not JSON", detail: `The answer to ${method} ${url.pathname} is not JSON.` });
    return json;
  }

  /** The names of the tenant's config sets. */
  async sets() {
    return names(await this.#request("GET", "/v1/sets"));
  }

  /** The names of the tenant's environments. */
  async environments() {
    return names(await this.#request("GET", "/v1/environments"));
  }

  /** The names of the apps that read a set. */
  async apps(set) {
    return names(await this.#request("GET", `/v1/sets/${encodeURIComponent(set)}/apps`));
  }

  signingKeys() {
    return this.#request("GET", "/v1/keys/signing");
  }

  config({ environment, set, app }) {
    return this.#request("GET", "/v1/config", { query: { env: environment, set, app } });
  }

  convergence({ environment, set, app }) {
    return this.#request("GET", "/v1/config/convergence", { query: { env: environment, set, app } });
  }

  /** The newest versions, newest first. */
  async versions({ environment, set, app }) {
    const query = { env: environment, set, app, pageSize: VERSIONS_MAX };
    return (await this.#request("GET", "/v1/config/versions", { query })).items;
  }

  /** Publishes at the layer `app`. `key` makes a repetition after a lost answer harmless. */
  publish({ environment, set, app }, changes, key) {
    return this.#request("POST", "/v1/config/publish", {
      body: { environment, set, app, layer: "app", changes },
      headers: { "Idempotency-Key": key },
    });
  }

  rollback({ environment, set, app }, revision, key) {
    return this.#request("POST", "/v1/config/rollback", {
      body: { environment, set, app, toRevision: revision },
      headers: { "Idempotency-Key": key },
    });
  }
}

function names(list) {
  return list.items.map((item) => item.name);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A key for `Idempotency-Key`. `randomUUID` needs a secure context, `getRandomValues` does not. */
export function idempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
