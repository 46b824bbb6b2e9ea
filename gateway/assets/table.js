// The live table of keys and values: filter, inline editing, staging.

import { byId, h, icon, ago, count } from "./dom.js";
import { canonical } from "./integrity.js";

// Rows drawn at once. Arbitrary: more than a person reads, few enough to draw within a frame.
const ROWS_MAX = 400;
// How long a value may be in its cell before it is cut; the editor shows all of it.
const VALUE_CHARS_MAX = 160;

/**
 * Staged edits live here until they are published: `key → {value, text}` or `key → null` for a
 * deletion. A live change to a staged key is shown in its row, never taken over silently.
 */
export class KeyTable {
  #entries = new Map();
  #changed = new Map();
  #rows = new Map();
  #staged = new Map();
  #editing = null;
  #filter = "";
  #onStaged;

  constructor(onStaged) {
    this.#onStaged = onStaged;
    byId("filter").addEventListener("input", (event) => {
      this.#filter = event.target.value.trim().toLowerCase();
      this.#draw();
    });
    this.#wireAdd();
  }

  /** Forgets everything: another channel. */
  reset() {
    this.#entries = new Map();
    this.#changed.clear();
    this.#staged.clear();
    this.#editing = null;
    this.#draw("Loading the channel…");
    this.#onStaged(this.#staged);
  }

