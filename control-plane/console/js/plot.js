// Decisions over time, by outcome: stacked bars, each outcome with a colour and a texture of its own, and the same
// numbers as a table.
import { h, svg, unique } from "./dom.js";
import { OUTCOMES } from "./pill.js";
import { absolute, span } from "./time.js";

const ORDER = ["inject", "uses", "pass_through", "rotate", "revoke", "deny"];
const [WIDTH, HEIGHT] = [960, 170];
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { month: "short", day: "2-digit" });

/**
 * @param {{ from: string, to: string, bucket_ms: number, items: { time: string, outcomes: Record<string, number> }[] }} data
 */
export function plot(data) {
  const present = ORDER.filter((outcome) => data.items.some((item) => item.outcomes[outcome] > 0));
  const totals = Object.fromEntries(ORDER.map((outcome) => [outcome, data.items.reduce((sum, item) => sum + (item.outcomes[outcome] ?? 0), 0)]));
  const summary = present.length === 0 ? "No decision in this time."
    : `${present.map((outcome) => `${word(outcome)}: ${number(totals[outcome])}`).join(", ")}.`;
  const title = unique("plot-title");
  return h("figure", { class: "plot" },
    h("figcaption", {}, h("span", { id: title }, summary), present.length > 0 && legend(present)),
    drawing(data, present, title),
    h("details", { class: "plot-table", id: "plot-table" }, h("summary", {}, "The same as a table"), numbers(data, present)));
}

/** @param {string} outcome */
const word = (outcome) => OUTCOMES[outcome]?.word ?? outcome;
/** @param {number} value */
const number = (value) => value.toLocaleString("en");

/** @param {string[]} present */
function legend(present) {
  return h("ul", { class: "legend" }, present.map((outcome) => h("li", {},
    svg("svg", { viewBox: "0 0 14 14", width: 14, height: 14, "aria-hidden": "true" },
      svg("rect", { width: 14, height: 14, class: `bar ${outcome}` }), svg("path", { d: texture(outcome, 0, 0, 14, 14), class: "texture" })),
    h("span", {}, word(outcome)))));
}

/** Lines over a bar that tell its outcome without its colour. @param {string} outcome @param {number} x @param {number} y @param {number} w @param {number} height */
function texture(outcome, x, y, w, height) {
  const lines = [];
  const step = 5;
  if (outcome === "deny") for (let at = y + step; at < y + height; at += step) lines.push(`M${x} ${at}h${w}`);
  if (outcome === "revoke") for (let at = x + step / 2; at < x + w; at += step) lines.push(`M${at} ${y}v${height}`);
  if (outcome === "uses") for (let at = y + 14; at < y + height; at += 14) lines.push(`M${x} ${at}h${w}`);
  if (outcome === "rotate") lines.push(`M${x} ${y}l${w} ${height}`);
  return lines.join("");
}

/** @param {any} data @param {string[]} present @param {string} title */
function drawing(data, present, title) {
  const most = Math.max(1, ...data.items.map((/** @type {any} */ item) => present.reduce((sum, outcome) => sum + (item.outcomes[outcome] ?? 0), 0)));
  const top = nice(most);
  const slot = WIDTH / data.items.length;
  const bars = data.items.flatMap((/** @type {any} */ item, /** @type {number} */ index) => {
    let base = HEIGHT;
    const x = index * slot + slot * 0.12;
    const width = slot * 0.76;
    return present.flatMap((outcome) => {
      const count = item.outcomes[outcome] ?? 0;
      if (count === 0) return [];
      // What happened at all is seen, however little it is.
      const height = Math.max(2, (count / top) * HEIGHT);
      base -= height;
      return [svg("g", {}, svg("title", {}, `${absolute(item.time)}: ${word(outcome)} ${number(count)}`),
        svg("rect", { x, y: base, width, height, class: `bar ${outcome}` }),
        svg("path", { d: texture(outcome, x, base, width, height), class: "texture" }))];
    });
  });
  const lines = [0, 0.5, 1].map((part) => svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part, class: "grid" }));
  return h("div", { class: "plot-area" },
    h("div", { class: "ticks-y", "aria-hidden": "true" }, [top, top / 2, 0].map((value) => h("span", {}, brief(value)))),
    // Stretched to the room there is, hence no text inside.
    svg("svg", { class: "plot-drawing", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-labelledby": title, preserveAspectRatio: "none" }, ...lines, ...bars),
    h("div", { class: "ticks-x", "aria-hidden": "true" }, marks(data)));
}

/** Times along the bottom. @param {any} data */
function marks(data) {
  const [from, to] = [Date.parse(data.from), Date.parse(data.to)];
  return [0, 0.25, 0.5, 0.75, 1].map((part) => {
    const at = new Date(from + (to - from) * part);
    return h("span", {}, to - from > 2 * 86_400_000 ? day.format(at) : clock.format(at));
  });
}

/** The next round number. @param {number} value */
function nice(value) {
  const scale = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 4, 5, 10].find((factor) => factor * scale >= value) ?? 10;
  return Math.max(2, step * scale);
}

/** @param {number} value */
const brief = (value) => new Intl.NumberFormat("en", { notation: "compact" }).format(value);

/** @param {any} data @param {string[]} present */
function numbers(data, present) {
  const filled = data.items.filter((/** @type {any} */ item) => present.some((outcome) => item.outcomes[outcome] > 0));
  if (filled.length === 0) return h("p", {}, "No decision in this time.");
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Decisions over time" },
    h("table", { class: "numbers" },
      h("caption", {}, `Each line stands for ${span(data.bucket_ms)}; times without a decision are left out.`),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "From"), present.map((outcome) => h("th", { scope: "col" }, word(outcome))))),
      h("tbody", {}, filled.map((/** @type {any} */ item) => h("tr", {}, h("th", { scope: "row" }, absolute(item.time)),
        present.map((outcome) => h("td", {}, number(item.outcomes[outcome] ?? 0))))))));
}
