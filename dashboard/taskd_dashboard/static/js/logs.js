// What a task says while it runs: output, log records, values and progress; live, with the escapes of terminals taken out.

import { BASE } from "./api.js";
import { clock, count, millis } from "./format.js";
import * as live from "./live.js";
import { button, card, choice, copy, h, keep } from "./parts.js";

const LINES_MAX = 5000;
const STREAMS = "stdout,stderr,stacks,log,cut,value,progress";
// Colours and movements of terminals, and what else would not be seen; and what turns the direction of text round.
const ESCAPES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[PX^_][^\u001b]*(?:\u001b\\)?|[ -/]*[0-~])|[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

export function plain(text) {
  return text.replace(ESCAPES, "");
}

export class Logs {
  constructor(id, changed) {
    Object.assign(this, { id, changed, rows: [], attempts: new Set(), only: 0, left: 0, cursor: "", source: null, ended: false, stuck: true, progress: null, state: "" });
    this.box = h("pre", { class: "code log", tabindex: "0", role: "log", "aria-label": "Output and log records", "aria-live": "off" });
    this.box.onscroll = () => { this.stuck = this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 8; };
  }

  /** Read on while the task runs, and to the end once it has ended; again when it is tried again. */
  follow(task) {
    const state = `${task.attempt} ${task.state}`;
    if (state !== this.state) this.ended = false;
    this.state = state;
    if (!this.source && !this.ended && live.isWatched()) this.open();
  }

  open() {
    const source = new EventSource(`${BASE}/api/v1/tasks/${encodeURIComponent(this.id)}/logs?streams=${STREAMS}&after=${encodeURIComponent(this.cursor)}`);
    this.source = source;
    source.onmessage = (event) => {
      if (this.source !== source) return;
      const told = JSON.parse(event.data);
      this.cursor = told.cursor ?? this.cursor;
      this.add(told.lines);
    };
    source.addEventListener("end", () => this.close(true));
    source.onerror = () => this.close(false); // the page reads on when it loads next
  }

  close(ended = false) {
    this.source?.close();
    this.source = null;
    this.ended = ended;
    this.changed();
  }

  add(lines) {
    const fresh = document.createDocumentFragment();
    for (const line of lines) {
      if (line.stream === "progress") {
        this.progress = line;
        continue;
      }
      this.attempts.add(line.attempt);
      const row = this.row(line);
      this.rows.push({ line, row });
      if (!this.only || line.attempt === this.only) fresh.append(row);
    }
    this.box.append(fresh);
    while (this.rows.length > LINES_MAX) {
      this.rows.shift().row.remove();
      this.left += 1;
    }
    if (this.stuck) this.box.scrollTop = this.box.scrollHeight;
    this.changed();
  }

  row(line) {
    const fields = Object.entries(line.fields).map(([name, value]) => ` ${name}=${value}`).join("");
    const kind = { stderr: "err", stacks: "err", cut: "word", value: "word" }[line.stream] ?? (["ERROR", "CRITICAL"].includes(line.level) ? "err" : null);
    return h("span", { class: kind }, h("span", { class: "stamp" }, line.at ? `${clock(millis(line.at))} ` : ""),
      line.level ? h("b", null, `${line.level} ${plain(line.logger ?? "")}: `) : null, line.stream === "value" ? "emitted " : null, plain(line.text + fields), "\n");
  }

  choose(attempt) {
    this.only = attempt;
    this.box.replaceChildren(...this.rows.filter(({ line }) => !attempt || line.attempt === attempt).map(({ row }) => row));
    this.changed();
  }

  text() {
    return this.rows.filter(({ line }) => !this.only || line.attempt === this.only).map(({ row }) => row.textContent).join("");
  }

  element() {
    const { progress } = this;
    const tools = [
      this.attempts.size > 1 ? choice("Attempt", [[0, "all attempts"], ...[...this.attempts].map((each) => [each, `attempt ${each}`])], this.only, (each) => this.choose(each)) : null,
      this.source ? h("span", { class: "row tight small muted" }, h("i", { class: "dot" }), "following") : null,
      this.rows.length ? button(null, () => copy(this.text()), { kind: "plain small icon", sign: "copy", label: "Copy the logs", title: "Copy the logs" }) : null,
    ];
    return card("Logs", { tools },
      progress ? h("p", { class: "row" }, h("progress", { value: progress.done, max: progress.total ?? 1, "aria-label": "Progress" }), h("span", { class: "num" }, `${count(progress.done)} of ${count(progress.total ?? 1)}`), h("span", { class: "muted" }, plain(progress.text))) : null,
      this.left ? h("p", { class: "small muted" }, `${count(this.left)} earlier lines are not shown: `, h("code", null, `taskd task logs ${this.id}`)) : null,
      this.rows.length ? null : h("p", { class: "muted" }, this.ended ? "It said nothing." : "Nothing yet."), h("div", { hidden: !this.rows.length }, keep(this.box)));
  }
}
