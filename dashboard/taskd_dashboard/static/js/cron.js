// When a schedule fires, in words; what has no short word for it is left as it is written.

import { instant, length } from "./format.js";

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const SHORT = { sun: 0, mon: 1, tue: 2, wed: 3, thu: 4, fri: 5, sat: 6 };
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const MACROS = { "@hourly": "every hour", "@daily": "every day at 00:00", "@midnight": "every day at 00:00", "@weekly": "every Sunday at 00:00", "@monthly": "on day 1 of the month at 00:00", "@yearly": "on 1 January at 00:00", "@annually": "on 1 January at 00:00" };
const whole = (text) => /^\d+$/.test(text);
const two = (text) => text.padStart(2, "0");

function day(text) {
  const number = whole(text) ? Number(text) : SHORT[text.toLowerCase()];
  return number === undefined ? null : DAYS[number] ?? null;
}

function days(text) {
  const range = /^(\w+)-(\w+)$/.exec(text);
  if (range) return day(range[1]) && day(range[2]) ? `${day(range[1])} to ${day(range[2])}` : null;
  const list = text.split(",").map(day);
  return list.every(Boolean) ? list.join(", ") : null;
}

/** One cron line of five fields; null: there is no short word for it. */
export function line(cron) {
  if (MACROS[cron]) return MACROS[cron];
  const fields = cron.trim().split(/\s+/);
  if (fields.length !== 5) return null;
  const [minute, hour, date, month, week] = fields;
  const step = /^\*\/(\d+)$/;
  let at = null;
  if (minute === "*" && hour === "*") at = "every minute";
  else if (step.test(minute) && hour === "*") at = `every ${step.exec(minute)[1]} minutes`;
  else if (whole(minute) && hour === "*") at = minute === "0" ? "every hour" : `every hour at minute ${minute}`;
  else if (whole(minute) && step.test(hour)) at = `every ${step.exec(hour)[1]} hours at minute ${minute}`;
  else if (whole(minute) && /^[\d,]+$/.test(hour)) at = `at ${hour.split(",").map((each) => `${two(each)}:${two(minute)}`).join(", ")}`;
  if (at === null) return null;
  const on = [];
  if (date !== "*") {
    if (!/^[\d,]+$/.test(date)) return null;
    on.push(`on day ${date.replaceAll(",", ", ")}`);
  }
  if (month !== "*") {
    if (!/^[\d,]+$/.test(month)) return null;
    on.push(`of ${month.split(",").map((each) => MONTHS[each - 1] ?? each).join(", ")}`);
  }
  if (week !== "*") {
    const said = days(week);
    if (said === null) return null;
    on.push(date === "*" ? said : `and ${said}`);
  }
  if (!on.length) return at.startsWith("at ") ? `every day ${at}` : at;
  if (date !== "*" && month === "*") on[0] += " of the month";
  return `${on.join(" ")} ${at}`;
}

/** A timing as the API tells it. */
export function words(timing) {
  const parts = timing.cron.map((each) => line(each) ?? each);
  if (timing.every_s) parts.push(`every ${length(timing.every_s * 1000)}`);
  if (timing.at.length) parts.push(`at ${timing.at.slice(0, 3).map(instant).join(", ")}${timing.at.length > 3 ? ` and ${timing.at.length - 3} more` : ""}`);
  const said = parts.join("; ");
  return said.charAt(0).toUpperCase() + said.slice(1);
}
