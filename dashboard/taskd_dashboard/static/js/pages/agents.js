// Agents: what each machine has, uses and runs; draining them.

import { get, post } from "../api.js";
import { bytes, count, middle } from "../format.js";
import { part, to } from "../router.js";
import { action, ask, attempt, bar, chip, cut, empty, h, sparkline, table } from "../parts.js";

const KEPT = 120;

/** What was seen of agents while pages of them were open: heartbeats tell of now, and the line of what came before. */
const seen = new Map();

export function note(agents) {
  const now = Date.now();
  for (const each of agents) {
    const kept = seen.get(each.name) ?? [];
    if (!kept.length || now - kept.at(-1).at > 1500) kept.push({ at: now, cpu: each.cpu_percent, memory: each.memory_used, running: each.running });
    seen.set(each.name, kept.slice(-KEPT));
  }
  for (const name of seen.keys()) if (!agents.some((each) => each.name === name) && agents.length > 1) seen.delete(name);
}

export const line = (name, field, how) => sparkline((seen.get(name) ?? []).map((each) => each[field]), `${name}: ${field} lately`, how);

export async function drain(screen, agent) {
  const yes = await ask(`Drain ${agent.name}?`, h("p", null, `It finishes the ${count(agent.running)} it runs and takes nothing new until it is resumed.`), { yes: "Drain" });
  if (yes === null) return;
  await attempt(() => post(`/api/v1/agents/${encodeURIComponent(agent.name)}/drain`), `${agent.name} takes nothing new.`);
  screen.load();
}

export async function resume(screen, agent) {
  await attempt(() => post(`/api/v1/agents/${encodeURIComponent(agent.name)}/resume`), `${agent.name} works again.`);
  screen.load();
}

export function deed(screen, agent) {
  return ["draining", "drained", "quarantined"].includes(agent.state)
    ? action("Resume", () => resume(screen, agent), { kind: "small primary", orders: true, sign: "play" })
    : action("Drain", () => drain(screen, agent), { kind: "small", orders: true, sign: "pause" });
}

export default {
  title: () => "Agents",
  topics: () => ["agents"],
  news(screen, topic, told) {
    if (told.count > told.agents.length) return false;
    note(told.agents);
    screen.data = told.agents;
    return true;
  },
  every: 30_000,
  async load(screen) {
    const { agents } = await get("/api/v1/agents", screen.abort.signal);
    note(agents);
    return agents;
  },
  view(screen) {
    const agents = screen.data;
    return [
      h("h1", { class: "sr" }, "Agents"),
      h("section", { class: "card", "aria-label": "Agents" }, agents.length ? table("Agents", [
        { name: "Agent", first: true, cell: (each) => h("a", { class: "clip strong", title: each.name, href: to(`/agents/${part(each.name)}`) }, middle(each.name, 40)) },
        { name: "State", bare: true, cell: (each) => h("span", { class: "row tight nowrap" }, chip(each.state), each.pressed ? h("span", { class: "chip warn", title: "Others keep its machine busy: it gets no more tasks that ask for CPUs" }, "pressed") : null) },
        { name: "Slots", bare: true, cell: (each) => h("div", { class: "row nowrap" }, h("span", { class: "num small" }, `${count(each.running)} / ${count(each.slots)}`), bar([["busy", each.running]], each.slots, `${each.running} of ${each.slots} slots run`)) },
        { name: "CPU", num: true, cell: (each) => `${Math.round(each.cpu_percent)} %` }, { name: "CPU lately", bare: true, cell: (each) => line(each.name, "cpu", { top: 100 }) },
        { name: "Memory", num: true, cell: (each) => h("span", { title: `of ${bytes(each.memory_total)}` }, bytes(each.memory_used)) }, { name: "Memory lately", bare: true, cell: (each) => line(each.name, "memory", { top: each.memory_total }) },
        { name: "Queues", cell: (each) => cut(each.queues.length ? each.queues.join(", ") : "all", "muted") },
        { name: "Actions", bare: true, cell: (each) => deed(screen, each) },
      ], agents) : empty("No agent is connected.", h("span", null, "Start one with ", h("code", null, "taskd agent MODULE"), ", or invite one from another machine: ", h("code", null, "taskd agents invite"), ".")) ),
    ];
  },
};
