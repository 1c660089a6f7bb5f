// One task: where it stands and why, each attempt, what it was given, what it returned, what it says while it runs.

import { BASE, get, post } from "../api.js";
import { word } from "../filter.js";
import { between, bytes, count, instant, laidOut, length, tail, time } from "../format.js";
import { Logs } from "../logs.js";
import { part, to } from "../router.js";
import { action, ask, attempt, card, chip, copyButton, facts, h, tone } from "../parts.js";

const OVER = new Set(["succeeded", "dead", "cancelled", "expired", "skipped"]);

export function fault(error) {
  return h("div", null,
    h("p", { class: "wrap" }, error.type ? h("b", { class: "bad-text" }, `${error.type}: `) : null, error.message, " ", h("code", { class: "faint" }, error.code)),
    error.traceback ? h("details", { open: true }, h("summary", { class: "small" }, "Traceback"), h("pre", { class: "code" }, error.traceback)) : null);
}

function value(screen, title, told, path) {
  const { id } = screen.data.task;
  const tools = [told.plain ? null : h("span", { class: "faint small", title: "It holds what JSON has no word for; that is told as text or in base64" }, "shown as text"),
    h("span", { class: "faint small num" }, bytes(told.bytes)), told.text === null ? null : copyButton(told.text, `Copy the ${title.toLowerCase()}`)];
  const body = told.text === null ? h("p", { class: "muted" }, "Only the task's own modules can read this.") : h("pre", { class: "code", tabindex: "0", role: "region", "aria-label": title }, laidOut(told.text));
  return card(title, { tools }, body, told.whole ? null : h("p", { class: "small" }, "This is its beginning. ", h("a", { href: `${BASE}/api/v1/tasks/${id}/${path}`, target: "_blank", rel: "noopener" }, "All of it"), "."));
}

function timeline(task, explained) {
  const waited = new Map((explained?.waited ?? []).map((each) => [each.attempt, each.for]));
  const rows = [["", "Submitted", task.created_at, null]];
  for (const each of task.attempts) {
    rows.push([tone(each.outcome) || "warn", [`Attempt ${each.attempt} `, h("span", { class: "muted" }, each.outcome)], each.started_at,
      h("div", { class: "small" }, h("span", { class: "muted" }, "on ", h("a", { href: to(`/agents/${part(each.agent)}`) }, each.agent || "?"), ` for ${length(between(each.started_at, each.finished_at))}`),
        waitedFor(waited.get(each.attempt)), each.error ? h("details", null, h("summary", { class: "bad-text" }, `${each.error.type ?? each.error.code}: ${each.error.message.slice(0, 160)}`), each.error.traceback ? h("pre", { class: "code" }, each.error.traceback) : null) : null)]);
  }
  if (task.state === "running" || task.state === "cancelling") {
    rows.push(["busy", [`Attempt ${task.attempt} `, h("span", { class: "muted" }, task.state)], task.started_at,
      h("div", { class: "small muted" }, "on ", h("a", { href: to(`/agents/${part(task.agent ?? "")}`) }, task.agent), task.started_at ? ` for ${length(between(task.started_at))}` : "", waitedFor(waited.get(task.attempt)))]);
  } else if (OVER.has(task.state)) {
    rows.push([tone(task.state) || "warn", task.state === "succeeded" ? "Succeeded" : task.state === "dead" ? "Dead: no attempt is left" : task.state, task.finished_at,
      h("div", { class: "small muted" }, `${length(between(task.created_at, task.finished_at))} after it was submitted`)]);
  } else {
    rows.push(["wait", task.state === "scheduled" ? "Scheduled" : "Waits", task.due_at, task.waits_for ? h("div", { class: "small muted" }, task.waits_for) : null]);
  }
  return h("ol", { class: "timeline" }, rows.map(([kind, what, at, more]) => h("li", { class: kind || null }, h("div", null,
    h("div", { class: "what" }, h("b", null, what), at ? h("time", { class: "faint small num", datetime: at, title: at }, instant(at)) : null), more))));
}

function waitedFor(spans) {
  if (!spans?.length) return null;
  return h("span", { class: "muted" }, "; waited ", spans.map((span, at) => `${at ? ", " : ""}${length(span.ms)} for ${span.code}${span.subject ? ` ${span.subject}` : ""}`));
}

