// Tasks: found by a filter that is the page's address, some of them or all of them acted on.

import { get, mayWork, post } from "../api.js";
import { FilterBox, learn, pointAt, STATES, withWord } from "../filter.js";
import { Found } from "../found.js";
import { between, count, length, middle, plural, tail, time } from "../format.js";
import { isWatched } from "../live.js";
import { go, setQuery, to } from "../router.js";
import { action, ask, attempt, button, card, chip, choice, cut, empty, h, keep, notice, table } from "../parts.js";

const SAVED = "taskd.filters";

function saved() {
  try {
    const kept = JSON.parse(localStorage.getItem(SAVED) ?? "[]");
    return Array.isArray(kept) ? kept.filter((each) => typeof each?.name === "string" && typeof each?.filter === "string") : [];
  } catch {
    return [];
  }
}

const filterOf = (screen) => screen.query.get("filter") ?? "";
const cursorOf = (screen) => screen.query.get("cursor") ?? "";

function box(screen) {
  screen.state.box ??= new FilterBox((filter) => {
    screen.state.trail = [];
    setQuery({ filter, cursor: "", find: "" });
  });
  return screen.state.box;
}

async function save(screen) {
  const filter = filterOf(screen);
  const answer = await ask("Save this filter", h("label", { class: "line" }, "Name", h("input", { class: "field", name: "name", required: true, maxlength: 60, value: filter })), { yes: "Save" });
  if (!answer?.name) return;
  localStorage.setItem(SAVED, JSON.stringify([...saved().filter((each) => each.name !== answer.name), { name: answer.name, filter }]));
  screen.draw();
}

function forget(screen, name) {
  localStorage.setItem(SAVED, JSON.stringify(saved().filter((each) => each.name !== name)));
  screen.draw();
}

const DEEDS = { cancel: ["Cancel", "would be cancelled"], retry: ["Retry", "would be tried again"], purge: ["Purge", "would be removed for good, with their results"] };

/** Something is done to all that fit: counted first, then asked, then followed. */
export async function bulk(deed, filter, done) {
  const counted = await attempt(() => get(`/api/v1/tasks/count?action=${deed}&filter=${encodeURIComponent(filter)}`));
  if (!counted) return;
  const [name, would] = DEEDS[deed];
  if (counted.count === 0 && !counted.cursor) {
    notice("No task fits that this would change.");
    return;
  }
  const many = `${counted.cursor ? "At least " : ""}${plural(counted.count, "task")}`;
  const yes = await ask(`${name} ${many}?`, h("div", null, h("p", null, `${many} ${would}.`), h("p", { class: "muted" }, "All that fit: ", h("code", null, filter || "every task"))),
    { yes: `${name} ${counted.cursor ? "all" : count(counted.count)}`, danger: deed !== "retry" });
  if (yes === null) return;
  const job = await attempt(() => post("/api/v1/tasks/bulk", { action: deed, filter, all: filter.trim() === "" }));
  if (job) await watch(job, name, done);
}

async function watch(job, name, done) {
  let seen = job;
  while (seen && !seen.finished_at) seen = await attempt(() => get(`/api/v1/jobs/${seen.id}?beyond=${seen.looked_at}`));
  if (seen) notice(`${name}: ${plural(seen.changed, "task")} changed.`);
  done?.();
}

async function some(screen, deed) {
  const ids = [...screen.state.chosen];
  if (deed === "cancel" && (await ask(`Cancel ${plural(ids.length, "task")}?`, h("p", null, "What runs is ended; what waits will not run."), { yes: `Cancel ${ids.length}`, danger: true })) === null) return;
  if (deed === "retry" && (await ask(`Retry ${plural(ids.length, "task")}?`, h("p", null, "Each gets its attempts anew."), { yes: `Retry ${ids.length}` })) === null) return;
  const told = await attempt(() => post(`/api/v1/tasks/${deed}`, { ids }), (answer) => {
    const states = new Map();
    for (const each of answer.tasks) states.set(each.state, (states.get(each.state) ?? 0) + 1);
    return [...states].map(([state, number]) => `${plural(number, "task")} ${state}`).join(", ");
  });
  if (told) screen.state.chosen.clear();
  screen.load();
}

