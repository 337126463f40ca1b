// Numbers, times and sizes as people read them. Every function takes what the API gives: seconds, bytes, MiB.
import { now } from "./api.js";

const grouped = new Intl.NumberFormat("en-US");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

export const count = (number) => (number == null ? "–" : grouped.format(Math.round(number)));

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** "340 ms", "1.2 s", "41 s", "3 min 5 s", "2 h 10 min", "3 d 4 h". */
export function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "–";
  if (seconds < 0.0005) return "0 s";
  if (seconds < 0.9995) return `${seconds < 0.00995 ? (seconds * 1000).toFixed(1) : Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(whole, 60, "min", 1, "s");
  if (whole < 86400) return two(whole, 3600, "h", 60, "min");
  return two(whole, 86400, "d", 3600, "h");
}

function two(whole, large, one, small, other) {
  const rest = Math.floor((whole % large) / small);
  return `${Math.floor(whole / large)} ${one}${rest ? ` ${rest} ${other}` : ""}`;
}

/** "3 min ago", "in 2 h": one unit, for what is only looked at. */
export function ago(at) {
  const seconds = now() - at;
  const text = coarse(Math.abs(seconds));
  if (text === "") return "now";
  return seconds >= 0 ? `${text} ago` : `in ${text}`;
}

function coarse(seconds) {
  if (seconds < 1.5) return "";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const exact = (at) => (at ? full.format(new Date(at * 1000)) : "");

/** "14:03:22", with the day when it was not today. */
export function moment(at) {
  if (!at) return "–";
  const date = new Date(at * 1000);
  const today = date.toDateString() === new Date(now() * 1000).toDateString();
  return today ? clock.format(date) : `${day.format(date)} ${clock.format(date).slice(0, 5)}`;
}

/** The time of a line of a log, to the millisecond. */
export function stamp(at) {
  const date = new Date(at * 1000);
  return `${clock.format(date)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export function bytes(number) {
  if (number == null || number < 0) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let rest = number;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit === 0 || rest >= 99.95 ? Math.round(rest) : rest.toFixed(1)} ${units[unit]}`;
}

export const mebibytes = (number) => (number == null ? "–" : bytes(number * 1048576));

export const perSecond = (value) => `${bytes(value)}/s`;

export const cores = (value) => (value === 0 ? "0" : value.toFixed(value < 0.1 ? 3 : value < 10 ? 2 : 0));

export const watts = (value) => `${Math.round(value)} W`;

export const degrees = (value) => `${Math.round(value)} °C`;

export const percent = (part) => (part == null ? "–" : `${Math.round(part * 100)} %`);

/** Dollars with as many digits as the amount deserves. */
export function money(amount, currency = "$") {
  if (amount == null) return "–";
  if (amount === 0) return `${currency}0`;
  if (amount < 0.00005) return `< ${currency}0.0001`;
  const digits = amount < 0.01 ? 4 : amount < 1 ? 3 : 2;
  return currency + amount.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

const SIGNS = { USD: "$", EUR: "€", GBP: "£" };

/** Amounts of one currency, made readable. */
export const cashOf = (currency = "USD") => (amount) => money(amount, SIGNS[currency] ?? `${currency} `);

/** The tail of an id: enough to tell two apart in a list. */
export const short = (id) => (id && id.length > 14 ? `${id.slice(0, 3)}…${id.slice(-6)}` : (id ?? ""));

/** A schedule in words: {"cron": …} or {"period": …}. */
export function scheduled(schedule) {
  if (schedule?.cron) return `${schedule.cron}${schedule.timezone && schedule.timezone !== "UTC" ? ` (${schedule.timezone})` : ""}`;
  const parts = Object.entries(schedule?.period ?? {}).filter(([, number]) => number);
  return parts.length ? `every ${parts.map(([unit, number]) => `${number} ${unit}`).join(" ")}` : "";
}
