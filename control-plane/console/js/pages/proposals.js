// Proposals: changes of binding that wait for a second person, and what became of earlier ones.
import { all, call, withQuery } from "../api.js";
import { ask } from "../dialog.js";
import { h } from "../dom.js";
import { refreshFrame } from "../frame.js";
import { cutOff, empty, problemBox, toast } from "../notice.js";
import { pill } from "../pill.js";
import { may } from "../session.js";
import { facts, table } from "../table.js";
import { time } from "../time.js";

const LIST = "/v1/proposals";
/** @type {Record<string, [import("../pill.js").Tone, string]>} */
const STATES = {
  pending: ["wait", "Waits"], approved: ["ok", "Approved, and made"], rejected: ["bad", "Rejected"],
  withdrawn: ["off", "Taken back"], expired: ["off", "Expired"], stale: ["warn", "Overtaken"],
};

/** @type {import("../router.js").Render} */
export async function proposals({ leaving, reload }) {
  const [waiting, latest] = await Promise.all([
    all(withQuery(LIST, { state: "pending" }), { signal: leaving }), all(LIST, { most: 500, signal: leaving })]);
  const decided = latest.items.filter((item) => item.state !== "pending");
  return {
    title: "Proposals",
    intro: "Changes of binding wait here for a second person, where the control plane asks for one. What only takes away is made at once.",
    content: [
      waiting.items.length === 0
        ? empty("Nothing waits", "A change that needs a second person is listed here, with what it would change.")
        : h("ul", { class: "cards wide" }, waiting.items.map((item) => card(item, reload))),
      cutOff(waiting, "waiting proposals"),
      decided.length > 0 && h("section", { "aria-labelledby": "decided" }, h("h2", { id: "decided" }, "Decided"),
        table({
          caption: "Proposals that were decided", rows: decided,
          columns: [
            { label: "Change", head: true, cell: (/** @type {any} */ row) => [h("span", { class: "mono" }, row.subject), " ", h("span", { class: "muted" }, what(row))] },
            { label: "Outcome", cell: (row) => pill(...STATES[row.state]) },
            { label: "Proposed by", cell: (row) => row.proposed_by },
            { label: "Decided by", cell: (row) => row.decided_by ?? "" },
            { label: "When", cell: (row) => (row.decided_at ? time(row.decided_at) : "") },
            { label: "Why", cell: (row) => row.decision_reason ?? "" },
          ],
        })),
      cutOff(latest, "proposals, the newest,", "'bouncerctl proposals list --state any' has them all."),
    ].filter(Boolean),
  };
}

/** The call in words. @param {any} item */
function what(item) {
  const parts = item.route.split("/").filter((/** @type {string} */ part) => part && !part.startsWith("{") && part !== "v1" && part !== "crypto");
  return `${parts.join(", ").replaceAll("-", " ")}: ${item.base_revision === 0 ? "new" : "changed"}`;
}

/** @param {any} value */
const text = (value) => (value === undefined ? "—" : Array.isArray(value) ? value.join("\n") || "none" : String(value));

/** @param {any} item @param {() => void} reload */
function card(item, reload) {
  const outcome = h("div", {});
  const decide = (/** @type {string} */ how, /** @type {Parameters<typeof ask>[0]} */ question, /** @type {string} */ done) => async () => {
    const reason = await ask(question);
    if (reason === null) return;
    try {
      if (how === "withdraw") await call("DELETE", `${LIST}/${item.id}`);
      else await call("POST", `${LIST}/${item.id}/${how}`, { body: reason ? { reason } : {} });
      toast(done);
      await refreshFrame();
      reload();
    } catch (fault) {
      outcome.replaceChildren(problemBox(fault));
    }
  };
  const why = { label: "Reason (optional)", hint: "Kept with the proposal and in the list of changes." };
  const approve = decide("approve", {
    title: `Approve the change of ${item.subject}?`, confirm: "Approve", reason: why,
    body: [`It is made at once, as ${item.proposed_by} proposed it.`],
  }, `The change of ${item.subject} is made`);
  const reject = decide("reject", {
    title: `Reject the change of ${item.subject}?`, confirm: "Reject", danger: true, reason: why, body: ["Nothing is changed."],
  }, `The change of ${item.subject} is rejected`);
  const withdraw = decide("withdraw", {
    title: `Take back the change of ${item.subject}?`, confirm: "Take back", body: ["Nothing is changed."],
  }, `The change of ${item.subject} is taken back`);
  const button = (/** @type {string} */ label, /** @type {string} */ kind, /** @type {() => void} */ click) =>
    h("button", { type: "button", class: `button ${kind}`, "aria-label": `${label} the change of ${item.subject}`, on: { click } }, label);
  return h("li", { class: "card", data: { proposal: item.id } },
    h("div", { class: "card-head" }, h("h2", { class: "mono" }, item.subject), pill(...STATES[item.state])),
    facts([["Change", what(item)], ["Proposed by", item.proposed_by], ["When", time(item.proposed_at)], ["Ends", time(item.expires_at)], ["Reason", item.reason]]),
    table({
      caption: `What would change of ${item.subject}`, rows: item.changes,
      columns: [
        { label: "Field", head: true, cell: (/** @type {any} */ row) => row.field.replaceAll("_", " ") },
        { label: "Before", cell: (row) => h("span", { class: "mono lines" }, text(row.before)) },
        { label: "After", cell: (row) => h("span", { class: "mono lines" }, text(row.after)) },
      ],
    }),
    outcome,
    item.may_decide || item.mine ? "" : h("p", { class: "muted" }, may("write")
      ? "You are no second person here: your token came from the one it was proposed with, or the other way round; or it is about more than you may change."
      : "Your role cannot decide on changes."),
    h("div", { class: "actions" },
      item.may_decide ? [button("Approve", "primary", approve), button("Reject", "danger", reject)] : [],
      item.mine ? button("Take back", "", withdraw) : "",
      item.mine ? h("p", { class: "muted" }, "Yours: somebody else decides.") : ""));
}
