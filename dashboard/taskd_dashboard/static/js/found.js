// The rows that a filter finds, the newest first. Where much is looked at for few, a page of the server's is short of rows.
//
// What is new is read each time that there is news. What is older is read on behind it, drawn as it is found, and not
// read again for a while: until then rows that were there stay.

import { Refused, Unreachable } from "./api.js";

const LIMIT = 50;
const FURTHER = 8; // pages that are read on
const SHARE = 5; // so many times as long as that takes, it is not done again

/** What was just read, the newest, and of what was there before all that is older. */
function joined(newest, before) {
  const known = new Set(newest.map((task) => task.id));
  const last = before.findIndex((task) => task.id === newest.at(-1)?.id);
  return [...newest, ...before.slice(last + 1).filter((task) => !known.has(task.id))];
}

export class Found {
  /** `read(limit, cursor)` asks the server, `changed()` draws, `goesOn()` tells whether this is still looked at. */
  constructor(asked, read, changed, goesOn) {
    Object.assign(this, { asked, read, changed, goesOn, tasks: [], newest: [], cursor: undefined, reading: false, dueAt: 0 });
  }

  async refresh() {
    const told = await this.read(LIMIT, "");
    this.newest = told.tasks;
    if (!told.cursor || told.tasks.length >= LIMIT) {
      this.tasks = told.tasks;
      this.cursor = told.cursor;
      return;
    }
    this.tasks = joined(told.tasks, this.tasks);
    if (this.cursor === undefined) this.cursor = told.cursor;
    if (!this.reading && performance.now() >= this.dueAt) this.readOn(told);
  }

  async readOn({ tasks, cursor }) {
    const begun = performance.now();
    this.reading = true;
    try {
      for (let more = 0; more < FURTHER && cursor && tasks.length < LIMIT; more += 1) {
        const next = await this.read(LIMIT - tasks.length, cursor);
        if (!this.goesOn()) return;
        tasks = [...tasks, ...next.tasks];
        cursor = next.cursor;
        this.tasks = joined(this.newest, joined(tasks, this.tasks));
        this.changed();
      }
      this.tasks = joined(this.newest, tasks);
      this.cursor = cursor;
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof Refused || error instanceof Unreachable)) throw error;
    } finally {
      this.reading = false;
      this.dueAt = performance.now() + SHARE * (performance.now() - begun);
      this.changed();
    }
  }
}
