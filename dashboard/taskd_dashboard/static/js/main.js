// The page: its frame, its ways, its keys; and the door for who has not come in yet.

import * as api from "./api.js";
import { keys } from "./keys.js";
import * as live from "./live.js";
import { loginPage } from "./login.js";
import agent from "./pages/agent.js";
import agents from "./pages/agents.js";
import dead from "./pages/dead.js";
import group from "./pages/group.js";
import overview from "./pages/overview.js";
import queues from "./pages/queues.js";
import schedule from "./pages/schedule.js";
import schedules from "./pages/schedules.js";
import task from "./pages/task.js";
import tasks from "./pages/tasks.js";
import workflow from "./pages/workflow.js";
import workflows from "./pages/workflows.js";
import * as router from "./router.js";
import { Screen } from "./screen.js";
import { brand, button, choice, empty, h, icon, keep, notice, render } from "./ui.js";

const WAYS = [
  ["overview", "Overview", "/", "o"], ["tasks", "Tasks", "/tasks", "t"], ["workflows", "Workflows", "/workflows", "w"],
  ["queues", "Queues", "/queues", "q"], ["agents", "Agents", "/agents", "a"], ["schedules", "Schedules", "/schedules", "s"],
  ["dead", "Dead letters", "/dead", "d"],
];
const ROUTES = [
  ["", overview], ["/tasks", tasks], ["/tasks/:id", task], ["/workflows", workflows], ["/workflows/:id", workflow],
  ["/queues", queues], ["/agents", agents], ["/agents/:name*", agent], ["/schedules", schedules],
  ["/schedules/:name*", schedule], ["/dead", dead], ["/dead/:group", group],
];
const USE_MS = 5 * 60 * 1000;

const app = document.getElementById("app");
const root = h("main", { class: "page", id: "main", tabindex: "-1" });
let screen = null;
let opened = false;
let menuOpen = false;
let deadCount = 0;
let lostSince = 0;

function theme() {
  return localStorage.getItem("taskd.theme") ?? "system";
}

function setTheme(value) {
  localStorage.setItem("taskd.theme", value);
  if (value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
  dispatchEvent(new Event("taskd-theme"));
  frame();
}

function frame() {
  if (!opened) return;
  const first = `/${router.here().path.split("/")[1] ?? ""}`;
  const state = live.liveState();
  render(app,
    h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); root.focus(); } }, "Skip to the page"),
    h("div", { class: "shell" },
      h("aside", { class: menuOpen ? "side open" : "side", id: "side" },
        h("a", { class: "brand", href: router.to("/") }, brand(), "taskd"),
        h("nav", { "aria-label": "Pages" }, WAYS.map(([sign, name, path]) =>
          h("a", { href: router.to(path), "aria-current": first === path ? "page" : null, onclick: () => { menuOpen = false; } },
            icon(sign), name, path === "/dead" && deadCount > 0 ? h("span", { class: "badge", title: "Groups of dead tasks" }, deadCount) : null))),
        h("div", { class: "foot" },
          h("div", { class: "row" }, choice("Colours", [["system", icon("system")], ["light", icon("light")], ["dark", icon("dark")]].map(([value, sign]) =>
            [value, h("span", { title: `${value} colours` }, sign, h("span", { class: "sr" }, `${value} colours`))]), theme(), setTheme)),
          h("div", { class: "row" }, h("span", { title: api.session.label }, h("span", { class: "sr" }, "Logged in as "), h("b", null, api.session.role)),
            button("Log out", logOut, { kind: "plain small", sign: "out" })),
          h("span", { class: "faint" }, `taskd ${api.session.version}`))),
      h("div", { class: "main" },
        h("header", { class: "top" },
          button(null, () => { menuOpen = !menuOpen; frame(); }, { kind: "plain icon only-narrow", sign: "menu", label: "Menu", pressed: menuOpen }),
          crumbs(),
          button(live.live.paused ? "Paused" : state === "lost" ? "No connection" : "Live", () => { live.pause(!live.live.paused); frame(); },
            { kind: "small", sign: live.live.paused ? "play" : "pause", pressed: live.live.paused, title: live.live.paused ? "Go on with live updates (p)" : "Pause live updates (p)" }),
          button(null, () => keys.help(), { kind: "plain small icon only-wide", sign: "help", label: "Keys", title: "Keys (?)" })),
        state === "lost" || lostSince ? h("div", { class: "banner", role: "alert" }, "Connection lost. What is shown is from before; the page goes on by itself when the server is back.") : null,
        live.live.paused ? h("div", { class: "banner info", role: "status" }, "Live updates are paused.", button("Go on", () => { live.pause(false); frame(); }, { kind: "small" })) : null,
        keep(root))));
}

