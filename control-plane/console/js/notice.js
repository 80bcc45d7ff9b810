// Outcomes, in words: what happened, why, what to do, and which request it was.
import { Problem, Waiting } from "./api.js";
import { announce, h } from "./dom.js";
import { copyable } from "./copy.js";
import { icon } from "./icons.js";

/** @param {unknown} fault @returns {Problem} */
export function asProblem(fault) {
  if (fault instanceof Problem) return fault;
  console.error(fault);
  return new Problem({
    title: "The console ran into a fault of its own",
    detail: String(/** @type {any} */ (fault)?.message ?? fault),
    next: "Reload the page. If it lasts, use bouncerctl, and report what you saw.",
  }, 0);
}

/**
 * A problem in full. It announces itself.
 * @param {unknown} fault
 * @param {...Node} actions
 */
export function problemBox(fault, ...actions) {
  const problem = asProblem(fault);
  if (problem instanceof Waiting) return waitingBox(problem.proposal);
  const id = problem.requestId;
  return h(
    "div",
    { class: "notice bad", role: "alert", data: { problem: problem.code } },
    icon("bad"),
    h(
      "div",
      { class: "notice-body" },
      h("p", { class: "notice-title" }, problem.title),
      problem.detail && h("p", {}, problem.detail),
      problem.next && h("p", {}, h("strong", {}, "What to do: "), problem.next),
      id && h("p", { class: "request-id" }, "Request ", copyable(id, "the request's id")),
      actions.length > 0 && h("div", { class: "actions" }, actions),
    ),
  );
}

/** A change that waits. It announces itself. @param {any} proposal */
function waitingBox(proposal) {
  return h("div", { class: "notice info", role: "status", data: { proposal: proposal.id } }, icon("wait"),
    h("div", { class: "notice-body" }, h("p", { class: "notice-title" }, "The change waits for a second person"),
      h("p", {}, `Nothing is changed yet. Somebody else decides on the change of ${proposal.subject}.`),
      h("p", {}, h("a", { href: "/console/proposals" }, "See the proposals"))));
}

/**
 * @param {"ok" | "warn" | "info"} tone
 * @param {string} title
 * @param {...(Node | string | null | false)} rest
 */
export function notice(tone, title, ...rest) {
  return h(
    "div",
    { class: `notice ${tone}` },
    icon(tone),
    h("div", { class: "notice-body" }, h("p", { class: "notice-title" }, title), rest),
  );
}

/** The API's warnings about what was stored. @param {{ code: string, detail: string }[]} warnings */
export function warningList(warnings) {
  if (!warnings?.length) return null;
  return h(
    "div",
    { class: "notice warn" },
    icon("warn"),
    h(
      "div",
      { class: "notice-body" },
      h("p", { class: "notice-title" }, warnings.length === 1 ? "Stored, with a warning" : `Stored, with ${warnings.length} warnings`),
      h("ul", { class: "warnings" }, warnings.map((w) => h("li", {}, w.detail, " ", h("code", { class: "muted" }, w.code)))),
    ),
  );
}

/**
 * Says that a list was cut off, where it was.
 * @param {{ items: any[], more: boolean }} list
 * @param {string} what
 * @param {string} [next] what to do
 */
export function cutOff({ items, more }, what, next = "") {
  return more && h("p", { class: "muted cut-off" }, `Only the first ${items.length.toLocaleString("en")} ${what} are shown; there are more. ${next}`);
}

let leave = 0;

/** A word about what was done, at the foot of the page, and for screen readers. @param {string} text */
export function toast(text) {
  announce(text);
  document.querySelector(".toast")?.remove();
  const element = h("div", { class: "toast", "aria-hidden": "true" }, icon("ok"), h("span", {}, text));
  document.body.append(element);
  clearTimeout(leave);
  leave = setTimeout(() => element.remove(), 6_000);
}

/** What to do where there is nothing yet. @param {string} title @param {string} text @param {...Node} actions */
export function empty(title, text, ...actions) {
  return h(
    "div",
    { class: "empty" },
    h("p", { class: "empty-title" }, title),
    h("p", {}, text),
    actions.length > 0 && h("div", { class: "actions" }, actions),
  );
}
