// Audit → Decisions: what bouncers decided; a live tail, filters, a plot over time, export.
import { all, get, withQuery } from "../api.js";
import { announce, h, oneAtATime, replace } from "../dom.js";
import { exportButtons } from "../export.js";
import { filterBar, only } from "../filters.js";
import { icon } from "../icons.js";
import { asProblem, cutOff, empty, notice, problemBox } from "../notice.js";
import { OUTCOMES } from "../pill.js";
import { plot } from "../plot.js";
import { poll } from "../poll.js";
import { link } from "../router.js";
import { eventTable } from "./events.js";

const EVENTS = "/v1/audit/events";
const FILTERS = ["outcome", "bouncer", "reason", "logical_path"];
/** @type {[string, string, number, number][]} name, label, span in milliseconds, buckets */
const SPANS = [["15m", "15 minutes", 900_000, 60], ["1h", "1 hour", 3_600_000, 60], ["24h", "24 hours", 86_400_000, 96], ["7d", "7 days", 604_800_000, 84]];
const SHOWN = 50;
const MOST = 1_000;

/** @type {import("../router.js").Render} */
export async function audit(visit) {
  const chosen = only(visit.query, FILTERS);
  const bouncers = await all("/v1/bouncers", { signal: visit.leaving });
  const stream = new Stream(chosen, visit.leaving);
  await stream.load();
  const go = (/** @type {string} */ query) => {
    const next = new URLSearchParams(query);
    for (const kept of ["span", "live"]) if (visit.query.get(kept)) next.set(kept, /** @type {string} */ (visit.query.get(kept)));
    const text = next.toString();
    visit.go(`audit${text ? `?${text}` : ""}`);
  };
  return {
    title: "Decisions",
    intro: "Every credential released and every stream denied, as its bouncer reported it. Events never hold a payload or a token.",
    content: [
      filterBar({
        label: "Decisions", query: visit.query, go,
        filters: [
          { name: "outcome", label: "Outcome", options: Object.entries(OUTCOMES).map(([value, { word }]) => ({ value, label: word })) },
          { name: "bouncer", label: "Bouncer", options: bouncers.items.map((item) => ({ value: item.name, label: item.name })) },
          { name: "reason", label: "Reason code", placeholder: "binding_incomplete" },
          { name: "logical_path", label: "Logical path", wide: true },
        ],
      }),
      cutOff(bouncers, "bouncers", "The address takes the others too, as bouncer=NAME."),
      overTime(visit, chosen),
      stream.element,
    ].filter(Boolean),
  };
}

/** The list of events: the newest, what arrives, and what went before. */
class Stream {
  /** @param {Record<string, string | null>} chosen @param {AbortSignal} leaving */
  constructor(chosen, leaving) {
    this.chosen = chosen;
    this.leaving = leaving;
    /** @type {any[]} */
    this.items = [];
    /** Where the list goes on, behind each row with which an answer ended. @type {Map<string, string | null>} */
    this.ends = new Map();
    this.live = true;
    this.rows = h("div", {});
    this.trouble = h("div", {});
    this.label = h("span", {}, "Live");
    this.toggle = h("button", { type: "button", class: "button small live", "aria-pressed": "true", id: "live" }, icon("live"), this.label);
    this.toggle.addEventListener("click", () => this.follow(!this.live));
    this.older = h("button", { type: "button", class: "button", hidden: true }, "Show older");
    oneAtATime(this.older, () => this.before());
    this.element = h("section", { "aria-labelledby": "events-title" },
      h("div", { class: "section-head" }, h("h2", { id: "events-title" }, "Events"), h("div", { class: "actions" }, this.toggle, exportButtons(EVENTS, chosen))),
      this.trouble, this.rows, h("div", { class: "actions" }, this.older));
    poll(async () => { if (this.live) await this.tail(); }, 1_500, leaving);
  }

  /** @param {boolean} live */
  follow(live) {
    this.live = live;
    this.toggle.setAttribute("aria-pressed", String(live));
    this.label.textContent = live ? "Live" : "Paused";
    announce(live ? "New events appear by themselves" : "The tail is paused");
  }

  /** Where the list goes on behind the last row that is shown; null at its end. */
  get cursor() {
    const last = this.items.at(-1);
    return (last && this.ends.get(key(last))) ?? null;
  }

