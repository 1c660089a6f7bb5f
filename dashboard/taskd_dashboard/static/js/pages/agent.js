// One agent: its machine, its resources, what runs there.

import { get } from "../api.js";
import { word } from "../filter.js";
import { between, bytes, count, length, middle } from "../format.js";
import { to } from "../router.js";
import { bar, card, chip, empty, facts, h, table } from "../parts.js";
import { deed, learn, line, note } from "./agents.js";

function amount(name, thousandths) {
  return name === "memory" || name.endsWith("memory") ? bytes(thousandths) : String(thousandths / 1000);
}

export default {
  title: (screen) => screen.params.name,
  crumb: (screen) => screen.params.name,
  topics: () => ["agents", "tasks"],
  every: 10_000,
  async load(screen) {
    const name = screen.params.name;
    const running = encodeURIComponent(`${word("agent", name)} state:running`);
    const ended = encodeURIComponent(word("agent", name));
    const [agent, now, before] = await Promise.all([get(`/api/v1/agents/${encodeURIComponent(name)}`, screen.abort.signal),
      get(`/api/v1/tasks?limit=50&filter=${running}`, screen.abort.signal), get(`/api/v1/tasks?limit=20&filter=${ended}`, screen.abort.signal), learn(screen, name)]);
    note([agent]);
    return { agent, running: now.tasks, before: before.tasks.filter((task) => task.state !== "running") };
  },
  view(screen) {
    const { agent, running, before } = screen.data;
    const tasks = (list) => table("Tasks", [
      { name: "Task", first: true, wide: true, cell: (task) => h("a", { class: "clip strong", title: task.name, href: to(`/tasks/${task.id}`) }, middle(task.name, 60)) },
      { name: "State", bare: true, cell: (task) => chip(task.state) }, { name: "Queue", cell: (task) => middle(task.queue, 26) },
      { name: "Ran", num: true, cell: (task) => h("span", { class: "num" }, length(between(task.started_at, task.finished_at))) },
    ], list);
    const gauge = (name, share, text, field, top) => h("div", { class: "tile" }, h("div", { class: "name" }, name), h("div", { class: "figure" }, text), bar([["busy", share]], 1, `${name} ${text}`), line(agent.name, field, { top, wide: true }));
    return [
      h("div", { class: "head" }, h("div", { class: "grow" }, h("h1", null, agent.name), h("div", { class: "row" }, chip(agent.state), agent.pressed ? h("span", { class: "chip warn" }, "pressed by others") : null)), deed(screen, agent)),
      h("div", { class: "tiles" }, gauge("Slots", agent.slots ? agent.running / agent.slots : 0, `${count(agent.running)} / ${count(agent.slots)}`, "running", agent.slots), gauge("CPU", agent.cpu_percent / 100, `${Math.round(agent.cpu_percent)} %`, "cpu", 100),
        gauge("Memory", agent.memory_total ? agent.memory_used / agent.memory_total : 0, bytes(agent.memory_used), "memory", agent.memory_total)),
      card("Runs now", { flush: true, tools: h("a", { class: "small", href: to("/tasks", { filter: word("agent", agent.name) }) }, "All its tasks") }, running.length ? tasks(running) : empty("Nothing runs here now.")),
      h("div", { class: "grid" },
        card("Resources", { flush: true }, Object.keys(agent.resources).length ? table("Resources", [
          { name: "Resource", first: true, cell: ([name]) => name }, { name: "Free", num: true, cell: ([name, stock]) => amount(name, stock.free) }, { name: "Of", num: true, cell: ([name, stock]) => amount(name, stock.total) },
          { name: "Use", bare: true, cell: ([name, stock]) => bar([["busy", stock.total - stock.free]], stock.total, `${name} in use`) },
        ], Object.entries(agent.resources), { key: ([name]) => name }) : empty("It offers slots alone.")),
        card("Facts", {}, facts([["Labels", Object.keys(agent.labels).length ? Object.entries(agent.labels).map(([name, text]) => h("code", null, `${name}=${text} `)) : "none"],
          ["Queues", agent.queues.length ? agent.queues.join(", ") : "all"], ["Boot", h("code", null, agent.boot_id)], ["Knows", h("details", null, h("summary", null, `${count(agent.task_names.length)} tasks`), h("ul", { class: "mono small" }, agent.task_names.map((name) => h("li", { class: "wrap" }, name))))]]))),
      card("Ran here lately", { flush: true }, before.length ? tasks(before) : empty("Nothing yet.")),
    ];
  },
};
