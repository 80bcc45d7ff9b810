// Times and spans, relative and absolute. Whoever shows a time shows both.
import { h } from "./dom.js";

const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const whole = new Intl.DateTimeFormat("en-GB", {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
  timeZoneName: "short",
});
const short = new Intl.DateTimeFormat("en-GB", {
  month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

/** "3 minutes ago", "in 2 days". @param {string | number | Date} when */
export function ago(when) {
  const seconds = (new Date(when).getTime() - Date.now()) / 1_000;
  if (Math.abs(seconds) < 2) return "now";
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS[3];
  return relative.format(Math.trunc(seconds / length), /** @type {any} */ (unit));
}

/** In full, in the browser's time zone. @param {string | number | Date} when */
export const absolute = (when) => whole.format(new Date(when));

/** Without year and zone, for a table. @param {string | number | Date} when */
export const compact = (when) => short.format(new Date(when));

/**
 * A time: relative, with the absolute one beneath it (or beside it, `inline`).
 * @param {string | null | undefined} iso
 * @param {{ inline?: boolean }} [options]
 */
export function time(iso, { inline = false } = {}) {
  if (!iso) return h("span", { class: "muted" }, "never");
  return h(
    "time",
    { datetime: iso, class: inline ? "time inline" : "time", title: absolute(iso) },
    h("span", { class: "relative", data: { when: iso } }, ago(iso)),
    " ",
    h("span", { class: "absolute" }, inline ? `(${absolute(iso)})` : compact(iso)),
  );
}

/** A span in its two largest units: "3 d 4 h". @param {number} milliseconds */
export function span(milliseconds) {
  const negative = milliseconds < 0;
  let seconds = Math.floor(Math.abs(milliseconds) / 1_000);
  const parts = [];
  for (const [name, length] of [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]]) {
    const count = Math.floor(seconds / Number(length));
    seconds -= count * Number(length);
    if (count > 0 || (name === "s" && parts.length === 0)) parts.push(`${count} ${name}`);
    if (parts.length === 2) break;
  }
  return (negative ? "−" : "") + parts.join(" ");
}

// Relative times grow old by themselves.
setInterval(() => {
  for (const element of document.querySelectorAll(".relative[data-when]")) {
    element.textContent = ago(/** @type {HTMLElement} */ (element).dataset.when ?? "");
  }
}, 5_000);
