// Dead letters: what tasks died of, the newest first, each kind tried again as a whole.

import { get } from "../api.js";
import { count, plural, time } from "../format.js";
import { to } from "../router.js";
import { action, bar, empty, h, table } from "../parts.js";
import { bulk } from "./tasks.js";

export default {
  title: () => "Dead letters",
  topics: () => ["dead"],
  every: 15_000,
  load: (screen) => get("/api/v1/dead?limit=200", screen.abort.signal),
  view(screen) {
    const { groups, groups_count: all, tasks_count: tasks } = screen.data;
    const most = Math.max(1, ...groups.map((group) => group.count));
    return [
      h("div", { class: "head" }, h("div", { class: "grow" }, h("h1", null, "Dead letters"), h("p", { class: "muted" }, tasks ? `${plural(tasks, "task")} died of ${plural(all, "kind")} of error.` : "Tasks whose attempts are spent.")),
        tasks ? action("Retry all…", () => bulk("retry", "state:dead", () => screen.load()), { sign: "retry" }) : null),
      h("section", { class: "card", "aria-label": "Groups" }, groups.length ? table("What tasks died of", [
        { name: "Error", first: true, wide: true, cell: (group) => h("div", null, h("a", { class: "clip strong", title: group.type, href: to(`/dead/${group.group}`) }, group.type || "No exception"),
          h("span", { class: "clip small", title: group.message }, group.message), group.place ? h("code", { class: "clip faint small", title: group.place }, group.place) : null) },
        { name: "Tasks", num: true, cell: (group) => count(group.count) }, { name: "Share", bare: true, cell: (group) => bar([["bad", group.count]], most, plural(group.count, "task")) },
        { name: "First", num: true, cell: (group) => time(group.first_at) }, { name: "Last", num: true, cell: (group) => time(group.last_at) },
        { name: "Actions", bare: true, cell: (group) => h("div", { class: "row tight" }, action("Retry…", () => bulk("retry", `group:${group.group}`, () => screen.load()), { kind: "small", sign: "retry" }), action("Purge…", () => bulk("purge", `group:${group.group}`, () => screen.load()), { kind: "small danger" })) },
      ], groups, { key: (group) => group.group }) : empty("Nothing is dead.", "A task whose attempts are spent waits here for a person.")),
      all > groups.length ? h("p", { class: "muted" }, `${count(all - groups.length)} more kinds are not shown.`) : null,
    ];
  },
};
