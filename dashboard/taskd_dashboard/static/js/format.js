// Numbers, times and sizes as people read them. Times are shown in the reader's zone; the exact one is in the title.

import { h } from "./dom.js";

const COUNT = new Intl.NumberFormat("en");
const DAY = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const SHORT = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** 12,345; what is unknown is a dash. */
export function count(number) {
  return number === null || number === undefined ? "–" : COUNT.format(number);
}

/** 12.3k, for where there is little room. */
export function brief(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return "–";
  for (const [from, sign] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (number >= from) {
      const scaled = number / (sign === "k" ? 1e3 : from);
      return `${scaled.toFixed(scaled >= 100 ? 0 : 1).replace(/\.0$/, "")}${sign}`;
    }
  }
  return number >= 100 || Number.isInteger(number) ? COUNT.format(Math.round(number)) : number.toFixed(number >= 10 ? 1 : 2);
}

export function bytes(number) {
  if (number === null || number === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let left = number;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${left >= 100 || unit === 0 ? Math.round(left) : left.toFixed(1)} ${units[unit]}`;
}

/** A length of time: 3.2 ms, 1.4 s, 2 min 5 s, 3 h 4 min, 5 d 2 h. Never negative: clocks of machines differ a little. */
export function length(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  const left = Math.max(0, ms);
  if (left < 1) return `${left.toFixed(left ? 1 : 0)} ms`;
  if (left < 1000) return `${left < 10 ? left.toFixed(1).replace(/\.0$/, "") : Math.round(left)} ms`;
  if (left < 60_000) return `${(left / 1000).toFixed(left < 10_000 ? 1 : 0)} s`;
  const seconds = Math.round(left / 1000);
  const parts = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]];
  const from = parts.findIndex(([, size]) => seconds >= size);
  const [unit, size] = parts[from];
  const [below, small] = parts[from + 1] ?? [];
  const rest = small ? Math.floor((seconds % size) / small) : 0;
  return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${below}` : ""}`;
}

/** The same for an axis: one unit. */
export function tick(ms) {
  if (ms < 1000) return `${Number(ms.toPrecision(3))} ms`;
  for (const [unit, size] of [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000]]) if (ms >= 2 * size) return `${Number((ms / size).toPrecision(3))} ${unit}`;
  return `${Number((ms / 1000).toPrecision(3))} s`;
}

export function millis(iso) {
  return iso ? Date.parse(iso) : null;
}

/** The time between two instants, the second one now when it is not known. */
export function between(from, to) {
  if (!from) return null;
  return Math.max(0, (to ? millis(to) : Date.now()) - millis(from));
}

export function clock(ms) {
  return CLOCK.format(ms);
}

export function short(ms) {
  return SHORT.format(ms);
}

export function instant(iso) {
  if (!iso) return "–";
  const at = new Date(iso);
  const today = new Date().toDateString() === at.toDateString();
  return today ? CLOCK.format(at) : `${DAY.format(at)} ${CLOCK.format(at)}`;
}

export function ago(iso) {
  if (!iso) return "–";
  const gone = Date.now() - millis(iso);
  if (Math.abs(gone) < 1000) return "now";
  return gone > 0 ? `${length(gone).split(" ").slice(0, 2).join(" ")} ago` : `in ${length(-gone).split(" ").slice(0, 2).join(" ")}`;
}

/** An instant as an element, exact in its title. */
export function time(iso, how = ago) {
  if (!iso) return h("span", { class: "faint" }, "–");
  return h("time", { datetime: iso, title: `${instant(iso)} (${ZONE})\n${iso}` }, how(iso));
}

/** Cut in the middle: the end of a name tells as much as its beginning. No sign is cut in two. */
export function middle(text, most = 40) {
  const signs = text.length <= most ? [] : [...text];
  if (signs.length <= most) return text;
  const half = Math.floor((most - 1) / 2);
  return `${signs.slice(0, half).join("")}…${signs.slice(-half).join("")}`;
}

/** Cut at the end. */
export function begin(text, most) {
  const signs = text.length <= most ? [] : [...text];
  return signs.length <= most ? text : `${signs.slice(0, most - 1).join("")}…`;
}

/** An id as its last digits: the first ones are the time, and alike. */
export function tail(id) {
  return id.slice(-12);
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Text in which JSON is laid out by lines without reading its numbers: those above 2⁵³ stay what they are. */
export function laidOut(json) {
  let out = "";
  let depth = 0;
  let inString = false;
  const line = () => `\n${"  ".repeat(depth)}`;
  for (let at = 0; at < json.length; at += 1) {
    const sign = json[at];
    if (inString) {
      out += sign;
      if (sign === "\\") out += json[(at += 1)] ?? "";
      else if (sign === '"') inString = false;
    } else if (sign === '"') {
      out += sign;
      inString = true;
    } else if (sign === "{" || sign === "[") {
      const empty = /^\s*[}\]]/.exec(json.slice(at + 1, at + 64));
      if (empty) {
        out += sign + empty[0].trim();
        at += empty[0].length;
      } else {
        depth += 1;
        out += sign + line();
      }
    } else if (sign === "}" || sign === "]") {
      depth = Math.max(0, depth - 1);
      out += line() + sign;
    } else if (sign === ",") out += sign + line();
    else if (sign === ":") out += ": ";
    else if (!/\s/.test(sign)) out += sign;
  }
  return out;
}
