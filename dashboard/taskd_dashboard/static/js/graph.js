// A workflow's graph, laid out by dagre and drawn as SVG; nodes are links, so that they can be reached by keyboard.
// Above some hundred nodes it is drawn group by group: those of one name, and of numbers behind it, as one.

import { begin, plural } from "./format.js";
import { h, s, tone } from "./parts.js";

export const NODES_MAX = 500;

const WIDTH = 168;
const HEIGHT = 42;
const LAID_OUT = new Map();

let library = null;

function stem(name) {
  return name.replace(/[\[#/:._-]?\d+\]?$/, "") || name;
}

/** The nodes by name, each with how many stand where. */
function grouped(nodes) {
  const groups = new Map();
  const of = new Map(nodes.map((node) => [node.name, stem(node.name)]));
  for (const node of nodes) {
    const name = stem(node.name);
    const group = groups.get(name) ?? { name, count: 0, states: new Map(), needs: new Set(), after: new Set(), first: node };
    group.count += 1;
    group.states.set(node.state, (group.states.get(node.state) ?? 0) + 1);
    for (const other of node.needs) if (of.get(other) !== name) group.needs.add(of.get(other));
    for (const other of node.after) if (of.get(other) !== name) group.after.add(of.get(other));
    groups.set(name, group);
  }
  return [...groups.values()].map((group) => ({ ...group, needs: [...group.needs], after: [...group.after], state: worst(group.states) }));
}

function worst(states) {
  for (const state of ["dead", "failed", "running", "ready", "scheduled"]) if (states.has(state)) return state;
  return [...states].sort((a, b) => b[1] - a[1])[0][0];
}

async function place(id, nodes, redraw) {
  library ??= import(new URL("../vendor/dagre.js", import.meta.url).href);
  const { Graph, layout } = await library;
  const graph = new Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 44, marginx: 16, marginy: 16 });
  graph.setDefaultEdgeLabel(() => ({}));
  const names = new Set(nodes.map((node) => node.name));
  for (const node of nodes) graph.setNode(node.name, { width: WIDTH, height: HEIGHT });
  const edges = nodes.flatMap((node) => [...node.needs.map((from) => [from, node.name, ""]), ...node.after.map((from) => [from, node.name, "after"])]).filter(([from]) => names.has(from));
  for (const [from, to] of edges) graph.setEdge(from, to);
  layout(graph);
  const { width, height } = graph.graph();
  LAID_OUT.clear(); // one picture is enough to remember
  LAID_OUT.set(id, {
    width, height, at: new Map(nodes.map((node) => [node.name, graph.node(node.name)])),
    edges: edges.map(([from, to, kind]) => ({ kind, from, to, d: curve(graph.edge(from, to).points) })),
  });
  redraw();
}

function curve(points) {
  const [first, ...rest] = points;
  let d = `M${first.x} ${first.y}`;
  for (let at = 0; at < rest.length; at += 1) {
    const before = at === 0 ? first : rest[at - 1];
    const middle = (before.x + rest[at].x) / 2;
    d += `C${middle} ${before.y} ${middle} ${rest[at].y} ${rest[at].x} ${rest[at].y}`;
  }
  return d;
}

/** The picture, or what stands for it until it is laid out. `href(node)` is where a node leads. */
export function picture(flow, href, redraw) {
  const whole = flow.nodes.length <= NODES_MAX;
  const nodes = whole ? flow.nodes : grouped(flow.nodes);
  const id = `${flow.id}/${nodes.length}`;
  const laid = LAID_OUT.get(id);
  if (!laid) {
    if (picture.asked !== id) {
      picture.asked = id;
      place(id, nodes, redraw);
    }
    return h("div", { class: "empty", "aria-busy": "true" }, "Drawing…");
  }
  picture.asked = null;
  return h("div", { class: "dag", tabindex: "0", role: "region", "aria-label": "Graph of the workflow" },
    whole ? null : h("p", { class: "small muted", style: { padding: "8px 14px" } }, `${plural(flow.nodes.length, "node")} in ${plural(nodes.length, "group")} by name.`),
    s("svg", { width: laid.width, height: laid.height, viewBox: `0 0 ${laid.width} ${laid.height}` },
      s("defs", null, s("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, s("path", { d: "M0 0L8 4L0 8z" }))),
      laid.edges.map((edge) => s("path", { class: `edge ${edge.kind}`, d: edge.d, "marker-end": "url(#tip)" })),
      nodes.map((node) => box(node, laid.at.get(node.name), href))));
}

function box(node, { x, y }, href) {
  const said = node.count > 1 ? [...node.states].map(([state, number]) => `${number} ${state}`).join(", ") : node.children ? `${node.state}, ${node.children.succeeded} of ${node.children.total}` : node.state;
  const name = node.count > 1 ? `${node.name} × ${node.count}` : node.name;
  return s("a", { class: `node ${tone(node.state)}`, key: node.name, href: href(node), transform: `translate(${x - WIDTH / 2} ${y - HEIGHT / 2})`, "aria-label": `${begin(name, 22)} ${begin(said, 26)}` },
    s("title", null, `${name}\n${node.task ?? node.kind ?? ""}\n${said}`),
    s("rect", { class: "box", width: WIDTH, height: HEIGHT, rx: 7 }), s("rect", { class: "mark", width: 4, height: HEIGHT - 12, x: 5, y: 6, rx: 2 }),
    s("text", { x: 16, y: 18 }, `${begin(name, 22)} `), s("text", { class: "sub", x: 16, y: 33 }, begin(said, 26)));
}
