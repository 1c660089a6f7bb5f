// Agents: what each machine has, uses and runs; draining them.

import { get, post } from "../api.js";
import { bytes, count, middle } from "../format.js";
import { narrowed } from "../long.js";
import { part, to } from "../router.js";
import { action, ask, attempt, bar, chip, cut, empty, h, sparkline, table } from "../parts.js";

const RANGE_MS = 15 * 60_000;
const EVERY_MS = 5_000;
const LIST_EVERY = 3; // of the server's points, which are 10 s apart, in a list of many

/** What agents did over the last 15 minutes: the server's own memory, and what it has told since. */
const seen = new Map();

function keep(name, points) {
  const since = Date.now() - RANGE_MS;
  seen.set(name, points.filter((each) => each.at >= since));
}

export function note(agents) {
  const now = Date.now();
  const here = new Set(agents.map((each) => each.name));
  for (const each of agents) {
    const kept = seen.get(each.name) ?? [];
    if (kept.length < 2 || now - kept.at(-1).at > EVERY_MS) keep(each.name, [...kept, { at: now, cpu: each.cpu_percent, memory: each.memory_used, running: each.running }]);
  }
  for (const name of seen.keys()) if (!here.has(name) && agents.length > 1) seen.delete(name);
}

/** Ask the server for what came before, once for a page. */
export async function learn(screen, name = "") {
  if (screen.state.learned) return;
  const told = await get(`/api/v1/overview/agents?every=${name ? 1 : LIST_EVERY}&agent=${encodeURIComponent(name)}`, screen.abort.signal);
  screen.state.learned = true;
  for (const [agent, lately] of Object.entries(told.agents)) {
    const before = told.at_ms.map((at, n) => ({ at, cpu: lately.cpu_percent[n], memory: lately.memory_used[n], running: lately.running[n] })).filter((each) => each.cpu !== null);
    keep(agent, [...before, ...(seen.get(agent) ?? []).filter((each) => each.at > (before.at(-1)?.at ?? 0))]);
  }
}

export function line(name, field, how) {
  const points = seen.get(name) ?? [];
  return sparkline(points.map((each) => each[field]), `${name}: ${field}, the last 15 minutes`, { ...how, times: points.map((each) => each.at) });
}

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
    const [{ agents }] = await Promise.all([get("/api/v1/agents", screen.abort.signal), learn(screen)]);
    note(agents);
    return agents;
  },
  view(screen) {
    const { shown, above, below } = narrowed(screen, screen.data, "agents");
    return [
      h("h1", { class: "sr" }, "Agents"),
      above,
      h("section", { class: "card", "aria-label": "Agents" }, above && !shown.length ? empty("No agent has such a name.") : shown.length ? table("Agents", [
        { name: "Agent", first: true, cell: (each) => h("a", { class: "clip strong", title: each.name, href: to(`/agents/${part(each.name)}`) }, middle(each.name, 40)) },
        { name: "State", bare: true, cell: (each) => h("span", { class: "row tight nowrap" }, chip(each.state), each.pressed ? h("span", { class: "chip warn", title: "Others keep its machine busy: it gets no more tasks that ask for CPUs" }, "pressed") : null) },
        { name: "Slots", bare: true, cell: (each) => h("div", { class: "row nowrap" }, h("span", { class: "num small" }, `${count(each.running)} / ${count(each.slots)}`), bar([["busy", each.running]], each.slots, `${each.running} of ${each.slots} slots run`)) },
        { name: "CPU", num: true, cell: (each) => `${Math.round(each.cpu_percent)} %` }, { name: "CPU lately", bare: true, cell: (each) => line(each.name, "cpu", { top: 100 }) },
        { name: "Memory", num: true, cell: (each) => h("span", { title: `of ${bytes(each.memory_total)}` }, bytes(each.memory_used)) }, { name: "Memory lately", bare: true, cell: (each) => line(each.name, "memory", { top: each.memory_total }) },
        { name: "Queues", cell: (each) => cut(each.queues.length ? each.queues.join(", ") : "all", "muted") },
        { name: "Actions", bare: true, cell: (each) => deed(screen, each) },
      ], shown) : empty("No agent is connected.", h("span", null, "Start one with ", h("code", null, "taskd agent MODULE"), ", or invite one from another machine: ", h("code", null, "taskd agents invite"), "."))),
      below,
    ];
  },
};
