// Settings → API tokens: who may call the API, as what, until when. A token's text is shown once, when it is made, and is
// not kept on any page.
import { all, call } from "../api.js";
import { copyButton } from "../copy.js";
import { ask } from "../dialog.js";
import { h } from "../dom.js";
import { form } from "../forms.js";
import { icon } from "../icons.js";
import { notice, problemBox, toast } from "../notice.js";
import { pill } from "../pill.js";
import { link } from "../router.js";
import { table } from "../table.js";
import { time } from "../time.js";

const LIST = "/v1/tokens";
const ROLES = [
  { value: "viewer", label: "Viewer", hint: "Sees what is registered and how it is." },
  { value: "auditor", label: "Auditor", hint: "That, and the audit." },
  { value: "operator", label: "Operator", hint: "That, and registers, changes and deletes bouncers, resources and secrets." },
  { value: "admin", label: "Administrator", hint: "That, and hands out tokens, sets flags and the provider." },
];

/** @type {import("../router.js").Render} */
export async function tokens(visit) {
  if (visit.rest[0] === "new") return make(visit);
  const { items } = await all(LIST, { most: Infinity, signal: visit.leaving });
  const outcome = h("div", {});
  const revoke = (/** @type {any} */ row) => async () => {
    const sure = await ask({
      title: `Revoke the token ${row.name}?`, danger: true, confirm: "Revoke",
      body: ["It stops working at once, and the sessions that were opened with it end. This cannot be taken back."],
    });
    if (sure === null) return;
    try {
      await call("DELETE", `${LIST}/${encodeURIComponent(row.id)}`);
      toast(`The token ${row.name} is revoked`);
      visit.reload();
    } catch (fault) {
      outcome.replaceChildren(problemBox(fault));
    }
  };
  // Whoever is limited to paths administers nothing.
  const own = items.filter((/** @type {any} */ item) => item.role === "admin" && item.path_prefixes.length === 0 && state(item).live && !item.single_use);
  return {
    title: "API tokens",
    intro: "For bouncerctl, for scripts, and for signing in here.",
    actions: [link("tokens/new", { class: "button primary" }, icon("add"), "Make a token")],
    content: [
      outcome,
      own.length === 0 ? notice("warn", "No administrator has a token that lasts",
        h("p", {}, "The first token is used up by signing in with it. Make one now: when this session ends, nobody could sign in any more.")) : "",
      table({
        caption: "API tokens", rows: [...items].reverse(), data: (row) => ({ token: row.name }),
        columns: [
          { label: "Name", head: true, cell: (row) => h("strong", {}, row.name) },
          { label: "Role", cell: (row) => h("span", { class: "tag" }, row.role) },
          { label: "Limited to", class: "path", cell: (row) => (row.path_prefixes.length === 0 ? h("span", { class: "muted" }, "no limit") : row.path_prefixes.map((/** @type {string} */ one) => h("div", {}, h("code", {}, one)))) },
          { label: "Made", cell: (row) => [time(row.created_at), h("div", { class: "muted small" }, `by ${row.created_by}`)] },
          { label: "Ends", cell: (row) => (row.expires_at ? time(row.expires_at) : h("span", { class: "muted" }, row.single_use ? "with its first use" : "never")) },
          { label: "State", cell: (row) => state(row).shown },
          { label: "", cell: (row) => (state(row).live ? h("button", { type: "button", class: "button small danger", "aria-label": `Revoke ${row.name}`, on: { click: revoke(row) } }, "Revoke …") : "") },
        ],
      }),
    ],
  };
}

/** @param {any} row */
function state(row) {
  if (row.revoked_at) return { live: false, shown: pill("off", row.single_use ? "Used up" : "Revoked") };
  if (row.expires_at && Date.parse(row.expires_at) < Date.now()) return { live: false, shown: pill("off", "Ended") };
  return { live: true, shown: pill("ok", "Valid") };
}

/** @param {import("../router.js").Visit} visit @returns {Promise<import("../router.js").Page>} */
async function make(visit) {
  const place = h("div", {});
  const { element } = form({
    name: "Make a token", submit: "Make the token",
    fields: [
      { name: "name", label: "Name", required: true, mono: true, placeholder: "deploy-pipeline", hint: "Stands for the token in the audit." },
      { name: "role", label: "Role", kind: "radio", required: true, value: "viewer", options: ROLES },
      { name: "path_prefixes", label: "Limited to these logical paths", kind: "lines", mono: true, placeholder: "protected-resources/payments-api/*", hint: "One a line; * as the last segment for all below. Empty is no limit." },
      { name: "expires_in_days", label: "Life in days", kind: "number", required: true, value: 90, hint: "1 to 366." },
    ],
    actions: [link("tokens", { class: "button" }, "Cancel")],
    send: async (typed) => {
      // What is no number is the API's to refuse, as a number that is out of range.
      const days = /^\d{1,4}$/.test(typed.expires_in_days) ? Number(typed.expires_in_days) : 0;
      const { json } = await call("POST", LIST, { body: { ...typed, expires_in_days: days } });
      place.replaceChildren(made(json));
      element.remove();
      /** @type {HTMLElement} */ (place.firstElementChild).focus();
    },
  });
  return { title: "Make a token", content: [place, element] };
}

/** @param {any} json */
function made(json) {
  return h("div", { class: "notice ok", tabindex: -1, role: "group", "aria-label": "The new token" }, icon("ok"), h("div", { class: "notice-body" },
    h("p", { class: "notice-title" }, `The token ${json.name} is made`),
    h("p", {}, "It is shown this once. Put it where secrets belong; whoever has it is ", h("strong", {}, json.role), "."),
    h("p", { class: "copyable" }, h("code", { class: "token" }, json.token), copyButton(() => json.token, "the token")),
    h("p", {}, link("tokens", {}, "Back to the tokens"))));
}
