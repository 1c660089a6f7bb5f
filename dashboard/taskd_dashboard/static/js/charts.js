// Charts over time: uPlot on a canvas, loaded when first needed, and the same numbers as a table for who cannot see it.

import { brief, clock, length, short, tick } from "./format.js";
import { h, keep, s } from "./ui.js";

const COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5"];
let library = null;

function load() {
  library ??= new Promise((resolve, reject) => {
    const at = new URL("../vendor/", import.meta.url);
    document.head.append(h("link", { rel: "stylesheet", href: new URL("uPlot.css", at).href }));
    document.head.append(h("script", { src: new URL("uPlot.js", at).href, onload: resolve, onerror: reject }));
  });
  return library;
}

const FORMS = { number: brief, rate: (value) => `${brief(value)}/s`, ms: length };

// Between two marks of a length of time: round ones in the unit that they are told in.
const LENGTHS_MS = [0.1, 0.2, 0.5, ...[1, 10, 100].flatMap((ten) => [1, 2, 5].map((each) => each * ten)), ...[1, 2, 5, 10, 20, 30].map((each) => each * 1000),
  ...[1, 2, 5, 10, 20, 30].map((each) => each * 60_000), ...[1, 2, 4, 6, 12].map((each) => each * 3_600_000), ...[1, 2, 5, 10, 20, 50, 100].map((each) => each * 86_400_000)];

const ALONE_S = 600; // to both sides of a time that is the only one

/** Where a value has no neighbour: no line leads there, so it is a dot. */
function alone(values) {
  return [...values.keys()].filter((at) => (values[at] ?? null) !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null);
}

/** One chart, which lives on while its page is shown. Series are [name, form]; a gap in time is a gap in the line. */
export class Chart {
  constructor(title, series, { form = "number", height = 180 } = {}) {
    Object.assign(this, { title, series, form, height, at: null });
    this.plot = null;
    this.box = h("div", { class: "chart", role: "img", "aria-label": title });
    this.data = [[]];
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(this.box);
    this.retheme = () => this.make();
    addEventListener("taskd-theme", this.retheme);
    load().then(() => this.make());
  }

  close() {
    removeEventListener("taskd-theme", this.retheme);
    this.resized.disconnect();
    this.plot?.destroy();
    this.closed = true;
  }

  fit() {
    const width = this.box.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.height });
  }

  make() {
    if (this.closed || !globalThis.uPlot) return;
    this.plot?.destroy();
    const colour = (name) => {
      this.box.style.setProperty("color", `var(${name})`); // a canvas knows no variables, and none that depend on the theme
      return getComputedStyle(this.box).color;
    };
    const told = FORMS[this.form];
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    this.plot = new globalThis.uPlot({
      width: this.box.clientWidth || 400, height: this.height, legend: { show: false }, padding: [8, 26, 0, 0],
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } }, scales: { x: { time: true, range: (_, low, high) => (low !== null && low === high ? [low - ALONE_S, high + ALONE_S] : [low, high]) }, y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1) * 1.08] } },
      hooks: { setCursor: [(plot) => this.pointed(plot.cursor.idx)] },
      axes: [
        { ...axis, space: 70, values: (_, ticks) => ticks.map((each) => (ticks[1] - ticks[0] < 60 ? clock : short)(each * 1000)), size: 28 },
        { ...axis, size: 58, space: 32, ...(this.form === "ms" ? { incrs: LENGTHS_MS } : {}), values: (_, ticks) => ticks.map((each) => (this.form === "ms" ? tick(each) : told(each))) },
      ],
      series: [{}, ...this.series.map((name, at) => ({
        label: name, stroke: colour(COLOURS[at % COLOURS.length]), width: 1.5, spanGaps: false,
        points: { show: true, size: 5, width: 0, fill: colour(COLOURS[at % COLOURS.length]), filter: (plot, index) => alone(plot.data[index]) },
      }))],
    }, this.data, this.box);
  }

  pointed(index) {
    if (index === this.at) return;
    this.at = index ?? null;
    this.onpoint?.();
  }

  /** Show points: {at_ms, span_ms} and what `pick` makes of each, one number a series. */
  set(points, pick) {
    const xs = [];
    const columns = this.series.map(() => []);
    let before = null;
    for (const point of points) {
      if (before && point.at_ms - before.at_ms > before.span_ms * 3 + 1000) { // the server was away
        xs.push((before.at_ms + 1) / 1000);
        for (const column of columns) column.push(null);
      }
      xs.push(point.at_ms / 1000);
      for (const [at, value] of pick(point).entries()) columns[at].push(value);
      before = point;
    }
    this.data = [xs, ...columns];
    this.plot?.setData(this.data);
  }

  /** The names with their newest values, or those under the pointer. */
  legend() {
    const told = FORMS[this.form];
    const at = this.at ?? this.data[0].length - 1;
    return h("div", { class: "legend" }, this.series.map((name, index) => h("span", null,
      h("i", { class: `c${index + 1}` }), `${name} `, h("b", null, told(this.data[index + 1]?.[at] ?? null)))),
    this.at !== null && this.data[0][at] ? h("span", { class: "faint" }, clock(this.data[0][at] * 1000)) : null);
  }

  twin() {
    const told = FORMS[this.form];
    const rows = this.data[0].map((x, at) => [x, at]).slice(-60).reverse();
    return h("details", { class: "twin", key: `twin-${this.title}` }, h("summary", null, "As a table"),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${this.title} as a table` }, h("table", null, h("caption", { class: "sr" }, this.title),
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "Time"), this.series.map((name) => h("th", { scope: "col", class: "num" }, name)))),
        h("tbody", null, rows.map(([x, at]) => h("tr", null, h("th", { scope: "row" }, h("time", { datetime: new Date(Math.round(x * 1000)).toISOString() }, clock(x * 1000))),
          this.series.map((_, index) => h("td", { class: "num" }, told(this.data[index + 1][at] ?? null)))))))));
  }

  element() {
    return [this.legend(), keep(this.box), this.twin()];
  }
}

/** A line as small as a word; its last value stands beside it in words. `times` are when each was, else they follow evenly. */
export function sparkline(values, label, { top = null, wide = false, times = [...values.keys()] } = {}) {
  if (values.length < 2) return h("span", { class: "faint" }, "–");
  const high = Math.max(top ?? 0, ...values, 1e-9);
  const step = 100 / Math.max(1, times.at(-1) - times[0]);
  const points = values.map((value, at) => [((times[at] - times[0]) * step).toFixed(1), (25 - 23 * (value / high)).toFixed(1)]);
  const line = points.map(([x, y], at) => `${at ? "L" : "M"}${x} ${y}`).join("");
  return s("svg", { class: wide ? "spark wide" : "spark", viewBox: "0 0 100 26", preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("path", { class: "area", d: `${line}L100 26L0 26Z` }), s("path", { d: line }));
}
