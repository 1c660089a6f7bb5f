// Schedules: what fires when, next and last.

import { get } from "../api.js";
import { ago, instant, middle, time } from "../format.js";
import { part, to } from "../router.js";
import { chip, empty, h, table } from "../parts.js";
import { words } from "../cron.js";
import { deeds } from "./schedule.js";

export default {
  title: () => "Schedules",
  topics: () => ["schedules"],
  every: 15_000,
  load: (screen) => get(`/api/v1/schedules?limit=100&after=${encodeURIComponent(screen.query.get("after") ?? "")}`, screen.abort.signal),
  view(screen) {
    const { schedules, more } = screen.data;
    return [
      h("h1", { class: "sr" }, "Schedules"),
      h("section", { class: "card", "aria-label": "Schedules" }, schedules.length ? table("Schedules", [
        { name: "Schedule", first: true, cell: (each) => h("div", null, h("a", { class: "clip strong", title: each.name, href: to(`/schedules/${part(each.name)}`) }, middle(each.name, 44)), h("span", { class: "clip small faint" }, each.workflow ? `workflow ${each.workflow}` : each.task)) },
        { name: "State", bare: true, cell: (each) => h("span", { title: each.reason ?? "" }, chip(each.state)) },
        { name: "When", bare: true, wide: true, cell: (each) => h("div", null, h("span", { class: "clip", title: words(each.timing) }, words(each.timing)), h("code", { class: "clip faint small" }, [...each.timing.cron, each.timing.tz].join("  "))) },
        { name: "Next", num: true, cell: (each) => (each.next_at ? time(each.next_at, (iso) => `${ago(iso)}, ${instant(iso)}`) : "–") },
        { name: "Last", bare: true, cell: (each) => (each.last ? h("span", { class: "row tight nowrap" }, chip(each.last.task_state ?? each.last.workflow_state ?? each.last.outcome), time(each.last.at)) : "–") },
        { name: "Actions", bare: true, cell: (each) => deeds(screen, each) },
      ], schedules) : empty("Nothing is scheduled.", h("code", null, "@app.task(schedule=Cron(\"0 3 * * *\", tz=\"Europe/Oslo\"))"))),
      more ? h("a", { href: to("/schedules", { after: schedules.at(-1).name }) }, "More schedules") : null,
    ];
  },
};