  /** Up to SHOWN events, the newest or those behind a cursor. @param {string | null} [cursor] @returns {Promise<any[]>} */
  async ask(cursor) {
    const part = await get(withQuery(EVENTS, { ...this.chosen, limit: SHOWN, cursor }), this.leaving);
    if (part.items.length > 0) this.ends.set(key(part.items.at(-1)), part.next_cursor ?? null);
    return part.items;
  }

  async load() {
    this.items = await this.ask();
    this.draw(new Set());
  }

  async tail() {
    try {
      const newest = await this.ask();
      // Whoever paused meanwhile, or asked for older ones, is not disturbed.
      if (!this.live) return;
      const known = new Set(this.items.map(key));
      const fresh = newest.filter((item) => !known.has(key(item)));
      this.trouble.replaceChildren();
      if (fresh.length === 0) return;
      // A gap between what was there and what came is not papered over.
      this.items = fresh.length === SHOWN ? newest : [...fresh, ...this.items];
      this.cut();
      this.draw(new Set(fresh.map(key)));
      announce(`${fresh.length} new event${fresh.length === 1 ? "" : "s"}`);
    } catch (fault) {
      if (!this.leaving.aborted) this.trouble.replaceChildren(problemBox(fault));
    }
  }

  /** Keeps to the newest rows, down to one with which an answer ended: what is older is shown from there. */
  cut() {
    if (this.items.length > MOST) {
      const last = this.items.findLastIndex((item, at) => at < MOST && this.ends.has(key(item)));
      this.items = this.items.slice(0, last + 1);
    }
    const kept = new Set(this.items.map(key));
    for (const end of this.ends.keys()) if (!kept.has(end)) this.ends.delete(end);
  }

  async before() {
    this.follow(false);
    try {
      const from = this.cursor;
      const older = await this.ask(from);
      // Whoever made it live again meanwhile may have other rows at the end.
      if (this.cursor !== from) return;
      this.items = [...this.items, ...older];
      this.draw(new Set());
    } catch (fault) {
      this.trouble.replaceChildren(problemBox(fault));
    }
  }

  /** @param {Set<string>} fresh */
  draw(fresh) {
    this.older.hidden = !this.cursor;
    if (this.items.length > 0) return replace(this.rows, eventTable(this.items, fresh, key));
    const filtered = Object.values(this.chosen).some(Boolean);
    replace(this.rows, filtered ? empty("Nothing matches", "No event fits these filters. New ones appear here by themselves.", link("audit", { class: "button" }, "Show all"))
      : empty("No decision was audited yet", "Send test traffic through the bouncer's listener; it appears here within a second.", link("setup", { class: "button" }, "Guided setup")));
  }
}

/** @param {any} item */
const key = (item) => `${item.bouncer}/${item.id}`;

/** @param {import("../router.js").Visit} visit @param {Record<string, string | null>} chosen */
function overTime(visit, chosen) {
  const wanted = visit.query.get("span") ?? "1h";
  const [, , length, buckets] = SPANS.find(([name]) => name === wanted) ?? SPANS[1];
  const place = h("div", { class: "plot-place" });
  const draw = async () => {
    const to = Date.now();
    const { outcome, ...others } = chosen;
    try {
      const data = await get(withQuery("/v1/audit/histogram", {
        ...others, outcome, from: new Date(to - length).toISOString(), to: new Date(to).toISOString(), buckets,
      }), visit.leaving);
      replace(place, plot(data));
    } catch (fault) {
      if (!visit.leaving.aborted) place.replaceChildren(asProblem(fault).status === 404 ? notice("info", "No plot here") : problemBox(fault));
    }
  };
  void draw();
  poll(draw, 5_000, visit.leaving);
  const spans = SPANS.map(([name, label]) => {
    const query = new URLSearchParams(visit.query);
    query.set("span", name);
    return link(`audit?${query}`, { class: "button small", "aria-current": name === wanted ? "true" : null }, label);
  });
  return h("section", { "aria-labelledby": "plot-heading" }, h("div", { class: "section-head" }, h("h2", { id: "plot-heading" }, "Over time"), h("div", { class: "segments", role: "group", "aria-label": "Time span" }, spans)), place);
}
