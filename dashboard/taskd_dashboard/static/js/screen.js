// One page while it is shown: loads what it needs, draws it, and loads again when there is news.
//
// A page is {title(screen), load(screen), view(screen), topics?(screen), news?(screen, topic, data), every?, leave?(screen)}.
// `news` returns true when what came is enough to draw; otherwise the page loads again, but not all of the time.

import { Refused, Unreachable } from "./api.js";
import * as live from "./live.js";
import { button, empty, h, render } from "./ui.js";

const LEAST_MS = 400;
const SHARE = 5; // so many times as long as loading takes: a page asks for no more than a fifth of the time,
const MOST_MS = 1500; // unless that were late: one answer that was slow says little of the next

export class Screen {
  constructor(root, page, { params, query, path }) {
    Object.assign(this, { root, page, params, query, path });
    this.state = {};
    this.data = null;
    this.error = null;
    this.over = false;
    this.abort = new AbortController();
    this.loadedAt = 0;
    this.tookMs = 0;
    this.loading = null;
    this.again = false;
    this.drawing = 0;
  }

  async open() {
    this.draw();
    await this.load();
    if (this.over) return;
    // Of what is no task's id, say, there is no news: the stream would be refused as the page was.
    const own = this.error instanceof Refused && this.error.status === 400 ? [] : (this.page.topics?.(this) ?? []);
    live.follow(new Set(["dead", ...own]), (topic, data) => this.news(topic, data));
    if (this.page.every) this.timer = setInterval(() => live.isWatched() && this.load(), this.page.every);
    this.ticker = setInterval(() => live.isWatched() && this.draw(), 1000); // what is told as "3 s ago"
  }

  close() {
    this.over = true;
    this.abort.abort();
    clearInterval(this.timer);
    clearInterval(this.ticker);
    clearTimeout(this.later);
    this.page.leave?.(this);
  }

  news(topic, data) {
    if (this.over) return;
    if (topic === "dead") dispatchEvent(new Event("taskd-dead"));
    // What a topic says first is that it is followed now: what happened since the page asked is in no news, so it asks again.
    if (!(this.page.topics?.(this) ?? []).includes(topic)) return;
    if (this.page.news?.(this, topic, data)) this.redraw();
    else this.soon();
  }

  /** Load again, but not all of the time. */
  soon() {
    if (this.later || this.over) return;
    this.later = setTimeout(() => {
      this.later = null;
      if (live.isWatched()) this.load(); // who goes on is told first how things stand
    }, Math.max(0, this.loadedAt + Math.max(LEAST_MS, Math.min(MOST_MS, SHARE * this.tookMs)) - performance.now()));
  }

  async load() {
    if (this.loading) {
      this.again = true;
      return this.loading;
    }
    this.loadedAt = performance.now();
    this.loading = this.loadOnce();
    await this.loading;
    this.tookMs = performance.now() - this.loadedAt;
    this.loading = null;
    if (this.again && !this.over) {
      this.again = false;
      this.soon();
    }
    return undefined;
  }

  async loadOnce() {
    try {
      const data = await this.page.load(this);
      if (this.over) return;
      this.data = data;
      this.error = null;
    } catch (error) {
      if (this.over || error.name === "AbortError") return;
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      this.error = error;
    }
    this.draw();
  }

  /** Draw before the next frame. */
  redraw() {
    if (!this.drawing) this.drawing = requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.drawing);
    this.drawing = 0;
    if (this.over) return;
    document.title = `${this.page.title(this)} · taskd`;
    render(this.root, this.body());
  }

  body() {
    if (this.data !== null && !(this.error instanceof Refused && this.error.status === 404)) return this.page.view(this);
    if (this.error === null) return h("div", { class: "skeleton", "aria-busy": "true", "aria-label": "Loading" });
    if (this.error.status === 404 || this.error.status === 410) return gone(this.error);
    if (this.error.status === 400 && this.page.refused) return this.page.refused(this, this.error);
    return h("div", { class: "card", role: "alert" }, empty(this.error.message, button("Try again", () => this.load())));
  }
}

function gone(error) {
  return h("div", { class: "card", role: "alert" }, h("div", { class: "empty" },
    h("p", { class: "strong" }, "Not here"), h("p", null, error.message),
    h("p", { class: "faint" }, "Finished tasks are kept for some days, then removed with their results.")));
}
