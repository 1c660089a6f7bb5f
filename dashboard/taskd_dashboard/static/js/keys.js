// Keys: the same as Oban's, and those of most lists. None is taken while something is being written.

import { ask, h } from "./ui.js";

let deeds = null;
let prefix = 0;

const OF_LISTS = [["j k", "Next, previous row"], ["x", "Select the row"], ["Enter", "Open the row"]];
const OF_PAGES = [["/", "Search"], ["r", "Load again"], ["p", "Pause, go on"], ["t", "Change colours"], ["?", "These keys"], ["Esc", "Leave a field, clear a choice"]];

export const keys = {
  begin(what) {
    deeds = what;
    document.addEventListener("keydown", pressed);
  },
  help() {
    const list = (rows) => h("dl", { class: "facts" }, rows.map(([key, text]) => [h("dt", null, key.split(" ").map((each) => [h("kbd", null, each), " "])), h("dd", null, text)]));
    ask("Keys", h("div", { class: "grid" }, list(OF_PAGES), list([...deeds.ways.map(([key, name]) => [`g ${key}`, name]), ...OF_LISTS])), { yes: "Close" });
  },
};

function pressed(event) {
  const field = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (field) {
    if (event.key === "Escape" && !event.defaultPrevented) field.blur();
    return;
  }
  const screen = deeds.screen();
  if (performance.now() - prefix < 1200) {
    prefix = 0;
    const way = deeds.ways.find(([key]) => key === event.key);
    if (way) {
      event.preventDefault();
      deeds.go(way[2]);
      return;
    }
  }
  const deed = {
    g: () => { prefix = performance.now(); },
    "?": () => keys.help(),
    "/": () => search(),
    p: () => deeds.pause(),
    t: () => deeds.theme(),
    r: () => screen?.load(),
  }[event.key];
  if (deed) {
    event.preventDefault();
    deed();
  } else if (screen?.page.key?.(screen, event.key)) event.preventDefault();
}

function search() {
  const field = document.querySelector("#main [data-search]");
  if (field) {
    field.focus();
    field.select();
  } else deeds.go("/tasks?find=1");
}
