// The guided first set-up: the operator guide's four steps, how far each has come, and the way there by form or by
// command line.
import { get } from "../api.js";
import { commands } from "../copy.js";
import { h, replace } from "../dom.js";
import { form } from "../forms.js";
import { notice } from "../notice.js";
import { checkPill, pill } from "../pill.js";
import { poll } from "../poll.js";
import { link } from "../router.js";
import { bouncerLines, flagLines, resourceLines, secretLines, settingsLines, values, verifyLines } from "./lines.js";

/**
 * What belongs to each step: what it is for, where it is done here, and the lines.
 * @type {Record<number, { why: string, parts: (status: any, v: import("./lines.js").Values) => [string, any, [string, string] | null, import("./lines.js").Lines][] }>}
 */
const STEPS = {
  1: {
    why: "Turn the feature on, and say under whose key credentials are wrapped. The key stays the customer's.",
    parts: (status, v) => [
      ["Turn on the feature flag", status.feature_flag, ["flags", "Feature flags"], flagLines(v)],
      ["Choose the provider", status.provider_settings, status.feature_flag.enabled ? ["provider", "Cryptographic provider"] : null, settingsLines(v)],
    ],
  },
  2: {
    why: "Wrap each upstream credential where its plaintext may be, under your own key, and register what comes out. No plaintext comes here.",
    parts: (status, v) => [["Register envelope secrets", status.envelope_secrets, ["secrets/new", "Register an envelope"], secretLines(v)]],
  },
  3: {
    why: "Each bouncer is known by the SPIFFE ID of its resolver, or by an IAM role. A protected resource says which cluster needs which credential, and for whom.",
    parts: (status, v) => [
      ["Register a bouncer and let it connect", status.bouncers, ["bouncers/new", "Register a bouncer"], bouncerLines(v)],
      ["Protect a resource", status.protected_resources, ["resources/new", "Protect a resource"], resourceLines(v)],
    ],
  },
  4: {
    why: "Send test traffic through the bouncer's listener. The audit must show decisions, and no decrypted payload.",
    parts: (status, v) => [["See a credential released", status.audit, ["audit", "Audit"], verifyLines(v)]],
  },
};

/** @type {Partial<import("./lines.js").Values>} */
let own = {};

/** @type {import("../router.js").Render} */
export async function setup({ leaving }) {
  const steps = h("ol", { class: "steps" });
  const overall = h("div", {});
  let before = "";
  /** @type {any} */
  let status = null;
  const draw = (force = false) => {
    const now = JSON.stringify(status, (key, value) => (["age_ms", "last_seen_at", "clock_skew_ms"].includes(key) ? undefined : value));
    if (now === before && !force) return;
    before = now;
    replace(overall, status.ok ? notice("ok", "Every step is done", h("p", {}, link("overview", {}, "The overview"), " keeps watch from here on."))
      : progress(status.steps));
    const next = status.steps.find((/** @type {any} */ step) => !step.ok)?.step;
    replace(steps, ...status.steps.map((/** @type {any} */ step) => stepItem(step, status, step.step === next)));
  };
  const load = async () => {
    status = await get("/v1/bootstrap/status", leaving);
    draw();
  };
  await load();
  poll(load, 5_000, leaving);
  return {
    title: "Guided setup",
    intro: "Four steps from nothing to a first intercepted stream, each by form here or by command line.",
    content: [overall, ownValues(() => draw(true)), steps],
  };
}

/** @param {any[]} steps */
function progress(steps) {
  const done = steps.filter((step) => step.ok).length;
  return h("p", { class: "progress-line" }, h("strong", {}, `${done} of ${steps.length} steps done. `), "This page looks again by itself.");
}

/** The reader's own names, for the lines. @param {() => void} changed */
function ownValues(changed) {
  const example = values();
  const text = (/** @type {keyof import("./lines.js").Values} */ name, /** @type {string} */ label) => (
    { name, label, mono: true, placeholder: String(example[name]), value: String(own[name] ?? "") });
  const made = form({
    name: "Your own values", submit: "Put into the lines below",
    fields: [text("key", "KMS key ARN"), text("bouncer", "Bouncer"), text("identity", "Its resolver's SPIFFE ID or IAM role"), text("path", "Logical path"),
      text("upstream", "Upstream, host:port"), text("callers", "Caller, a SPIFFE ID or prefix")],
    send: async (typed) => {
      own = { ...typed, callers: [typed.callers].filter(Boolean) };
      changed();
    },
  });
  return h("details", { class: "own-values", id: "own-values" }, h("summary", {}, "Put your own names into the lines"),
    h("p", { class: "hint" }, "They stay on this page and are sent nowhere."), made.element);
}

/** @param {any} step @param {any} status @param {boolean} next */
function stepItem(step, status, next) {
  const { why, parts } = STEPS[step.step];
  return h("li", { class: `step ${step.ok ? "done" : ""}`, data: { step: step.step }, "aria-current": next ? "step" : null },
    h("div", { class: "step-head" }, h("span", { class: "step-number", "aria-hidden": "true" }, step.step),
      h("h2", {}, h("span", { class: "visually-hidden" }, `Step ${step.step}: `), step.title),
      step.ok ? pill("ok", "Done") : next ? pill("warn", "Next") : pill("wait", "To do")),
    h("div", { class: "step-body" }, h("p", {}, why),
      parts(status, values(own)).map(([title, check, to, lines], index) => h("section", { class: "step-part" },
        h("div", { class: "card-head" }, h("h3", {}, title), checkPill(check)),
        h("p", {}, check.detail),
        !check.ok && check.next && h("p", { class: "next" }, h("strong", {}, "What to do: "), check.next),
        check.ok && check.next && h("p", {}, link("overview", {}, "See the warnings"), " in the overview."),
        to && !check.ok && h("p", { class: "actions" }, link(to[0], { class: "button" }, to[1])),
        h("details", { id: `lines-${step.step}-${index}`, open: next && !check.ok }, h("summary", {}, "By command line"),
          lines.map(([name, text]) => commands(`${title}, ${name}`, text)))))));
}
