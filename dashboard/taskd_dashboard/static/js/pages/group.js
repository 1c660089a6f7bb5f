// One kind of death: the error, and the newest of those who died of it.

import { get } from "../api.js";
import { count, length, between, middle, tail, time } from "../format.js";
import { to } from "../router.js";
import { action, card, facts, h, table } from "../parts.js";
import { bulk } from "./tasks.js";

export default {
  title: (screen) => screen.data?.type ?? "Dead letters",
  crumb: (screen) => screen.data?.type || screen.params.group.slice(0, 8),
  topics: () => ["dead"],
  every: 15_000,
  load: (screen) => get(`/api/v1/dead/${encodeURIComponent(screen.params.group)}`, screen.abort.signal),
  view(screen) {
    const group = screen.data;
    const filter = `group:${group.group}`;
    return [
      h("div", { class: "head" }, h("div", { class: "grow" }, h("h1", null, group.type || "No exception"), h("p", { class: "wrap" }, group.message)),
        h("div", { class: "row" }, action("Retry all…", () => bulk("retry", filter, () => screen.load()), { kind: "primary", sign: "retry" }), action("Purge…", () => bulk("purge", filter, () => screen.load()), { kind: "danger" }))),
      card("Facts", {}, facts([["Tasks", h("a", { href: to("/tasks", { filter }) }, count(group.count))], group.place ? ["In", h("code", null, group.place)] : null, ["First", time(group.first_at)], ["Last", time(group.last_at)], ["Group", h("code", null, group.group)]])),
      card("The newest", { flush: true, tools: h("a", { class: "small", href: to("/tasks", { filter }) }, "All of them") }, table("Tasks that died of this", [
        { name: "Task", first: true, wide: true, cell: (task) => h("div", null, h("a", { class: "clip strong", title: task.name, href: to(`/tasks/${task.id}`) }, middle(task.name, 60)), h("span", { class: "clip small faint" }, h("code", null, tail(task.id)), " ", task.error?.message ?? "")) },
        { name: "Queue", cell: (task) => middle(task.queue, 26) }, { name: "Attempts", num: true, cell: (task) => task.attempt }, { name: "Died", num: true, cell: (task) => time(task.finished_at) }, { name: "Ran", num: true, cell: (task) => length(between(task.started_at, task.finished_at)) },
      ], group.tasks)),
    ];
  },
};
