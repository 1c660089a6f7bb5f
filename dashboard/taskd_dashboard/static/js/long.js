// Long lists: found by a part of their names, and the first of them until all are asked for.

import { count } from "./format.js";
import { button, h, keep } from "./ui.js";

const FEW = 20;
const SHOWN = 250;

/** Which rows to show, and what to show above and below them. */
export function narrowed(screen, rows, what) {
  const { state } = screen;
  state.find ??= h("input", { class: "field find", type: "search", "aria-label": `Find ${what}`, placeholder: "Part of a name", spellcheck: "false", "data-search": true, oninput: () => screen.draw() });
  const wanted = state.find.value.trim().toLowerCase();
  const fitting = wanted ? rows.filter((row) => row.name.toLowerCase().includes(wanted)) : rows;
  const shown = state.all ? fitting : fitting.slice(0, SHOWN);
  const left = fitting.length - shown.length;
  return {
    shown,
    above: rows.length > FEW ? h("div", { class: "row" }, keep(state.find), h("span", { class: "muted nowrap-text" }, `${count(fitting.length)} ${what}`)) : null,
    below: left ? h("div", { class: "row muted" }, `${count(left)} more are not shown.`, button("Show all", () => { state.all = true; screen.draw(); }, { kind: "small" })) : null,
  };
}
