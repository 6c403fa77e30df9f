// Numbers for people: few digits, and units.

const LOCALE = "en";

export const whole = count => Math.round(count).toLocaleString(LOCALE);

/** Three digits that count. */
export function digits(value) {
  if (!value) return "0";
  const places = value < 0.995 ? 2 : value < 9.95 ? 1 : 0;
  return value.toLocaleString(LOCALE, { maximumFractionDigits: places });
}

function scaled(value, steps, base) {
  let at = 0;
  while (value >= base * 0.9995 && at < steps.length - 1) {
    value /= base;
    at++;
  }
  const text = at === 0 && Number.isInteger(value) ? String(value) : digits(value);
  return steps[at] ? `${text} ${steps[at]}` : text;
}

/** A number that may be large: 12.3 k. */
export const count = value => (value < 10_000 ? digits(value) : scaled(value, ["", "k", "M", "G"], 1000));

export const bytes = value => scaled(value, ["B", "kB", "MB", "GB", "TB"], 1000);

/** Seconds as 3 d 4 h, 5 min 6 s, or 42 s. */
export function duration(seconds) {
  const all = Math.floor(seconds);
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min${all < 600 && all % 60 ? ` ${all % 60} s` : ""}`;
  const hours = Math.floor(all / 3600);
  if (hours < 48) return `${hours} h${hours < 10 && all % 3600 >= 60 ? ` ${Math.floor((all % 3600) / 60)} min` : ""}`;
  const days = Math.floor(hours / 24);
  return `${days} d${days < 10 && hours % 24 ? ` ${hours % 24} h` : ""}`;
}

/** A short time, given in seconds. */
export function short(seconds) {
  const ms = seconds * 1000;
  if (ms >= 1000) return `${digits(seconds)} s`;
  return ms > 0 && ms < 1 ? "< 1 ms" : `${digits(ms)} ms`;
}

/** A measured round trip: pings are timed in whole milliseconds. */
export const roundTrip = seconds => (seconds ? short(seconds) : "< 1 ms");

const time = (options, ms) => new Date(ms).toLocaleString("en-GB", options);

export const clock = ms => time({ hour: "2-digit", minute: "2-digit", second: "2-digit" }, ms);
export const minute = ms => time({ hour: "2-digit", minute: "2-digit" }, ms);
export const day = ms => time({ day: "numeric", month: "short", year: "numeric" }, ms);
export const moment = ms => time({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" }, ms);

/** 1 socket, 2 sockets. */
export const many = (number, one, more = one + "s") => `${whole(number)} ${number === 1 ? one : more}`;
