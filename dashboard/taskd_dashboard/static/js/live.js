// News: one stream a tab, of what the shown page asks for; the page draws itself anew when some of it is its own.
//
// While the tab is hidden, or the reader has paused, there is no stream and nothing is asked for: browsers allow six
// connections to a host, and nobody looks. A connection that is lost is tried again until it is there, and what was
// missed meanwhile is asked for anew.

import { BASE, Refused, whoami } from "./api.js";

const RETRY_MS = [300, 700, 1500, 3000, 5000];

let source = null;
let topics = "";
let listener = null;
let tries = 0;
let timer = null;
let state = "off";
const watchers = [];

export const live = { paused: localStorage.getItem("taskd.paused") === "yes" };

/** Called with "on", "off" (hidden or paused) or "lost". */
export function onState(watch) {
  watchers.push(watch);
}

function become(next) {
  if (state === next) return;
  const before = state;
  state = next;
  for (const watch of watchers) watch(next, before);
}

export function liveState() {
  return state;
}

/** Ask for other news: `listen(topic, data)`; what was asked before is forgotten. */
export function follow(wanted, listen) {
  const named = [...wanted].sort().join(",");
  listener = listen;
  if (named === topics && source) return;
  topics = named;
  open();
}

export function pause(yes) {
  live.paused = yes;
  localStorage.setItem("taskd.paused", yes ? "yes" : "no");
  open();
}

/** End it: nobody is logged in. */
export function stop() {
  topics = "";
  open();
}

export function isWatched() {
  return !live.paused && !document.hidden;
}

function open() {
  clearTimeout(timer);
  source?.close();
  source = null;
  if (!topics || !isWatched()) {
    become("off");
    return;
  }
  const mine = new EventSource(`${BASE}/api/v1/live?topics=${encodeURIComponent(topics)}`);
  source = mine;
  mine.onopen = () => {
    tries = 0;
    become("on");
  };
  mine.onerror = () => {
    mine.close();
    if (source === mine) retry();
  };
  mine.onmessage = (event) => {
    if (source !== mine) return;
    for (const [topic, told] of Object.entries(JSON.parse(event.data).topics)) listener?.(topic, told);
  };
  mine.addEventListener("error", (event) => {
    if (event.data && source === mine) mine.onerror(); // the server says why it ends
  });
}

function retry() {
  source = null;
  if (tries > 0 || state === "on") become("lost");
  const wait = RETRY_MS[Math.min(tries, RETRY_MS.length - 1)];
  tries += 1;
  timer = setTimeout(async () => {
    try {
      if ((await whoami()) === null) return; // the page shows the way in
    } catch (error) {
      if (!(error instanceof Refused)) {
        become("lost");
        retry();
        return;
      }
    }
    open();
  }, wait);
}

document.addEventListener("visibilitychange", () => {
  tries = 0;
  open();
});