function columns(screen) {
  const { chosen } = screen.state;
  const all = screen.data.tasks.length > 0 && screen.data.tasks.every((task) => chosen.has(task.id));
  return [
    ...(mayWork() ? [{
      name: "Select", check: true,
      head: h("input", { type: "checkbox", "aria-label": "Select all on this page", checked: all, onchange: () => { for (const task of screen.data.tasks) all ? chosen.delete(task.id) : chosen.add(task.id); screen.draw(); } }),
      cell: (task) => h("input", { type: "checkbox", "aria-label": `Select ${task.id}`, checked: chosen.has(task.id), onchange: () => toggle(screen, task.id) }),
    }] : []),
    { name: "Task", first: true, wide: true, cell: (task) => h("div", null, h("a", { class: "clip strong", href: to(`/tasks/${task.id}`), title: task.name }, middle(task.name, 70)), line(task)) },
    { name: "State", bare: true, cell: (task) => chip(task.state) },
    { name: "Queue", cell: (task) => h("a", { class: "clip muted", title: task.queue, href: to("/tasks", { filter: withWord(filterOf(screen), "queue", task.queue) }) }, middle(task.queue, 28)) },
    { name: "Attempt", num: true, cell: (task) => (task.attempt > task.max_attempts ? task.attempt : `${task.attempt} / ${task.max_attempts}`) },
    { name: "Agent", cell: (task) => cut(task.agent ? middle(task.agent, 26) : "–", "muted") },
    { name: "Submitted", num: true, cell: (task) => time(task.created_at) },
    { name: "Took", num: true, cell: (task) => h("span", { class: "num" }, task.started_at ? length(between(task.started_at, task.finished_at)) : "–") },
  ];
}

function line(task) {
  const said = task.error ? `${task.error.type ? `${task.error.type}: ` : ""}${task.error.message}` : "";
  return h("div", { class: "row nowrap tight small faint" }, h("code", { title: task.id }, tail(task.id)), said ? h("span", { class: "clip bad-text", title: said }, said.slice(0, 200)) : null);
}

function toggle(screen, id) {
  const { chosen } = screen.state;
  chosen.has(id) ? chosen.delete(id) : chosen.add(id);
  screen.draw();
}

function bulkBar(screen) {
  const { chosen } = screen.state;
  if (!mayWork()) return null;
  const filter = filterOf(screen);
  if (chosen.size) {
    return h("div", { class: "bulk", role: "group", "aria-label": "What to do with the selected tasks" }, h("b", null, `${count(chosen.size)} selected`),
      button("Retry", () => some(screen, "retry"), { kind: "small", sign: "retry" }), button("Cancel", () => some(screen, "cancel"), { kind: "small danger", sign: "stop" }),
      button("Clear", () => { chosen.clear(); screen.draw(); }, { kind: "small plain" }));
  }
  return h("footer", null, h("div", { class: "row" }, h("span", null, "All that fit:"),
    button("Retry…", () => bulk("retry", filter, () => screen.load()), { kind: "small", sign: "retry" }), button("Cancel…", () => bulk("cancel", filter, () => screen.load()), { kind: "small danger", sign: "stop" }),
    button("Purge…", () => bulk("purge", filter, () => screen.load()), { kind: "small danger" }), h("span", { class: "faint" }, "counted first, then asked")));
}

function pager(screen) {
  const trail = screen.state.trail;
  if (!cursorOf(screen) && !screen.data.cursor) return null;
  return h("div", { class: "row" },
    button("Newest", () => { screen.state.trail = []; setQuery({ cursor: "" }); }, { kind: "small", disabled: !cursorOf(screen) }),
    button("Newer", () => setQuery({ cursor: trail.pop() ?? "" }), { kind: "small", disabled: !cursorOf(screen) }),
    button("Older", () => { trail.push(cursorOf(screen)); setQuery({ cursor: screen.data.cursor }); }, { kind: "small", disabled: !screen.data.cursor }));
}

