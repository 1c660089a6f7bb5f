// Requests to the server this page came from, and the one stream of news that a tab has.

/** Where the server's paths begin: the page may be below a prefix. This file is PREFIX/static/DIGEST/js/api.js. */
export const BASE = new URL("../../..", import.meta.url).pathname.replace(/\/$/, "");

export const session = { role: null, csrf: "", label: "", version: "", works: false, orders: false };

/** What the server answered instead of what was asked for. */
export class Refused extends Error {
  constructor(status, body) {
    const told = body?.error ?? body ?? {};
    super(told.message || told.detail || `the server answered ${status}`);
    this.status = status;
    this.code = told.code ?? "";
    this.body = told;
  }
}

/** The server cannot be reached. */
export class Unreachable extends Error {}

const watchers = { lost: [], back: [], login: [] };
let lost = false;

export function when(happening, tell) {
  watchers[happening].push(tell);
}

function tell(happening) {
  for (const watcher of watchers[happening]) watcher();
}

function noteLost() {
  if (!lost) {
    lost = true;
    tell("lost");
  }
}

function noteBack() {
  if (lost) {
    lost = false;
    tell("back");
  }
}

async function ask(method, path, body, signal) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (method !== "GET") headers["x-csrf-token"] = session.csrf;
  let answer;
  try {
    answer = await fetch(BASE + path, {
      method, headers, signal, credentials: "same-origin", body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    noteLost();
    throw new Unreachable("the server cannot be reached");
  }
  noteBack();
  const text = await answer.text();
  let told = null;
  try {
    told = text ? JSON.parse(text) : null;
  } catch {
    told = { message: text.slice(0, 300) };
  }
  if (answer.ok) return told;
  if (answer.status === 401 && path !== "/session" && path !== "/login") tell("login");
  throw new Refused(answer.status, told);
}

export const get = (path, signal) => ask("GET", path, undefined, signal);
export const post = (path, body = {}) => ask("POST", path, body);
export const put = (path, body = {}) => ask("PUT", path, body);
export const patch = (path, body = {}) => ask("PATCH", path, body);
export const remove = (path) => ask("DELETE", path);

/** Who is logged in; null: nobody. */
export async function whoami() {
  try {
    Object.assign(session, await get("/session"));
    return session;
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return null;
    throw error;
  }
}

/** Whether this session may steer tasks, workflows and schedules; the server asks again, action by action. */
export const mayWork = () => session.works;

/** Whether it may steer queues, limits and agents. */
export const mayOrder = () => session.orders;
