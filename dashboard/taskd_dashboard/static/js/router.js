// Which page a path shows, and what its query says; the path and query are all that a link needs.

import { BASE } from "./api.js";

let routes = [];
let changed = () => {};

/** Begin: `table` is a list of [pattern, page]; a last word `:name*` takes the rest of the path. */
export function start(table, onChange) {
  routes = table;
  changed = onChange;
  addEventListener("popstate", () => changed());
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || link.getAttribute("target")) return;
    const url = new URL(link.getAttribute("href"), location.href); // of SVG `href` is no text
    if (url.origin !== location.origin || url.pathname.startsWith(`${BASE}/api/`) || link.hasAttribute("download")) return;
    event.preventDefault();
    go(url.pathname.slice(BASE.length) + url.search);
  });
}

/** A link's address below the prefix. */
export function to(path, query = null) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) if (value !== null && value !== undefined && value !== "") words.set(name, value);
  const text = words.toString();
  return `${BASE}${path}${text ? `?${text}` : ""}`;
}

export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", BASE + path);
  changed();
}

/** Change the query of the page that is shown. */
export function setQuery(changes, { replace = false } = {}) {
  const { path, query } = here();
  const words = { ...Object.fromEntries(query), ...changes };
  go(to(path, words).slice(BASE.length), { replace });
}

export function here() {
  const { pathname } = location;
  const path = `${pathname}/`.startsWith(`${BASE}/`) ? pathname.slice(BASE.length) || "/" : pathname; // beside the prefix there is no page
  return { path, query: new URLSearchParams(location.search) };
}

export function match() {
  const { path, query } = here();
  for (const [pattern, page] of routes) {
    const params = fits(pattern, path);
    if (params) return { page, params, query, path };
  }
  return { page: null, params: {}, query, path };
}

function fits(pattern, path) {
  const wanted = pattern.split("/");
  const said = path.replace(/\/$/, "").split("/");
  const params = {};
  for (const [at, word] of wanted.entries()) {
    if (word.endsWith("*")) {
      const rest = said.slice(at).join("/");
      if (!rest) return null;
      params[word.slice(1, -1)] = decodeURIComponent(rest);
      return params;
    }
    if (said[at] === undefined) return null;
    if (word.startsWith(":")) params[word.slice(1)] = decodeURIComponent(said[at]);
    else if (word !== said[at]) return null;
  }
  return wanted.length === said.length ? params : null;
}

/** A name as a part of a path. */
export function part(name) {
  return name.split("/").map(encodeURIComponent).join("/");
}
