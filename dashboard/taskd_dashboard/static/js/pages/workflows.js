// Workflows, newest first.

import { get } from "../api.js";
import { between, count, length, middle, tail, time } from "../format.js";
import { setQuery, to } from "../router.js";
import { bar, button, chip, choice, empty, h, table } from "../parts.js";

const STATES = [["", "all"], ["running", "running"], ["failed", "failed"], ["succeeded", "succeeded"], ["cancelled", "cancelled"]];
const KIND = { succeeded: "good", failed: "bad", dead: "bad", running: "busy", ready: "busy", scheduled: "wait", blocked: "", waiting: "" };

export function progress(flow) {
  const parts = Object.entries(flow.counts).map(([state, number]) => [KIND[state] ?? "", state in KIND && KIND[state] === "" ? 0 : number]);
  const done = flow.counts.succeeded ?? 0;
  return h("div", { class: "row nowrap" }, h("span", { class: "num small" }, `${count(done)} / ${count(flow.node_count)}`),
    bar(parts, flow.node_count, Object.entries(flow.counts).map(([state, number]) => `${number} ${state}`).join(", ")));
}

export default {
  title: () => "Workflows",
  topics: () => ["workflows"],
  every: 15_000,
  async load(screen) {
    const words = new URLSearchParams({ state: screen.query.get("state") ?? "", name: screen.query.get("name") ?? "", cursor: screen.query.get("cursor") ?? "", limit: "50" });
    return get(`/api/v1/workflows?${words}`, screen.abort.signal);
  },
  view(screen) {
    const { workflows, cursor } = screen.data;
    return [
      h("h1", { class: "sr" }, "Workflows"),
      h("div", { class: "row" }, h("div", { class: "scroll" }, choice("State", STATES, screen.query.get("state") ?? "", (state) => setQuery({ state, cursor: "" }))),
        h("input", { class: "field grow", type: "search", "data-search": true, "aria-label": "Workflow name", placeholder: "Name, * stands for anything", value: screen.query.get("name") ?? "",
          onchange: (event) => setQuery({ name: event.target.value.trim(), cursor: "" }) })),
      h("section", { class: "card", "aria-label": "Workflows" }, workflows.length ? table("Workflows, newest first", [
        { name: "Workflow", first: true, wide: true, cell: (flow) => h("div", null, h("a", { class: "clip strong", title: flow.name, href: to(`/workflows/${flow.id}`) }, middle(flow.name, 70)),
          h("div", { class: "row nowrap tight small faint" }, h("code", { title: flow.id }, tail(flow.id)), flow.failed_node ? h("span", { class: "clip bad-text" }, `failed at ${flow.failed_node}`) : null, flow.schedule ? h("span", { class: "clip" }, `by ${flow.schedule}`) : null)) },
        { name: "State", bare: true, cell: (flow) => chip(flow.state) },
        { name: "Nodes", bare: true, cell: progress },
        { name: "Submitted", num: true, cell: (flow) => time(flow.created_at) },
        { name: "Took", num: true, cell: (flow) => h("span", { class: "num" }, length(between(flow.created_at, flow.finished_at))) },
      ], workflows) : empty("No workflow is here.", h("code", null, "with app.workflow(\"report\") as wf: …"))),
      cursor || screen.query.get("cursor") ? h("div", { class: "row" }, button("Newest", () => setQuery({ cursor: "" }), { kind: "small", disabled: !screen.query.get("cursor") }), button("Older", () => setQuery({ cursor }), { kind: "small", disabled: !cursor })) : null,
    ];
  },
};
