// What pages take from one place.

export { sparkline } from "./charts.js";
export * from "./ui.js";