function head(screen, fault = null) {
  const filter = filterOf(screen);
  const state = /(?:^|\s)state:(\S+)/.exec(filter)?.[1] ?? "";
  const kept = saved();
  box(screen).set(filter);
  box(screen).fault(fault !== null);
  return [
    h("h1", { class: "sr" }, "Tasks"),
    h("div", { class: "row" }, keep(box(screen).element),
      button("Show", () => box(screen).pick(box(screen).input.value.trim()), { kind: "primary" }), button("Save filter", () => save(screen), { kind: "plain" })),
    fault && pointAt(filter, fault),
    h("div", { class: "row" }, h("div", { class: "scroll" }, choice("State", [["", "all"], ...STATES.filter((each) => each !== "cancelling").map((each) => [each, each])], state, (value) => { screen.state.trail = []; setQuery({ filter: withWord(filter, "state", value), cursor: "" }); }))),
    kept.length ? h("div", { class: "row tight", role: "group", "aria-label": "Saved filters" }, h("span", { class: "faint small" }, "Saved:"), kept.map((each) => h("span", { class: "row tight nowrap", key: each.name },
      h("a", { class: "button small", href: to("/tasks", { filter: each.filter }), title: each.filter }, middle(each.name, 40)),
      button("×", () => forget(screen, each.name), { kind: "plain small icon", label: `Forget ${each.name}` })))) : null,
  ];
}

function finder(screen) {
  const { state } = screen;
  const [filter, begin] = [filterOf(screen), cursorOf(screen)];
  const asked = `${filter}\n${begin}`;
  if (state.found?.asked === asked) return state.found;
  const read = (limit, cursor) => get(`/api/v1/tasks?filter=${encodeURIComponent(filter)}&limit=${limit}&cursor=${encodeURIComponent(cursor || begin)}`, screen.abort.signal);
  state.found = new Found(asked, read, () => screen.redraw(), () => isWatched() && !screen.over && state.found.asked === asked);
  return state.found;
}

/** Why no row is there. */
function none(screen) {
  if (screen.data.reading) return empty("Looking further back…");
  if (screen.data.cursor) return empty("None of the newest fits.", "Older looks further back.");
  return empty(filterOf(screen) ? "No task fits." : "There are no tasks yet.", filterOf(screen) ? null : h("code", null, "taskd submit NAME '[1, 2]'"));
}

function init(screen) {
  screen.state.chosen ??= new Set();
  screen.state.trail ??= [];
  screen.state.row ??= -1;
}

export default {
  title: (screen) => (filterOf(screen) ? `Tasks: ${filterOf(screen)}` : "Tasks"),
  topics: (screen) => (cursorOf(screen) ? [] : ["tasks"]),
  every: 15_000,
  async load(screen) {
    init(screen);
    if (!screen.state.learned) {
      screen.state.learned = true;
      learn().catch(() => {});
    }
    const found = finder(screen);
    await found.refresh();
    const here = new Set(found.tasks.map((task) => task.id));
    for (const id of screen.state.chosen) if (!here.has(id)) screen.state.chosen.delete(id);
    return found;
  },
  refused: (screen, error) => head(screen, error),
  view(screen) {
    init(screen);
    if (screen.query.get("find")) setTimeout(() => box(screen).input.focus());
    const fault = screen.error?.status === 400 ? screen.error : null;
    const { tasks } = screen.data;
    return [
      ...head(screen, fault),
      h("section", { class: "card", "aria-label": "Tasks" },
        tasks.length ? table("Tasks, newest first", columns(screen), tasks, { selected: (task) => (screen.state.chosen.has(task.id) ? "true" : null), cursor: (task) => tasks.indexOf(task) === screen.state.row })
          : none(screen),
        tasks.length && screen.data.reading ? h("p", { class: "faint small", role: "status" }, "Looking further back…") : null,
        tasks.length ? bulkBar(screen) : null),
      pager(screen),
    ];
  },
  key(screen, key) {
    const tasks = screen.data?.tasks ?? [];
    if (key === "j" || key === "k") {
      screen.state.row = Math.max(0, Math.min(tasks.length - 1, screen.state.row + (key === "j" ? 1 : -1)));
      screen.draw();
      document.querySelector("tr.cursor")?.scrollIntoView({ block: "nearest" });
      return true;
    }
    const task = tasks[screen.state.row];
    if (!task) return false;
    if (key === "Enter") go(`/tasks/${task.id}`);
    else if (key === "x" && mayWork()) toggle(screen, task.id);
    else return false;
    return true;
  },
};

export { action, card };
