// The overview: what the server does now, and did over the last minutes or the last day.

import { get } from "../api.js";
import { Chart } from "../charts.js";
import { brief, bytes, count, length, plural } from "../format.js";
import { part, setQuery, to } from "../router.js";
import { note } from "./agents.js";
import { bar, card, choice, chip, empty, h, sparkline, table } from "../parts.js";

const RANGES = [["15m", "15 min"], ["1h", "1 h"], ["6h", "6 h"], ["24h", "24 h"]];

const ROWS = 8;

function range(screen) {
  const said = screen.query.get("range");
  return RANGES.some(([each]) => each === said) ? said : "15m";
}

function charts(screen) {
  if (screen.state.charts) return screen.state.charts;
  const made = {
    flow: new Chart("Throughput", ["submitted", "succeeded", "failed"], { form: "rate" }),
    wait: new Chart("Time in line", ["p50", "p95", "p99"], { form: "ms" }),
    run: new Chart("Run time", ["p50", "p95", "p99"], { form: "ms" }),
    depth: new Chart("Tasks that wait or run", ["ready", "running", "scheduled"]),
    failures: new Chart("Failures", ["retried", "failed", "cancelled"], { form: "rate" }),
  };
  for (const chart of Object.values(made)) chart.onpoint = () => screen.redraw();
  screen.state.charts = made;
  return made;
}

/** The API tells columns; charts and rows want points. */
export function pointsOf(told) {
  return told.at_ms.map((at_ms, at) => ({
    at_ms, span_ms: told.span_ms[at], submitted: told.submitted[at], succeeded: told.succeeded[at], failed: told.failed[at], cancelled: told.cancelled[at], retried: told.retried[at],
    ready: told.ready[at], scheduled: told.scheduled[at], blocked: told.blocked[at], running: told.running[at], queues: told.queues[at],
    waits_ms: [told.wait_p50_ms[at], told.wait_p95_ms[at], told.wait_p99_ms[at]], runs_ms: [told.run_p50_ms[at], told.run_p95_ms[at], told.run_p99_ms[at]],
  }));
}

/** How deep a queue was at each point. */
export function depths(points, name) {
  return points.map((point) => point.queues.find((each) => each.queue === name)?.ready ?? 0);
}

const perSecond = (value, point) => (point.span_ms ? value * 1000 / point.span_ms : 0);

function fill(screen) {
  const { points } = screen.data;
  const made = charts(screen);
  made.flow.set(points, (p) => [perSecond(p.submitted, p), perSecond(p.succeeded, p), perSecond(p.failed, p)]);
  made.wait.set(points, (p) => p.waits_ms);
  made.run.set(points, (p) => p.runs_ms);
  made.depth.set(points, (p) => [p.ready, p.running, p.scheduled]);
  made.failures.set(points, (p) => [perSecond(p.retried, p), perSecond(p.failed, p), perSecond(p.cancelled, p)]);
}

function tile(name, figure, note, path, bad = false) {
  return h("a", { class: bad ? "tile bad" : "tile", href: path }, h("div", { class: "name" }, name), h("div", { class: "figure", "data-figure": name }, figure), h("div", { class: "note" }, note || "\u00a0"));
}

function tiles(screen) {
  const { points, dead, tasks, newest } = screen.data;
  const last = newest ?? points.at(-1);
  const stand = (...states) => states.reduce((all, state) => all + (tasks[state] ?? 0), 0);
  const { live, slots } = screen.data.force;
  const off = screen.data.force.count - live;
  return h("div", { class: "tiles" },
    tile("Finished", last ? `${brief(perSecond(last.succeeded + last.failed, last))}/s` : "–", last ? `${brief(perSecond(last.submitted, last))}/s submitted` : "", to("/tasks", { filter: "state:succeeded" })),
    tile("Running", count(stand("running", "cancelling")), slots ? `of ${count(slots)} slots` : "no slots", to("/tasks", { filter: "state:running" })),
    tile("Ready", count(stand("ready")), last && last.waits_ms[1] !== null ? `p95 wait ${length(last.waits_ms[1])}` : "", to("/tasks", { filter: "state:ready" })),
    tile("Scheduled", count(stand("scheduled")), tasks.blocked ? `${count(tasks.blocked)} blocked` : "", to("/tasks", { filter: "state:scheduled" })),
    tile("Dead letters", count(dead.tasks_count), dead.groups_count ? plural(dead.groups_count, "kind of error", "kinds of error") : "", to("/dead"), dead.tasks_count > 0),
    tile("Agents", count(live), !live && !off ? "none is connected" : off ? `${count(off)} not live` : "all live", to("/agents"), live === 0));
}