function crumbs() {
  const { path } = router.here();
  const [, first, ...rest] = path.split("/");
  const way = WAYS.find(([, , to]) => to === `/${first ?? ""}`);
  return h("div", { class: "crumbs grow" }, way && rest.length ? [h("a", { href: router.to(way[2]) }, way[1]), h("span", { class: "faint" }, "/"),
    h("span", { class: "clip" }, screen?.page?.crumb?.(screen) ?? decodeURIComponent(rest.join("/")))] : h("span", null, way?.[1] ?? "taskd"));
}

function show() {
  if (!opened) return;
  const found = router.match();
  if (screen && found.page && screen.page === found.page && JSON.stringify(screen.params) === JSON.stringify(found.params)) {
    screen.query = found.query;
    screen.page.moved?.(screen);
    screen.load();
    frame();
    return;
  }
  screen?.close();
  screen = null;
  menuOpen = false;
  render(root);
  scrollTo(0, 0);
  if (found.page === null) {
    document.title = "Not found · taskd";
    render(root, h("div", { class: "card" }, empty("There is no such page.", h("a", { href: router.to("/") }, "To the overview"))));
  } else {
    screen = new Screen(root, found.page, found);
    screen.open();
  }
  frame();
}

async function logOut() {
  try {
    await api.post("/logout");
  } catch {
    // The session is over either way.
  }
  door();
}

function door() {
  if (opened) {
    opened = false;
    screen?.close();
    screen = null;
    live.stop();
    api.session.csrf = "";
  }
  document.title = "Log in · taskd";
  render(app, keep(loginPage(enter)));
}

async function enter() {
  opened = true;
  render(app);
  if (router.here().path === "/login") history.replaceState(null, "", router.to("/"));
  show();
  countDead();
}

async function countDead() {
  if (!opened || !live.isWatched()) return;
  try {
    deadCount = (await api.get("/api/v1/dead?limit=1")).groups_count;
    frame();
  } catch {
    // The banner tells.
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("taskd-theme")));
api.when("login", () => opened && door());
api.when("lost", () => { lostSince = Date.now(); frame(); });
api.when("back", () => { lostSince = 0; frame(); });
live.onState((state, before) => {
  if (state === "lost" && !lostSince) lostSince = Date.now();
  if (state === "on") {
    if (before === "lost" || lostSince) {
      notice("Connected again.");
      screen?.load();
    }
    lostSince = 0;
  }
  frame();
});
setInterval(() => opened && live.isWatched() && api.whoami().then((who) => who ?? door(), () => {}), USE_MS);
addEventListener("taskd-dead", countDead);

keys.begin({
  ways: WAYS.map(([, name, path, key]) => [key, name, path]),
  go: (path) => opened && router.go(path),
  pause: () => { live.pause(!live.live.paused); frame(); },
  theme: () => setTheme({ system: "dark", dark: "light", light: "system" }[theme()]),
  screen: () => screen,
});
router.start(ROUTES, show);

const code = router.here().path === "/login" ? location.hash.slice(1) : "";
if (code) history.replaceState(null, "", router.to("/login"));
try {
  if (code) await api.post("/login", { code });
  if ((await api.whoami()) === null) door();
  else enter();
} catch (error) {
  const who = await api.whoami().catch(() => null);
  if (who) enter();
  else {
    door();
    notice(error.message, true);
  }
}
