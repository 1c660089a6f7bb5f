// When each node ran, one row each, in the order in which they began.

import { begin, instant, length, millis, plural } from "./format.js";
import { h, s, tone } from "./parts.js";

const ROWS_MAX = 200;
const ROW = 20;
const NAMES = 190;
const LEAST_WIDTH = 520;

export function gantt(nodes, href) {
  const width = Math.max(LEAST_WIDTH, document.getElementById("main").clientWidth - 82);
  const begun = nodes.filter((node) => node.started_at && node.task).sort((a, b) => millis(a.started_at) - millis(b.started_at));
  if (!begun.length) return h("p", { class: "muted" }, "Nothing has begun yet.");
  const shown = begun.slice(0, ROWS_MAX);
  const from = millis(begun[0].started_at);
  const until = Math.max(from + 1, ...begun.map((node) => millis(node.finished_at) ?? Date.now()));
  const scale = (width - NAMES - 70) / (until - from);
  const height = shown.length * ROW + 22;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => share * (until - from));
  return h("div", { class: "gantt", tabindex: "0", role: "region", "aria-label": "When each node ran" },
    s("svg", { width, height, viewBox: `0 0 ${width} ${height}` },
      ticks.map((tick) => [s("line", { class: "rule", x1: NAMES + tick * scale, x2: NAMES + tick * scale, y1: 0, y2: height - 18 }), s("text", { x: NAMES + tick * scale, y: height - 5, "text-anchor": "middle" }, length(tick))]),
      shown.map((node, row) => {
        const start = millis(node.started_at);
        const end = Math.max(start, millis(node.finished_at) ?? Date.now());
        const wide = Math.max(2, (end - start) * scale);
        const name = begin(node.name, 28);
        return s("a", { href: href(node), key: node.name, "aria-label": `${name} ${length(end - start)}, ${node.state}, began ${instant(node.started_at)}` },
          s("title", null, `${node.name}: ${node.state}\n${instant(node.started_at)}, ${length(end - start)}`),
          s("text", { class: "name", x: 0, y: row * ROW + 14 }, `${name} `),
          s("rect", { class: tone(node.state), x: NAMES + (start - from) * scale, y: row * ROW + 4, width: wide, height: ROW - 8, rx: 3 }),
          s("text", { x: NAMES + (start - from) * scale + wide + 5, y: row * ROW + 14 }, length(end - start)));
      })),
    begun.length > shown.length ? h("p", { class: "small muted" }, `${plural(begun.length - shown.length, "later node")} not shown.`) : null);
}