function explain(told) {
  if (!told || OVER.has(told.state)) return null;
  const reason = told.waits_for;
  if (!reason && !told.place && !told.impossible && !told.agents.length) return null;
  const rows = [
    reason ? ["Waits for", reason.text] : null,
    told.place ? ["Place in line", told.place.exact ? `${count(told.place.ahead)} ahead of ${count(told.place.ready)} ready` : `at least ${count(told.place.ahead_at_least)} ahead`] : null,
    told.starts_in_s !== null ? ["Starts in about", length(told.starts_in_s * 1000)] : null,
    told.granted_per_minute ? ["Granted of its line", `${told.granted_per_minute.toFixed(1)} a minute`] : null,
    told.kept_free ? ["Kept free for it", told.kept_free] : null,
    told.agent ? ["Agent", told.agent] : null,
    told.holds?.length ? ["Holds", told.holds.map((hold) => hold.name).join(", ")] : null,
  ];
  return card("Why it is where it is", {}, told.impossible ? h("p", { class: "bad-text strong" }, "No agent that is connected could ever run it.") : null, facts(rows),
    told.agents.length ? h("ul", { class: "small" }, told.agents.map((each) => h("li", { class: "row" }, h("b", null, each.agent), h("span", { class: each.never ? "bad-text" : "muted" }, each.text)))) : null);
}

async function cancel(screen) {
  const { task } = screen.data;
  const yes = await ask("Cancel this task?", h("p", null, task.state === "running" ? "Its process is ended; the task is cancelled when that is proven." : "It will not run."), { yes: "Cancel the task", danger: true });
  if (yes !== null) {
    await attempt(() => post(`/api/v1/tasks/${task.id}/cancel`), (told) => `The task is ${told.state}.`);
    screen.load();
  }
}

async function deed(screen, path, done) {
  await attempt(() => post(`/api/v1/tasks/${screen.data.task.id}/${path}`), (told) => `${done}${told.state ? `: it is ${told.state}` : ""}.`);
  screen.load();
}

function logs(screen) {
  screen.state.logs ??= new Logs(screen.params.id, () => screen.redraw());
  return screen.state.logs;
}

export default {
  title: (screen) => screen.data?.task.name ?? "Task",
  crumb: (screen) => screen.data?.task.name ?? tail(screen.params.id),
  topics: (screen) => [`task:${screen.params.id}`],
  every: 10_000,
  async load(screen) {
    const path = `/api/v1/tasks/${encodeURIComponent(screen.params.id)}`;
    const [task, explained] = await Promise.all([get(path, screen.abort.signal), get(`${path}/explain`, screen.abort.signal).catch(() => null)]);
    logs(screen).follow(task);
    return { task, explained };
  },
  leave: (screen) => screen.state.logs?.close(),
  view(screen) {
    const { task, explained } = screen.data;
    const over = OVER.has(task.state);
    return [
      h("div", { class: "head" },
        h("div", { class: "grow" }, h("h1", null, task.name), h("div", { class: "row" }, chip(task.state), h("code", { class: "muted wrap" }, task.id), copyButton(task.id, "Copy the id"))),
        h("div", { class: "row" },
          task.state === "scheduled" ? action("Run now", () => deed(screen, "run", "Its wait is over"), { sign: "run" }) : null,
          ["dead", "cancelled", "expired"].includes(task.state) ? action("Retry", () => deed(screen, "retry", "It gets its attempts anew"), { kind: "primary", sign: "retry" }) : null,
          over ? null : action("Cancel", () => cancel(screen), { kind: "danger", sign: "stop" }))),
      task.error ? card("Error", { tools: copyButton([task.error.type, task.error.message, task.error.traceback].filter(Boolean).join("\n"), "Copy the error") }, fault(task.error)) : null,
      h("div", { class: "grid" },
        card("Timeline", {}, timeline(task, explained)),
        card("Facts", {}, facts([
          ["Queue", h("a", { href: to("/tasks", { filter: word("queue", task.queue) }) }, task.queue)],
          ["Priority", task.priority], ["Attempts", `${task.attempt} so far; ${task.failures} of ${task.max_attempts} charged${task.crashes ? `, ${task.crashes} of ${task.crash_limit} crashes` : ""}`],
          task.agent ? ["Agent", h("a", { href: to(`/agents/${part(task.agent)}`) }, task.agent)] : null,
          ["Submitted", time(task.created_at, instant)], task.due_at && !over ? ["Due", time(task.due_at)] : null, task.started_at ? ["Started", time(task.started_at, instant)] : null, task.finished_at ? ["Finished", time(task.finished_at, instant)] : null,
          task.started_at ? ["Ran", h("span", { class: "num" }, length(between(task.started_at, task.finished_at)))] : null,
          task.key ? ["Key", h("code", null, task.key)] : null,
          task.trace_id ? ["Trace", h("span", { class: "row tight" }, h("code", { class: "wrap" }, task.trace_id), copyButton(task.trace_id, "Copy the trace id"))] : null,
        ])),
        value(screen, "Arguments", task.arguments, "arguments"),
        task.result_value ? value(screen, "Result", task.result_value, "result") : null,
        explain(explained)),
      logs(screen).element(),
    ];
  },
};
