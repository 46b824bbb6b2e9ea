// The panels beside the table: convergence, versions, the stream's log, and problem notices.

import { byId, h, icon, ago, count, setText } from "./dom.js";
import { convergenceArea, shareBar } from "./charts.js";

// How much of the curve is kept and how often it is asked for, in milliseconds.
const CURVE_SPAN_MS = 120_000;
const CURVE_STEP_MS = 1_000;
// Lines of the log and rows of the revisions that are kept. Arbitrary: what fits beside the table.
const LOG_LINES_MAX = 40;
const REVISION_ROWS_MAX = 8;

/** A problem document as an element: title, detail, violations, and what to quote to support. */
export function problemView(problem) {
  const items = problem.violations?.map((violation) =>
    h("li", {}, h("code", {}, violation.path), ` ${violation.message ?? violation.code}`,
      violation.limit !== undefined ? ` (limit ${violation.limit}, was ${violation.actual})` : ""));
  const codes = [problem.status ? `status ${problem.status}` : null, ...(problem.reasonCodes ?? []), problem.traceId && `trace ${problem.traceId}`];
  return h("div", { class: "notice bad" },
    h("strong", {}, problem.title ?? "Something went wrong"),
    problem.detail || !problem.title ? h("p", {}, problem.detail ?? problem.message) : null,
    items?.length ? h("ul", {}, items) : null,
    h("p", { class: "hint mono" }, codes.filter(Boolean).join(" · ")));
}

/** Shows `problem` in `place`, or clears it. */
export function showProblem(place, problem) {
  place.replaceChildren(...(problem ? [problemView(problem)] : []));
}

/** Asks once a second how many subscribers stand where, and draws it. */
export class Convergence {
  #ask;
  #points = [];
  #timer = 0;
  #generation = 0;

  /** Starts over with another channel; `ask` answers the endpoint's document. */
  start(ask) {
    this.stop();
    this.#ask = ask;
    this.#points = [];
    this.#poll(this.#generation);
  }

  stop() {
    this.#generation += 1;
    clearTimeout(this.#timer);
  }

  async #poll(generation) {
    const startedAt = performance.now();
    if (!document.hidden) {
      try {
        const answer = await this.#ask();
        if (generation !== this.#generation) return;
        this.#take(answer);
      } catch (problem) {
        if (generation !== this.#generation) return;
        setText(byId("at-head"), "–");
        setText(byId("at-head-detail"), problem.detail ?? problem.title ?? problem.message);
      }
    }
    // The next one a second after this one began, so that a slow answer does not bunch them.
    const wait = Math.max(0, CURVE_STEP_MS - (performance.now() - startedAt));
    this.#timer = setTimeout(() => this.#poll(generation), wait);
  }

  #take({ head, subscribers, atHead, revisions }) {
    const now = Date.now();
    const share = subscribers > 0 ? atHead / subscribers : 1;
    if (subscribers > 0) this.#points.push({ at: now, share, head: head.revision });
    while (this.#points.length && now - this.#points[0].at > CURVE_SPAN_MS) this.#points.shift();
    convergenceArea(byId("convergence-chart"), this.#points, CURVE_SPAN_MS, now);
    const percent = subscribers === 0 ? "–" : `${share === 1 ? 100 : Math.min(99.9, Math.floor(share * 1000) / 10)}%`;
    setText(byId("at-head"), percent);
    setText(byId("at-head-detail"), `${atHead.toLocaleString("en")} of ${count(subscribers, "subscriber")} at revision ${head.revision}`);
    this.#rows(head, subscribers, revisions);
  }

  #rows(head, subscribers, revisions) {
    const sorted = [...revisions].sort((a, b) => b.revision - a.revision);
    const rows = sorted.slice(0, REVISION_ROWS_MAX).map((at) =>
      h("tr", { data: { revision: at.revision } },
        h("th", { scope: "row", class: "mono" }, `r${at.revision}`, at.revision === head.revision ? h("span", { class: "tag" }, "head") : null),
        h("td", { class: "num" }, at.subscribers.toLocaleString("en")),
        h("td", { class: "num" }, at.applied.toLocaleString("en")),
        h("td", { class: "bar-cell" }, shareBar(subscribers ? at.subscribers / subscribers : 0))));
    const rest = sorted.slice(REVISION_ROWS_MAX);
    if (rest.length) {
      const sum = (field) => rest.reduce((total, at) => total + at[field], 0);
      rows.push(h("tr", {}, h("th", { scope: "row" }, `${rest.length} older`),
        h("td", { class: "num" }, sum("subscribers").toLocaleString("en")),
        h("td", { class: "num" }, sum("applied").toLocaleString("en")),
        h("td", { class: "bar-cell" }, shareBar(subscribers ? sum("subscribers") / subscribers : 0))));
    }
    byId("revision-rows").replaceChildren(...rows);
    byId("revisions").hidden = rows.length === 0;
    byId("revisions-empty").hidden = rows.length > 0;
  }
}

/** The list of versions. `onRollback(version)` is asked for when its button is pressed. */
export function drawVersions(versions, headRevision, onRollback) {
  const list = byId("versions");
  const items = versions.map((version) => {
    const isHead = version.revision === headRevision;
    const when = Date.parse(version.issuedAt);
    return h("li", { data: { revision: version.revision } },
      h("div", { class: "version-line" },
        h("code", { class: "revision" }, `r${version.revision}`),
        h("span", { class: "label mono", title: version.version }, version.version),
        isHead
          ? h("span", { class: "tag" }, "head")
          : h("button", { type: "button", class: "quiet small", "aria-label": `Roll back to revision ${version.revision}`, on: { click: () => onRollback(version) } }, icon("undo"), "Roll back")),
      h("div", { class: "muted small" }, [...facts(version), h("time", { data: { when } }, ago(when))].flatMap((fact, index) => (index ? [" · ", fact] : [fact]))));
  });
  const focused = list.contains(document.activeElement) ? document.activeElement.closest("li").dataset.revision : null;
  list.replaceChildren(...items);
  if (focused) list.querySelector(`li[data-revision="${focused}"] button`)?.focus();
  const empty = byId("versions-empty");
  empty.hidden = items.length > 0;
  empty.textContent = "Nothing was published here yet. Edit a value and publish it.";
}

function facts({ kind, actor, keysSet, keysRemoved, reason }) {
  const changed = [keysSet && `${keysSet} set`, keysRemoved && `${keysRemoved} removed`].filter(Boolean).join(", ");
  return [kind, changed, actor, reason].filter(Boolean);
}

/** Renews the times of the list. */
export function tickVersions() {
  for (const time of byId("versions").querySelectorAll("time")) setText(time, ago(Number(time.dataset.when)));
}

/** The newest things that happened on the stream, newest first. */
export class Log {
  #list = byId("log");

  add(kind, text) {
    const time = new Date().toLocaleTimeString("en-GB", { hour12: false });
    this.#list.prepend(h("li", { data: { kind } }, h("time", { class: "mono" }, time), h("span", { class: "kind" }, kind), h("span", { class: "what" }, text)));
    while (this.#list.children.length > LOG_LINES_MAX) this.#list.lastChild.remove();
  }

  clear() {
    this.#list.replaceChildren();
  }
}

/** Asks before something that cannot be taken back at once; answers whether to go on. */
export function confirmed(title, text, yes) {
  const dialog = byId("confirm");
  setText(byId("confirm-title"), title);
  setText(byId("confirm-text"), text);
  setText(byId("confirm-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
