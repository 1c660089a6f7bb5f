// One schedule: its next five firings, what was decided of the last ones, and who defines it.

import { get, post } from "../api.js";
import { ago, instant, length, time } from "../format.js";
import { to } from "../router.js";
import { action, ask, attempt, card, chip, empty, facts, h, table } from "../parts.js";
import { words } from "../cron.js";

const path = (name, deed) => `/api/v1/schedules/${encodeURIComponent(name)}/${deed}`;

async function order(screen, schedule, deed, done) {
  await attempt(() => post(path(schedule.name, deed)), done);
  screen.load();
}

async function remove(screen, schedule) {
  const again = schedule.source ? h("p", { class: "warn-text" }, `It is defined in code by ${schedule.source}: it comes back when an agent loads that module.`) : null;
  if ((await ask(`Remove ${schedule.name}?`, h("div", null, h("p", null, "It goes with its history; what it has submitted goes on."), again), { yes: "Remove", danger: true })) === null) return;
  await order(screen, schedule, "remove", `${schedule.name} is removed.`);
}

export function deeds(screen, schedule) {
  return h("div", { class: "row tight" },
    schedule.state === "paused" ? action("Resume", () => order(screen, schedule, "resume", `${schedule.name} fires again.`), { kind: "small primary", sign: "play" })
      : action("Pause", () => order(screen, schedule, "pause", `${schedule.name} fires no more.`), { kind: "small", sign: "pause" }),
    action("Run now", () => order(screen, schedule, "trigger", `${schedule.name} was submitted, beside its times.`), { kind: "small", sign: "run" }));
}

export default {
  title: (screen) => screen.params.name,
  crumb: (screen) => screen.params.name,
  topics: () => ["schedules"],
  every: 15_000,
  async load(screen) {
    const name = encodeURIComponent(screen.params.name);
    const [schedule, history] = await Promise.all([get(`/api/v1/schedules/${name}`, screen.abort.signal), get(`/api/v1/schedules/${name}/history?limit=50`, screen.abort.signal)]);
    return { schedule, firings: history.firings };
  },
  view(screen) {
    const { schedule, firings } = screen.data;
    const { timing } = schedule;
    const link = (firing) => (firing.task ? h("a", { href: to(`/tasks/${firing.task}`) }, firing.task.slice(-12)) : firing.workflow ? h("a", { href: to(`/workflows/${firing.workflow}`) }, firing.workflow.slice(-12)) : "–");
    return [
      h("div", { class: "head" }, h("div", { class: "grow" }, h("h1", null, schedule.name), h("div", { class: "row" }, chip(schedule.state), schedule.reason ? h("span", { class: schedule.state === "broken" ? "bad-text" : "muted" }, schedule.reason) : null,
        schedule.source ? h("span", { class: "muted" }, "defined in code by ", h("code", null, schedule.source), schedule.orphaned ? ", which no longer says so" : "") : null)), h("div", { class: "row" }, deeds(screen, schedule), action("Remove", () => remove(screen, schedule), { kind: "small danger" }))),
      h("div", { class: "grid" },
        card("Next firings", {}, schedule.state === "paused" && schedule.upcoming.length ? h("p", { class: "warn-text" }, "It is paused. Otherwise it would fire:") : null, schedule.upcoming.length ? h("ol", { class: "timeline" }, schedule.upcoming.map((each) => h("li", { class: "wait" }, h("div", { class: "what" }, h("b", null, ago(each.at)), h("time", { class: "muted num", datetime: each.at, title: each.at }, instant(each.at)), each.note ? h("span", { class: "warn-text small" }, each.note) : null))))
          : empty("No time comes any more.")),
        card("Facts", {}, facts([["When", words(timing)], timing.cron.length ? ["Cron", timing.cron.map((line) => h("code", null, `${line} `))] : null, ["Zone", timing.tz],
          schedule.workflow ? ["Workflow", `${schedule.workflow}, ${schedule.node_count} nodes`] : ["Task", h("code", null, schedule.task)], schedule.queue ? ["Queue", schedule.queue] : null,
          ["If one still runs", { skip: "skip this time", allow: "run beside it", queue_one: "wait for its end", cancel_running: "cancel it" }[schedule.overlap] ?? schedule.overlap],
          ["If missed", { latest: "run the latest once", skip: "leave out", all: "run all" }[schedule.missed] ?? schedule.missed],
          schedule.jitter_s ? ["Spread over", length(schedule.jitter_s * 1000)] : null, timing.not_on.length ? ["Not on", timing.not_on.join(", ")] : null, schedule.failures ? ["Failures in a row", schedule.failures] : null]))),
      card("History", { flush: true }, firings.length ? table("What was decided of its times", [
        { name: "Time", first: true, cell: (firing) => h("span", null, instant(firing.at), firing.count > 1 ? h("span", { class: "faint" }, ` to ${instant(firing.until)}, ${firing.count} times`) : null) },
        { name: "Decision", bare: true, cell: (firing) => h("span", { class: "row tight" }, chip(firing.outcome), firing.reason ? h("span", { class: "muted small" }, firing.reason) : null) },
        { name: "Made", cell: link }, { name: "Became", bare: true, cell: (firing) => ((firing.task_state ?? firing.workflow_state) ? chip(firing.task_state ?? firing.workflow_state) : "–") }, { name: "Decided", num: true, cell: (firing) => time(firing.decided_at) },
      ], firings, { key: (firing) => `${firing.at}${firing.decided_at}${firing.outcome}` }) : empty("It has not fired yet.")),
    ];
  },
};
