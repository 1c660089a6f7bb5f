// The parts that pages are made of: icons, states, buttons, tables, dialogs, notices.

import { mayOrder, mayWork, Refused, Unreachable } from "./api.js";
import { h, keep, render, s } from "./dom.js";

const ICONS = {
  overview: "M4 13h6V4H4zM14 20h6v-9h-6zM4 20h6v-3H4zM14 7h6V4h-6z",
  tasks: "M9 6h11M9 12h11M9 18h11M4 6h1M4 12h1M4 18h1",
  workflows: "M5 4h5v5H5zM14 15h5v5h-5zM5 15h5v5H5zM7.5 9v6M10 17.5h4",
  queues: "M4 7h16M4 12h16M4 17h10",
  agents: "M4 5h16v6H4zM4 14h16v6H4zM8 8h.01M8 17h.01",
  schedules: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M12 7v5l3 2",
  dead: "M12 9v4M12 17h.01M10.3 4l-8 14a2 2 0 0 0 1.7 3h16a2 2 0 0 0 1.7-3l-8-14a2 2 0 0 0-3.4 0",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14M20 20l-4-4",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1", pause: "M8 5v14M16 5v14", play: "M7 5l12 7-12 7z", menu: "M4 6h16M4 12h16M4 18h16",
  light: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8M12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2",
  dark: "M20 14a8 8 0 1 1-10-10 7 7 0 0 0 10 10", help: "M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 17h.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18",
  out: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9", retry: "M4 12a8 8 0 1 0 3-6M4 4v5h5", stop: "M6 6l12 12M18 6L6 18", run: "M13 3L5 14h6l-1 7 8-11h-6z",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
};

export function icon(name) {
  return s("svg", { viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": "1.8", "stroke-linecap": "round",
    "stroke-linejoin": "round", "aria-hidden": "true", class: "icon-inline" }, s("path", { d: ICONS[name] }));
}

export function brand() {
  return s("svg", { viewBox: "0 0 32 32", "aria-hidden": "true" },
    s("rect", { width: 32, height: 32, rx: 8, fill: "#3b5bdb" }),
    s("path", { d: "M8 10h16M16 10v14", stroke: "#fff", "stroke-width": 4, "stroke-linecap": "round", fill: "none" }),
    s("circle", { cx: 24, cy: 22, r: 3, fill: "#9fe3c1" }));
}

const TONES = {
  succeeded: "good", live: "good", active: "good", fired: "good", done: "good",
  dead: "bad", failed: "bad", lost: "bad", crashed: "bad", broken: "bad", quarantined: "bad",
  running: "busy", leased: "busy", triggered: "busy", started: "busy",
  scheduled: "wait", blocked: "wait", waiting: "wait", pending: "wait", backfilled: "wait",
  cancelling: "warn", expired: "warn", paused: "warn", draining: "warn", drained: "warn", released: "warn", preempted: "warn", coalesced: "warn",
};

/** The colour of a state; none for what is over without anything to say. */
export function tone(state) {
  return TONES[state] ?? "";
}

export function chip(state) {
  return h("span", { class: `chip ${tone(state)}` }, state);
}

export function button(text, onclick, { kind = "", sign = null, title = null, disabled = false, label = null, pressed = null } = {}) {
  return h("button", { type: "button", class: `button ${kind}`, onclick, title, disabled, "aria-label": label,
    "aria-pressed": pressed === null ? null : String(pressed) }, sign && icon(sign), text);
}

/** A button for who may change things; the server asks again. */
export function action(text, onclick, how = {}) {
  if (how.orders ? mayOrder() : mayWork()) return button(text, onclick, how);
  return button(text, null, { ...how, disabled: true, title: "Your token may not do this." });
}

export function card(title, { tools = null, flush = false, foot = null, id = null } = {}, ...children) {
  return h("section", { class: "card", "aria-label": title, id },
    h("header", null, h("h2", null, title), tools), h("div", { class: flush ? "body flush" : "body" }, children), foot && h("footer", null, foot));
}

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}

