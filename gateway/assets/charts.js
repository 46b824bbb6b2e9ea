// Charts drawn by hand as SVG. Colours come from the style sheet; the numbers they show stand
// beside them as text, so a chart is decoration to assistive technology but for its label.

import { s, duration } from "./dom.js";

/** Bars of the newest latencies, oldest left. `points` are `{ms, own, revision}`. */
export function latencyBars(container, points, slots) {
  const width = slots * 5;
  const height = 32;
  const most = Math.max(...points.map((point) => point.ms), 1);
  const bars = points.slice(-slots).map((point, index, shown) => {
    const tall = Math.max(1.5, (point.ms / most) * (height - 2));
    const bar = s("rect", {
      x: width - (shown.length - index) * 5,
      y: height - tall,
      width: 3.5,
      height: tall,
      rx: 1,
      class: point.own ? "bar own" : "bar",
    });
    bar.append(s("title", {}, `revision ${point.revision}: ${duration(point.ms)}`));
    return bar;
  });
  const label = points.length
    ? `Latency of the last ${Math.min(points.length, slots)} changes, at most ${duration(most)}`
    : "No latency yet";
  container.replaceChildren(
    s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, preserveAspectRatio: "xMaxYMid meet" },
      s("line", { class: "axis", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }), bars),
  );
}

/**
 * The share of subscribers at the head over time, as an area. `points` are
 * `{at, share, head}` with `at` in milliseconds; `spanMs` ends at `nowMs`.
 */
export function convergenceArea(container, points, spanMs, nowMs) {
  const width = 400;
  const height = 132;
  const left = 34;
  const top = 8;
  const bottom = height - 18;
  const x = (at) => left + (width - left - 4) * Math.max(0, 1 - (nowMs - at) / spanMs);
  const y = (share) => bottom - (bottom - top) * share;
  const shown = points.filter((point) => nowMs - point.at <= spanMs);

  const grid = [0, 0.5, 1].flatMap((share) => [
    s("line", { class: "grid", x1: left, x2: width - 4, y1: y(share), y2: y(share) }),
    s("text", { class: "tick", x: left - 6, y: y(share) + 3.5, "text-anchor": "end" }, `${share * 100}%`),
  ]);
  const times = [120, 60, 0].map((seconds) =>
    s("text", {
      class: "tick",
      x: x(nowMs - seconds * 1000),
      y: height - 4,
      "text-anchor": seconds === 0 ? "end" : seconds === 120 ? "start" : "middle",
    }, seconds === 0 ? "now" : `−${seconds} s`),
  );
  const marks = shown.flatMap((point, index) =>
    index > 0 && point.head !== shown[index - 1].head
      ? [s("line", { class: "head-mark", x1: x(point.at), x2: x(point.at), y1: top, y2: bottom }, s("title", {}, `revision ${point.head}`))]
      : [],
  );
  const parts = [grid, times, marks];
  if (shown.length > 0) {
    const line = shown.map((point) => `${x(point.at).toFixed(1)},${y(point.share).toFixed(1)}`);
    const first = x(shown[0].at).toFixed(1);
    const last = shown.at(-1);
    parts.push(
      s("path", { class: "area", d: `M${first},${bottom}L${line.join("L")}L${x(last.at).toFixed(1)},${bottom}Z` }),
      s("path", { class: "line", d: `M${line.join("L")}` }),
      s("circle", { class: "now", cx: x(last.at), cy: y(last.share), r: 3 }),
    );
  }
  const label = shown.length
    ? `Share of subscribers at the head: ${Math.round(shown.at(-1).share * 100)} percent now`
    : "No measurement yet";
  container.replaceChildren(s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, parts.flat()));
}

/** A thin bar of a share between 0 and 1. */
export function shareBar(share) {
  return s("svg", { class: "share", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "share-all", width: 100, height: 6, rx: 3 }),
    s("rect", { class: "share-part", width: Math.max(share > 0 ? 2 : 0, share * 100), height: 6, rx: 3 }));
}
