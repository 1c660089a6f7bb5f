// One workflow: its graph, when its nodes ran, and what can be done with it.

import { get, post } from "../api.js";
import { between, count, instant, length, middle, time } from "../format.js";
import { gantt } from "../gantt.js";
import { NODES_MAX, picture } from "../graph.js";
import { part, setQuery, to } from "../router.js";
import { action, ask, attempt, card, chip, choice, copyButton, empty, facts, h, table } from "../parts.js";
import { progress } from "./workflows.js";

const PAGE = 100;

async function order(screen, deed, done, body = {}) {
  await attempt(() => post(`/api/v1/workflows/${screen.params.id}/${deed}`, body), done);
  screen.load();
}

async function cancel(screen) {
  const yes = await ask("Cancel this workflow?", h("p", null, "What runs is cancelled; what had succeeded is taken back where nodes say how."), { yes: "Cancel the workflow", danger: true });
  if (yes !== null) await order(screen, "cancel", "The workflow is being cancelled.");
}

async function rerun(screen, node) {
  const yes = await ask(`Run ${node.name} again?`, h("p", null, "It and all that come after it run again; what came before is kept."), { yes: "Run again" });
  if (yes !== null) await order(screen, "rerun", `${node.name} runs again.`, { node: node.name });
}

async function signal(screen, node) {
  const answer = await ask(`Signal ${node.signal}`, h("label", { class: "line" }, "Value, as JSON; it is the node's result", h("input", { class: "field mono", name: "value", value: "null" })), { yes: "Signal" });
  if (!answer) return;
  let value;
  try {
    value = JSON.parse(answer.value || "null");
  } catch {
    await ask("That is no JSON", h("p", null, "Text stands in quotes: ", h("code", null, "\"approved\""), "."), { yes: "OK" });
    return;
  }
  await order(screen, "signal", `${node.signal} is signalled.`, { name: node.signal, value });
}

const leads = (node) => (node.count > 1 ? `?node=${encodeURIComponent(node.name)}` : to(`/tasks/${node.id ?? node.first.id}`));

function nodes(screen) {
  const flow = screen.data;
  const only = screen.query.get("node") ?? "";
  const state = screen.query.get("state") ?? "";
  const fitting = flow.nodes.filter((node) => (!only || node.name.startsWith(only)) && (!state || node.state === state));
  const shown = fitting.slice(0, PAGE);
  const over = ["succeeded", "failed", "dead", "skipped", "cancelled"];
  return card("Nodes", { flush: true, tools: h("div", { class: "row" }, only ? h("a", { class: "small", href: "?" }, `Only ${only}…: all nodes`) : null, choice("State", [["", "all"], ...Object.keys(flow.counts).map((each) => [each, `${each} ${count(flow.counts[each])}`])], state, (value) => setQuery({ state: value }))),
    foot: fitting.length > shown.length ? `${count(fitting.length - shown.length)} more nodes fit.` : null },
  shown.length ? table("Nodes", [
    { name: "Node", first: true, wide: true, cell: (node) => h("div", null, node.kind === "task" || node.task ? h("a", { class: "clip strong", title: node.name, href: to(`/tasks/${node.id}`) }, middle(node.name, 60)) : h("b", { class: "clip" }, middle(node.name, 60)),
      h("span", { class: "clip small faint" }, node.task ?? node.kind, node.children ? `, ${count(node.children.succeeded)} of ${count(node.children.total)} children` : "", node.error ? h("span", { class: "bad-text" }, ` ${node.error.type ?? node.error.code}: ${node.error.message}`) : null)) },
    { name: "State", bare: true, cell: (node) => h("span", { class: "row tight nowrap" }, chip(node.state), node.phase ? h("span", { class: "faint small" }, node.phase) : null) },
    { name: "After", cell: (node) => h("span", { class: "clip muted", title: [...node.needs, ...node.after].join(", ") }, middle([...node.needs, ...node.after].join(", ") || "–", 30)) },
    { name: "Agent", cell: (node) => (node.agent ? h("a", { href: to(`/agents/${part(node.agent)}`) }, middle(node.agent, 20)) : "–") },
    { name: "Ran", num: true, cell: (node) => (node.started_at ? length(between(node.started_at, node.finished_at)) : "–") },
    { name: "Actions", bare: true, cell: (node) => (node.signal && !over.includes(node.state) ? action("Signal", () => signal(screen, node), { kind: "small" }) : over.includes(node.state) && node.state !== "skipped" ? action("Rerun", () => rerun(screen, node), { kind: "small", sign: "retry" }) : "") },
  ], shown) : empty("No node fits."));
}

export default {
  title: (screen) => screen.data?.name ?? "Workflow",
  crumb: (screen) => screen.data?.name ?? screen.params.id.slice(-8),
  topics: (screen) => [`workflow:${screen.params.id}`],
  every: 15_000,
  load: (screen) => get(`/api/v1/workflows/${encodeURIComponent(screen.params.id)}`, screen.abort.signal),
  view(screen) {
    const flow = screen.data;
    const over = ["succeeded", "failed", "cancelled", "broken"].includes(flow.state);
    return [
      h("div", { class: "head" }, h("div", { class: "grow" }, h("h1", null, flow.name), h("div", { class: "row" }, chip(flow.state), h("code", { class: "muted wrap" }, flow.id), copyButton(flow.id, "Copy the id"))),
        h("div", { class: "row" }, flow.state === "failed" ? action("Resume", () => order(screen, "resume", "The workflow goes on."), { kind: "primary", sign: "play" }) : null, over ? null : action("Cancel", () => cancel(screen), { kind: "danger", sign: "stop" }))),
      flow.reason ? h("p", { class: "bad-text" }, flow.reason) : null,
      card("Graph", { flush: true, tools: h("span", { class: "small muted" }, flow.nodes.length > NODES_MAX ? "grouped by name" : `${count(flow.nodes.length)} nodes`) }, picture(flow, leads, () => screen.redraw())),
      card("Facts", {}, facts([["Nodes", progress(flow)], ["On failure", flow.policy.replaceAll("_", " ")], flow.failed_node ? ["Failed at", flow.failed_node] : null, ["Submitted", time(flow.created_at, instant)], flow.finished_at ? ["Finished", time(flow.finished_at, instant)] : null,
          ["Took", length(between(flow.created_at, flow.finished_at))], flow.schedule ? ["Schedule", h("a", { href: to(`/schedules/${part(flow.schedule)}`) }, flow.schedule)] : null,
          flow.trace_id ? ["Trace", h("span", { class: "row tight" }, h("code", { class: "wrap" }, flow.trace_id), copyButton(flow.trace_id, "Copy the trace id"))] : null])),
      card("When nodes ran", {}, gantt(flow.nodes, (node) => to(`/tasks/${node.id}`))),
      nodes(screen),
    ];
  },
};