  /** Takes the map after a frame, and what that frame changed. */
  update(entries, changes, { revision, at, flash }) {
    this.#entries = entries;
    for (const { key } of changes) {
      if (flash) this.#changed.set(key, { revision, at });
      if (this.#editing?.key !== key) this.#rows.delete(key);
      else this.#editing.note.textContent = `Changed at revision ${revision} while you edit: ${entries.get(key)?.text ?? "deleted"}`;
    }
    this.#draw();
    if (flash) for (const { key, is } of changes) if (is) this.#flash(key);
  }

  /** Redraws the words that depend on the time. */
  tick() {
    for (const [key, { revision, at }] of this.#changed) {
      const cell = this.#rows.get(key)?.querySelector(".changed");
      if (cell) cell.textContent = `r${revision} · ${ago(at)}`;
    }
  }

  get staged() {
    return this.#staged;
  }

  /** Drops all staged edits, or those of these keys. */
  unstage(keys = [...this.#staged.keys()]) {
    for (const key of keys) {
      this.#staged.delete(key);
      this.#rows.delete(key);
    }
    this.#draw();
    this.#onStaged(this.#staged);
  }

  #stage(key, value) {
    const current = this.#entries.get(key);
    const isSame = value === null ? !current : current?.text === value.text;
    if (isSame) this.#staged.delete(key);
    else this.#staged.set(key, value);
    this.#rows.delete(key);
    this.#draw();
    this.#onStaged(this.#staged);
  }

  #keys() {
    const keys = new Set([...this.#entries.keys(), ...this.#staged.keys()]);
    const wanted = [...keys].filter((key) => {
      if (!this.#filter) return true;
      const text = this.#staged.get(key)?.text ?? this.#entries.get(key)?.text ?? "";
      return key.toLowerCase().includes(this.#filter) || text.toLowerCase().includes(this.#filter);
    });
    return { all: keys.size, wanted: wanted.sort() };
  }

  #draw(emptyText) {
    const { all, wanted } = this.#keys();
    const shown = wanted.slice(0, ROWS_MAX);
    for (const key of this.#rows.keys()) {
      if (!this.#entries.has(key) && !this.#staged.has(key)) this.#rows.delete(key);
    }
    const rows = shown.map((key) => this.#row(key));
    const body = byId("rows");
    // Rows that stay are left where they are, so that an open editor survives; the focus goes from
    // a row that is drawn anew to the same button of the new one.
    const held = body.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    const isSame = body.children.length === rows.length && rows.every((row, index) => body.children[index] === row);
    if (!isSame) this.#place(body, rows);
    if (held && !body.contains(document.activeElement)) body.querySelector(`[aria-label="${CSS.escape(held)}"]`)?.focus();
    byId("keys").hidden = all === 0;
    const empty = byId("keys-empty");
    empty.hidden = wanted.length > 0;
    empty.textContent = emptyText ?? (all === 0
      ? "This channel has no keys yet. Add the first one."
      : `No key or value contains “${this.#filter}”. Clear the filter to see all ${all}.`);
    byId("keys-count").textContent = all === 0 ? "" : shown.length < wanted.length
      ? `${shown.length} of ${count(wanted.length, "key")} shown; filter to narrow`
      : wanted.length < all ? `${wanted.length} of ${all}` : String(all);
  }

  #place(body, rows) {
    const wanted = new Set(rows);
    for (const row of [...body.children]) if (!wanted.has(row)) row.remove();
    rows.forEach((row, index) => {
      if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
    });
  }

  #row(key) {
    const held = this.#rows.get(key);
    if (held) return held;
    const row = this.#editing?.key === key ? this.#editorRow(key) : this.#readRow(key);
    this.#rows.set(key, row);
    return row;
  }

  #readRow(key) {
    const entry = this.#entries.get(key);
    const isStaged = this.#staged.has(key);
    const staged = this.#staged.get(key);
    const changed = this.#changed.get(key);
    const cell = h("td", { class: "value" });
    if (!isStaged) cell.append(valueText(entry));
    else if (staged === null) cell.append(h("del", {}, valueText(entry)), h("span", { class: "tag" }, "delete staged"));
    else cell.append(entry ? h("del", {}, valueText(entry)) : "", valueText(staged), h("span", { class: "tag" }, "staged"));
    const button = (name, glyph, act) =>
      h("button", { type: "button", class: "quiet icon-only", "aria-label": `${name} ${key}`, title: name, on: { click: act } }, icon(glyph));
    const actions = isStaged
      ? [button("Unstage", "undo", () => this.unstage([key]))]
      : [button("Edit", "edit", () => this.edit(key)), button("Delete", "trash", () => this.#stage(key, null))];
    return h("tr", { data: { key }, class: isStaged ? "is-staged" : "", on: { dblclick: () => !isStaged && this.edit(key) } },
      h("th", { scope: "row" }, keyText(key)), cell,
      h("td", { class: "changed muted" }, changed ? `r${changed.revision} · ${ago(changed.at)}` : ""),
      h("td", { class: "actions" }, actions));
  }

  /** Opens the editor in the row of `key`. */
  edit(key) {
    if (this.#editing) this.#closeEditor();
    this.#editing = { key, note: h("p", { class: "hint warn", role: "status" }) };
    this.#rows.delete(key);
    this.#draw();
    const field = this.#rows.get(key)?.querySelector("textarea");
    field?.focus();
    field?.select();
  }

  #closeEditor(focusKey) {
    const { key } = this.#editing;
    this.#editing = null;
    this.#rows.delete(key);
    this.#draw();
    if (focusKey) this.#rows.get(key)?.querySelector("button")?.focus();
  }

  #editorRow(key) {
    const entry = this.#entries.get(key);
    const pretty = JSON.stringify(entry.value, null, 2);
    const error = h("p", { class: "field-error", id: "edit-error", role: "alert" });
    const field = h("textarea", {
      class: "mono", spellcheck: "false", rows: Math.min(12, pretty.split("\n").length),
      "aria-label": `Value of ${key}, as JSON`, "aria-describedby": "edit-error",
    });
    field.value = pretty;
    const check = () => {
      const read = readJson(field.value);
      error.textContent = read.error ?? "";
      field.setAttribute("aria-invalid", String(Boolean(read.error)));
      return read;
    };
    const commit = () => {
      const read = check();
      if (read.error) return field.focus();
      this.#editing = null;
      this.#stage(key, read);
      this.#rows.get(key)?.querySelector("button")?.focus();
    };
    field.addEventListener("input", check);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#closeEditor(true);
      if (event.key === "Enter" && !event.shiftKey && (event.ctrlKey || event.metaKey || !field.value.includes("\n"))) {
        event.preventDefault();
        commit();
      }
    });
    return h("tr", { data: { key }, class: "is-editing" },
      h("th", { scope: "row" }, keyText(key)),
      h("td", { colspan: 3 }, field, error, this.#editing.note,
        h("div", { class: "row" },
          h("button", { type: "button", class: "primary", on: { click: commit } }, "Stage"),
          h("button", { type: "button", class: "quiet", on: { click: () => this.#closeEditor(true) } }, "Cancel"),
          h("span", { class: "hint" }, "Enter stages, Shift Enter breaks the line, Esc cancels"))));
  }

  #wireAdd() {
    const form = byId("add-form");
    const key = byId("add-key");
    const value = byId("add-value");
    const error = byId("add-error");
    const close = () => {
      form.hidden = true;
      form.reset();
      error.textContent = "";
      byId("add").focus();
    };
    byId("add").addEventListener("click", () => {
      form.hidden = false;
      key.focus();
    });
    byId("add-cancel").addEventListener("click", close);
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
      if (event.key === "Enter" && event.target === value && !event.shiftKey) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const read = readJson(value.value);
      const wrong = keyError(key.value) ?? (this.#entries.has(key.value) ? "This key exists. Edit it in its row." : null) ?? read.error;
      error.textContent = wrong ?? "";
      if (wrong) return;
      this.#stage(key.value, read);
      close();
    });
  }

  #flash(key) {
    const row = this.#rows.get(key);
    if (!row) return;
    row.classList.remove("flash");
    // Reading a layout property between the two makes the animation start anew.
    row.getBoundingClientRect();
    row.classList.add("flash");
  }
}

function keyText(key) {
  const cut = key.lastIndexOf("/") + 1;
  return h("code", {}, cut > 0 ? h("span", { class: "prefix" }, key.slice(0, cut)) : null, key.slice(cut));
}

function valueText(entry) {
  if (!entry) return "";
  const { value, text } = entry;
  const kind = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  const cut = text.length > VALUE_CHARS_MAX ? `${text.slice(0, VALUE_CHARS_MAX)}…` : text;
  return h("code", { class: `json ${kind}`, title: cut === text ? null : `${text.length} characters` }, cut);
}

/** `{value, text}` or `{error}`: what a field holds, as JSON. */
function readJson(text) {
  if (text.trim() === "") return { error: "A value is needed. Text stands in quotes, for example \"dark\"." };
  try {
    const value = JSON.parse(text);
    if (value === null) return { error: "null unsets a key. Delete the key instead." };
    return { value, text: canonical(value) };
  } catch (error) {
    return { error: `Not JSON: ${error.message.replace(/^JSON\.parse: /, "")}. Text stands in quotes.` };
  }
}

/** Why a key cannot be, or null. The bounds are those of docs/protocol.md. */
function keyError(key) {
  if (key === "") return "A key is needed, for example features/new.";
  if (new TextEncoder().encode(key).length > 256) return "A key has at most 256 bytes.";
  if (key.includes("*")) return "A key holds no *; that is for filters.";
  if (/[\u0000-\u001f\u007f-\u009f]/.test(key)) return "A key holds no control characters.";
  return null;
}