function queueCard(screen) {
  const { queues, points } = screen.data;
  const most = Math.max(1, ...queues.map((queue) => queue.ready + queue.running));
  const rows = [...queues].sort((a, b) => b.ready + b.running - a.ready - a.running).slice(0, ROWS);
  const depth = (queue) => (points.some((p) => p.queues.some((each) => each.queue === queue.name)) ? sparkline(depths(points.slice(-60), queue.name), `Depth of ${queue.name}`)
    : bar([["wait", queue.ready], ["busy", queue.running]], most, `${queue.ready} ready, ${queue.running} running`));
  return card("Queues", { flush: true, tools: h("a", { class: "small", href: to("/queues") }, "All queues") }, rows.length ? table("Queues in which most waits", [
    { name: "Queue", first: true, cell: (queue) => h("a", { class: "clip", title: queue.name, href: to("/queues", { queue: queue.name }) }, queue.name) },
    { name: "Ready", num: true, cell: (queue) => count(queue.ready) }, { name: "Running", num: true, cell: (queue) => count(queue.running) }, { name: "Depth", bare: true, cell: depth },
  ], rows) : empty("No queue has work.", "Submit a task and it shows here."));
}

function agentCard(screen) {
  const rows = [...screen.data.agents].sort((a, b) => b.running - a.running).slice(0, ROWS);
  return card("Agents", { flush: true, tools: h("a", { class: "small", href: to("/agents") }, "All agents") }, rows.length ? table("Agents", [
    { name: "Agent", first: true, cell: (each) => h("a", { class: "clip", title: each.name, href: to(`/agents/${part(each.name)}`) }, each.name) }, { name: "State", bare: true, cell: (each) => chip(each.state) },
    { name: "Running", num: true, cell: (each) => `${count(each.running)} / ${count(each.slots)}` }, { name: "CPU", num: true, cell: (each) => `${Math.round(each.cpu_percent)} %` }, { name: "Memory", num: true, cell: (each) => bytes(each.memory_used) },
  ], rows) : empty("No agent is connected.", h("code", null, "taskd agent MODULE")));
}

const sum = (rows, field) => rows.reduce((all, row) => all + row[field], 0);

export default {
  title: () => "Overview",
  every: 30_000,
  topics: () => ["overview", "queues", "agents", "dead"],
  news(screen, topic, told) {
    const { data } = screen;
    if (topic === "queues") data.queues = told.queues;
    else if (topic === "agents") {
      data.agents = told.agents;
      data.force = told;
      if (told.count === told.agents.length) note(told.agents);
    }
    else if (topic === "overview") {
      data.tasks = told.tasks;
      const [newest] = pointsOf(told.newest);
      if (newest && newest.at_ms !== data.newest?.at_ms) {
        data.newest = newest;
        if (range(screen) === "15m" && newest.at_ms > (data.points.at(-1)?.at_ms ?? 0)) {
          data.points = [...data.points, newest].filter((point) => point.at_ms > newest.at_ms - 15 * 60_000);
          fill(screen);
        }
      }
    } else return false;
    return true;
  },
  async load(screen) {
    const [overview, queues, agents, dead] = await Promise.all([
      get(`/api/v1/overview?range=${range(screen)}`, screen.abort.signal), get("/api/v1/queues", screen.abort.signal),
      get("/api/v1/agents", screen.abort.signal), get("/api/v1/dead?limit=1", screen.abort.signal),
    ]);
    const points = pointsOf(overview);
    const tasks = screen.data?.tasks ?? { ready: sum(queues.queues, "ready"), running: sum(queues.queues, "running"), scheduled: sum(queues.queues, "scheduled") };
    const [before, last] = [screen.data?.newest ?? null, range(screen) === "15m" ? points.at(-1) ?? null : null];
    const newest = (last?.at_ms ?? 0) > (before?.at_ms ?? 0) ? last : before;
    const force = { count: agents.agents.length, live: agents.agents.filter((each) => each.state === "live").length, slots: sum(agents.agents, "slots") };
    screen.data = { points, queues: queues.queues, agents: agents.agents, force, dead, tasks, newest };
    fill(screen);
    return screen.data;
  },
  leave: (screen) => Object.values(screen.state.charts ?? {}).forEach((chart) => chart.close()),
  view(screen) {
    const made = charts(screen);
    const { points } = screen.data;
    return [
      h("div", { class: "row" }, h("h1", { class: "sr" }, "Overview"), h("span", { class: "grow muted only-wide" }, "What the server does, and did"), choice("Range", RANGES, range(screen), (value) => setQuery({ range: value }, { replace: true }))),
      tiles(screen),
      points.length ? null : h("p", { class: "muted" }, "The first figures come within seconds of the server's start."),
      h("div", { class: "grid" },
        card("Throughput", {}, made.flow.element()), card("Tasks that wait or run", {}, made.depth.element()),
        card("Time in line", {}, made.wait.element()), card("Run time", {}, made.run.element()),
        card("Failures", {}, made.failures.element()), h("div", { class: "stack" }, queueCard(screen), agentCard(screen))),
    ];
  },
};
