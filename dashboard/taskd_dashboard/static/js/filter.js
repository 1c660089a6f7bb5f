// The filter box: words like `queue:images state:dead since:1h`, completed as they are written; what the server does not
// understand is pointed at, word by word.

import { get } from "./api.js";
import { h, icon, s } from "./ui.js";

export const STATES = ["ready", "running", "scheduled", "blocked", "cancelling", "succeeded", "dead", "cancelled", "expired"];
const WORDS = [
  ["state:", "where a task stands"], ["queue:", "its queue"], ["name:", "its name; * stands for anything"],
  ["error:", "what its failure says"], ["since:", "submitted since: 15m, 1h, 7d, or an instant"], ["before:", "submitted before"],
  ["priority:", "0, >=5, <0"], ["agent:", "who runs it, or ran it last"], ["label:", "what its agent must have"], ["key:", "its idempotency key"],
  ["group:", "what it died of"], ["id:", "itself"],
];
const VALUES = { since: ["5m", "15m", "1h", "6h", "1d", "7d"], before: ["1h", "1d"], priority: [">=1", "0", "<0"] };

let known = { queue: [], agent: [] };

/** Learn which queues and agents there are, for completion. */
export async function learn() {
  const [queues, agents] = await Promise.all([get("/api/v1/queues"), get("/api/v1/agents")]);
  known = { queue: queues.queues.map((each) => each.name), agent: agents.agents.map((each) => each.name) };
}

function quoted(value) {
  return /[\s"]/.test(value) ? `"${value.replace(/[\\"]/g, "\\$&")}"` : value;
}

/** A word of a filter. */
export function word(key, value) {
  return `${key}:${quoted(value)}`;
}

/** The filter with a word of this key, or without one. */
export function withWord(filter, key, value) {
  const rest = filter.split(/\s+(?=(?:[^"]*"[^"]*")*[^"]*$)/).filter((each) => each && !each.startsWith(`${key}:`));
  return [...rest, ...(value ? [word(key, value)] : [])].join(" ");
}

function proposals(text) {
  const begun = /(\S*)$/.exec(text)[1];
  const [, key, value] = /^(\w+):(.*)$/.exec(begun) ?? [];
  if (!key) return WORDS.filter(([each]) => each.startsWith(begun.toLowerCase())).map(([put, hint]) => ({ put, hint, open: true }));
  const values = key === "state" ? STATES : known[key] ?? VALUES[key] ?? [];
  return values.filter((each) => each.startsWith(value) && each !== value).slice(0, 12).map((each) => ({ put: word(key, each), hint: "", open: false }));
}

/** Make the box, which lives on by itself; `pick(filter)` is called when the reader has said what to show. */
export class FilterBox {
  constructor(pick) {
    this.pick = pick;
    this.chosen = -1;
    this.options = [];
    this.menu = h("ul", { class: "menu", role: "listbox", id: "filter-menu", "aria-label": "Words", hidden: true });
    this.input = h("input", {
      class: "field mono", type: "search", role: "combobox", "aria-label": "Filter tasks", "aria-expanded": "false", "aria-controls": "filter-menu",
      "aria-autocomplete": "list", autocomplete: "off", autocapitalize: "none", spellcheck: "false", placeholder: "state:dead queue:images name:thumb* since:1h", "data-search": true,
    });
    this.element = h("div", { class: "filter" }, icon("search"), this.input, this.menu);
    this.input.oninput = () => this.propose();
    this.input.onfocus = () => this.propose();
    this.input.onblur = () => setTimeout(() => this.hide(), 120);
    this.input.onkeydown = (event) => this.key(event);
    this.input.onsearch = () => this.input.value === "" && this.pick("");
  }

  set(filter) {
    if (document.activeElement !== this.input) this.input.value = filter;
  }

  fault(on) {
    if (on) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && this.options.length) {
      event.preventDefault();
      this.chosen = (this.chosen + step + this.options.length) % this.options.length;
      this.draw();
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (this.chosen >= 0) this.take(this.options[this.chosen]);
      else {
        this.hide();
        this.pick(this.input.value.trim());
      }
    } else if (event.key === "Tab" && this.options.length && this.input.value && !event.shiftKey && /\S$/.test(this.input.value)) {
      event.preventDefault();
      this.take(this.options[Math.max(0, this.chosen)]);
    } else if (event.key === "Escape" && !this.menu.hidden) {
      event.preventDefault();
      this.hide();
    }
  }

  propose() {
    this.options = proposals(this.input.value.slice(0, this.input.selectionStart));
    this.chosen = -1;
    this.draw();
  }

  take(option) {
    const at = this.input.selectionStart;
    const before = this.input.value.slice(0, at).replace(/\S*$/, option.put) + (option.open ? "" : " ");
    this.input.value = before + this.input.value.slice(at).trimStart();
    this.input.setSelectionRange(before.length, before.length);
    this.propose();
  }

  hide() {
    this.options = [];
    this.draw();
  }

  draw() {
    const open = this.options.length > 0;
    this.menu.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
    this.menu.replaceChildren(...this.options.map((option, at) => h("li", {
      role: "option", id: `filter-${at}`, "aria-selected": String(at === this.chosen),
      onmousedown: (event) => { event.preventDefault(); this.take(option); },
    }, h("code", null, option.put), h("span", { class: "muted" }, option.hint))));
    if (this.chosen >= 0) this.input.setAttribute("aria-activedescendant", `filter-${this.chosen}`);
    else this.input.removeAttribute("aria-activedescendant");
  }
}

/** What is wrong with a filter, and where. */
export function pointAt(filter, error) {
  const { column, length } = error.body;
  const where = Number.isInteger(column) && column > 0;
  return h("div", { class: "fault", role: "alert" },
    where && h("pre", null, filter.slice(0, column - 1), h("mark", null, filter.slice(column - 1, column - 1 + Math.max(1, length ?? 1))), filter.slice(column - 1 + Math.max(1, length ?? 1))),
    h("p", null, error.message));
}

export { s };
