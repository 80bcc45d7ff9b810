// Overview: whether each part is healthy, what to do where it isn't, and what bouncers report in effect.
import { get, withQuery } from "../api.js";
import { code, h, replace } from "../dom.js";
import { icon } from "../icons.js";
import { notice, problemBox } from "../notice.js";
import { checkPill } from "../pill.js";
import { plot } from "../plot.js";
import { poll } from "../poll.js";
import { link } from "../router.js";
import { may } from "../session.js";
import { effectiveState, savedOf } from "./effective.js";

const HOUR = 3_600_000;
const MOST_DOUBTS = 5;

/** @type {import("../router.js").Render} */
export async function overview({ leaving }) {
  const parts = h("section", { "aria-labelledby": "parts-title" });
  const effective = h("section", { "aria-labelledby": "effective-title" });
  const recent = h("section", { "aria-labelledby": "recent-title" });
  let before = "";
  const draw = async () => {
    const [status, bridge] = await Promise.all([get("/v1/bootstrap/status", leaving), get("/v1/policy-bridge/health", leaving)]);
    // Ages change by themselves; anything else is worth drawing anew.
    const now = JSON.stringify([status, bridge], (key, value) => (["age_ms", "last_seen_at", "clock_skew_ms"].includes(key) ? undefined : value));
    if (now === before) return;
    before = now;
    replace(parts, ...partRows(status, bridge));
    const saved = status.feature_flag.enabled ? await savedOf(bridge.items, leaving) : null;
    replace(effective, h("h2", { id: "effective-title" }, "In effect"),
      h("p", { class: "intro" }, "What each bouncer reports that it holds and uses, beside what is saved here."),
      effectiveState(bridge.items, bridge.epoch, saved));
  };
  const drawRecent = async () => {
    if (!may("audit")) return;
    const to = Date.now();
    const data = await get(withQuery("/v1/audit/histogram", { from: new Date(to - HOUR).toISOString(), to: new Date(to).toISOString(), buckets: 60 }), leaving);
    replace(recent, h("div", { class: "section-head" }, h("h2", { id: "recent-title" }, "Decisions of the last hour"),
      link("audit", { class: "button small" }, "Open the audit", icon("more"))), plot(data));
  };
  const trouble = h("div", {});
  const round = async () => {
    try {
      await draw();
      await drawRecent();
      trouble.replaceChildren();
    } catch (fault) {
      if (!leaving.aborted) trouble.replaceChildren(problemBox(fault));
    }
  };
  await draw();
  void drawRecent().catch(() => {});
  poll(round, 5_000, leaving);
  return { title: "Overview", content: [trouble, parts, effective, recent] };
}

/** @param {any} status @param {any} bridge */
function partRows(status, bridge) {
  /** @type {[string, any, [string, string] | null, [string, string, any][]?][]} */
  const parts = [
    ["Control plane", controlPlane(bridge), null],
    ["Feature flag", status.feature_flag, ["flags", "Feature flags"]],
    ["Cryptographic provider", status.provider_settings, status.feature_flag.enabled ? ["provider", "Provider"] : ["flags", "Feature flags"]],
    ["Envelope secrets", status.envelope_secrets, ["secrets", "Secrets"], status.envelope_secrets.warnings.map((/** @type {any} */ one) => [`secrets?q=${encodeURIComponent(one.logical_path)}`, one.logical_path, one.warnings])],
    ["Bouncers", status.bouncers, ["bouncers", "Bouncers"]],
    ["Protected resources", status.protected_resources, ["resources", "Resources"], status.protected_resources.warnings.map((/** @type {any} */ one) => [`resources/${one.name}`, one.name, one.warnings])],
    ["Intercept and audit", status.audit, may("audit") ? ["audit", "Decisions"] : null],
  ];
  const wrong = parts.filter(([, check]) => !check.ok).length;
  const verdict = wrong === 0
    ? notice("ok", "Every part is healthy", h("p", {}, "Credentials are released where policy allows it, and audited."))
    : notice("warn", wrong === 1 ? "One part needs attention" : `${wrong} parts need attention`,
      h("p", {}, "What to do stands beside each. ", link("setup", {}, "The guided setup"), " goes through them in order."));
  return [
    h("h2", { id: "parts-title", class: "visually-hidden" }, "Parts"), verdict,
    h("ul", { class: "parts" }, parts.map(([title, check, to, doubtful = []]) => h("li", { class: check.ok ? "part" : "part part-bad", data: { part: title } },
      h("h3", {}, title), h("div", {}, checkPill(check)),
      h("div", { class: "part-text" }, h("p", {}, check.detail),
        check.next && !(check.ok && doubtful.length > 0) && h("p", { class: "next" }, h("strong", {}, "What to do: "), check.next),
        doubts(doubtful)),
      to ? h("p", { class: "part-link" }, link(to[0], {}, to[1], icon("more"))) : ""))),
  ];
}

/** What is stored but may not do what was meant. @param {[string, string, any[]][]} doubtful */
function doubts(doubtful) {
  if (doubtful.length === 0) return null;
  const lines = doubtful.slice(0, MOST_DOUBTS).map(([to, name, warnings]) => h("li", {}, link(to, {}, code(name)), ": ", warnings.map((warning) => warning.detail).join(" ")));
  const more = doubtful.length - lines.length;
  return h("details", { id: `doubts-${doubtful[0][1]}` }, h("summary", {}, doubtful.length === 1 ? "1 with a warning" : `${doubtful.length} with warnings`),
    h("ul", { class: "doubts" }, lines, more > 0 && h("li", { class: "muted" }, `and ${more} more`)));
}

/** The process itself. That it answered says that its database works. @param {any} bridge */
function controlPlane(bridge) {
  if (bridge.identity && bridge.listening) return { ok: true, detail: `Database, identity and Policy Bridge work. Policy epoch ${bridge.epoch}.`, next: "" };
  return bridge.identity
    ? { ok: false, detail: "The Policy Bridge takes no connections.", next: "Restart the control plane; its log says why the Policy Bridge ended." }
    : { ok: false, detail: "The control plane has no valid SVID, so no bouncer can connect.", next: "Check that the SPIFFE Workload API of identity.workload_api is up and has an entry for this process." };
}
