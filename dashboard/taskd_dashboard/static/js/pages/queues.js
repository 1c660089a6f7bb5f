// Queues: how much waits where; pausing, draining, weighing and limiting them.

import { get, post } from "../api.js";
import { word } from "../filter.js";
import { count, middle } from "../format.js";
import { narrowed } from "../long.js";
import { to } from "../router.js";
import { depths, pointsOf } from "./overview.js";
import { action, ask, attempt, chip, empty, h, sparkline, table } from "../parts.js";

const path = (name, deed) => `/api/v1/queues/${encodeURIComponent(name)}/${deed}`;

async function order(screen, queue, deed, done) {
  await attempt(() => post(path(queue.name, deed)), done);
  screen.load();
}

async function weigh(screen, queue) {
  const answer = await ask(`Weight of ${queue.name}`, h("label", { class: "line" }, "Tasks it is granted for each one of a queue of weight 1", h("input", { class: "field", type: "number", name: "weight", min: 1, max: 1000, required: true, value: queue.weight })), { yes: "Set" });
  if (answer) {
    await attempt(() => post(path(queue.name, "weight"), { weight: Number(answer.weight) }), `${queue.name} has weight ${answer.weight}.`);
    screen.load();
  }
}

async function limit(screen, queue, now) {
  const answer = await ask(`Limit of ${queue.name}`, h("div", { class: "grid" },
    h("label", { class: "line" }, "At most running at a time (0: any number)", h("input", { class: "field", type: "number", name: "concurrency", min: 0, value: now?.concurrency ?? 0 })),
    h("label", { class: "line" }, "At most beginning in a time", h("input", { class: "field", name: "rate", placeholder: "100/s, 10/m, 5/2h; empty: any", value: now?.rate ?? "" }))), { yes: "Set" });
  if (!answer) return;
  const name = encodeURIComponent(`queue:${queue.name}`);
  const wanted = { concurrency: Number(answer.concurrency), rate: answer.rate.trim() };
  if (!wanted.concurrency && !wanted.rate) {
    if (now) await attempt(() => post(`/api/v1/limits/${name}/remove`), "The limit is removed.");
  } else await attempt(() => post(`/api/v1/limits/${name}/set`, wanted), "The limit holds.");
  screen.load();
}

function deeds(screen, queue, now) {
  const off = queue.paused || queue.draining;
  return h("div", { class: "row tight" },
    off ? action("Resume", () => order(screen, queue, "resume", `${queue.name} goes on.`), { kind: "small primary", orders: true, sign: "play" })
      : action("Pause", () => order(screen, queue, "pause", `Nothing of ${queue.name} begins any more.`), { kind: "small", orders: true, sign: "pause" }),
    queue.draining ? null : action("Drain", () => order(screen, queue, "drain", `${queue.name} takes no new tasks.`), { kind: "small", orders: true }),
    action("Weight", () => weigh(screen, queue), { kind: "small", orders: true }), action("Limit", () => limit(screen, queue, now), { kind: "small", orders: true }));
}

function limitText(now) {
  if (!now) return h("span", { class: "faint" }, "–");
  const parts = [now.concurrency ? `${count(now.running)} of ${count(now.concurrency)} running` : null, now.rate ? now.rate : null].filter(Boolean);
  return h("span", null, parts.join(", "), now.source ? h("span", { class: "faint small", title: "It is set again when that module is loaded" }, ` defined in code by ${now.source}`) : null);
}

export default {
  title: () => "Queues",
  topics: () => ["queues", "limits", "overview"],
  news(screen, topic, told) {
    if (topic === "queues" && told.count <= told.queues.length) screen.data.queues = told.queues;
    else if (topic === "overview") {
      const [newest] = pointsOf(told.newest);
      if (newest && newest.at_ms > (screen.data.points.at(-1)?.at_ms ?? 0)) screen.data.points = [...screen.data.points, newest].slice(-150);
    } else return false;
    return true;
  },
  every: 30_000,
  async load(screen) {
    const [queues, limits, overview] = await Promise.all([get("/api/v1/queues", screen.abort.signal), get("/api/v1/limits", screen.abort.signal), get("/api/v1/overview?range=15m", screen.abort.signal)]);
    return { queues: queues.queues, limits: new Map(limits.limits.map((each) => [each.name, each])), points: pointsOf(overview).slice(-150) };
  },
  view(screen) {
    const { queues, limits, points } = screen.data;
    const only = screen.query.get("queue");
    const { shown, above, below } = narrowed(screen, only ? queues.filter((queue) => queue.name === only) : queues, "queues");
    return [
      h("h1", { class: "sr" }, "Queues"),
      only ? h("div", { class: "row" }, h("span", null, "Only ", h("b", null, only)), h("a", { href: to("/queues") }, "All queues")) : null,
      above,
      h("section", { class: "card", "aria-label": "Queues" }, shown.length ? table("Queues", [
        { name: "Queue", first: true, cell: (queue) => h("div", { class: "row tight nowrap" }, h("a", { class: "clip strong", title: queue.name, href: to("/tasks", { filter: word("queue", queue.name) }) }, middle(queue.name, 40)), queue.paused ? chip("paused") : null, queue.draining ? chip("draining") : null) },
        { name: "Ready", num: true, cell: (queue) => count(queue.ready) }, { name: "Running", num: true, cell: (queue) => count(queue.running) }, { name: "Scheduled", num: true, cell: (queue) => count(queue.scheduled) },
        { name: "Depth, 5 min", bare: true, cell: (queue) => sparkline(depths(points, queue.name), `Ready in ${queue.name} over five minutes`) },
        { name: "Weight", num: true, cell: (queue) => queue.weight }, { name: "Limit", cell: (queue) => limitText(limits.get(`queue:${queue.name}`)) },
        { name: "Actions", bare: true, cell: (queue) => deeds(screen, queue, limits.get(`queue:${queue.name}`)) },
      ], shown) : empty(above ? "No queue has such a name." : only ? `No queue ${only} has work.` : "No queue has work.", "A queue is there while it holds tasks, or something was ordered of it.")),
      below,
    ];
  },
};