export function empty(text, hint = null) {
  return h("div", { class: "empty" }, h("p", { class: "strong" }, text), hint && h("p", null, hint));
}

/** A table; a column is {name, cell(row), num, wide, first, check}. At small widths rows become cards. */
export function table(caption, columns, rows, { key = (row) => row.id ?? row.name, selected = () => null, cursor = () => false } = {}) {
  const kind = (column) => [column.num && "num", column.check && "check", column.first && "first", column.wide && "wide"].filter(Boolean).join(" ") || null;
  return h("div", { class: "scroll" }, h("table", { class: "cards" },
    h("caption", { class: "sr" }, caption),
    h("thead", null, h("tr", null, columns.map((column) => h("th", { scope: "col", class: kind(column) }, column.head ?? column.name)))),
    h("tbody", null, rows.map((row) => h("tr", { key: key(row), class: cursor(row) ? "cursor" : null, "aria-selected": selected(row) },
      columns.map((column) => h("td", { class: kind(column), "data-name": column.first || column.check || column.bare ? null : column.name }, column.cell(row))))))));
}

/** Copies without the clipboard's own interface where there is none: it is missing on plain HTTP. */
export async function copy(text, what = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "sr", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return notice("The browser does not let this page copy; select the text instead.", true);
  }
  return notice(what);
}

export function copyButton(text, label = "Copy") {
  return button(null, () => copy(text), { kind: "plain small icon", sign: "copy", label, title: label });
}

const toasts = h("div", { class: "toasts", role: "status", "aria-live": "polite" });

export function notice(text, bad = false) {
  if (!toasts.isConnected) document.body.append(toasts);
  const toast = h("div", { class: bad ? "toast bad" : "toast", role: bad ? "alert" : null }, text);
  toasts.append(toast);
  while (toasts.children.length > 4) toasts.firstChild.remove();
  setTimeout(() => toast.remove(), bad ? 9000 : 4000);
}

/** Do what a button stands for; tell how it went. */
export async function attempt(work, done) {
  try {
    const told = await work();
    if (done) notice(typeof done === "function" ? done(told) : done);
    return told;
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    notice(error.message, true);
    return undefined;
  }
}

/** Ask before something is done; `body` may be elements. Resolves to the form's values, or null. */
export function ask(title, body, { yes = "OK", danger = false } = {}) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const form = h("form", { method: "dialog" }, h("h2", null, title), h("div", null, body),
      h("div", { class: "row" }, button("Cancel", () => close(null)), h("button", { class: danger ? "button primary danger" : "button primary", value: "yes" }, yes)));
    const dialog = h("dialog", { "aria-label": title }, form);
    const close = (answer) => {
      dialog.remove();
      before?.focus?.();
      resolve(answer);
    };
    form.onsubmit = (event) => {
      event.preventDefault();
      close(Object.fromEntries(new FormData(form)));
    };
    dialog.oncancel = (event) => {
      event.preventDefault();
      close(null);
    };
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("input, select, textarea") ?? form.querySelector("button[value]")).focus();
  });
}

export function choice(label, options, current, pick) {
  return h("div", { class: "choice", role: "group", "aria-label": label },
    options.map(([value, text]) => h("button", { type: "button", "aria-pressed": String(value === current), onclick: () => pick(value) }, text ?? value)));
}

export function bar(parts, total, label) {
  const whole = total || 1;
  return h("div", { class: "bar", role: "img", "aria-label": label }, parts.filter(([, size]) => size > 0).map(([kind, size]) =>
    h("i", { class: kind, style: { width: `${Math.min(100, 100 * size / whole)}%` } })));
}

export function cut(text, how = null) {
  return h("span", { class: `clip ${how ?? ""}`, title: text }, text);
}

export { h, keep, render, s };
