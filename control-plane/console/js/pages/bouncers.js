// Bouncer Management → Bouncers: who may speak on the Policy Bridge, and how each is.
import { all, call, etagOf, get } from "../api.js";
import { changedMeanwhile } from "../changed.js";
import { commands } from "../copy.js";
import { ask } from "../dialog.js";
import { code, h, replace } from "../dom.js";
import { form } from "../forms.js";
import { icon } from "../icons.js";
import { asProblem, cutOff, empty, notice, problemBox, toast } from "../notice.js";
import { pill } from "../pill.js";
import { poll } from "../poll.js";
import { link } from "../router.js";
import { may } from "../session.js";
import { facts, table } from "../table.js";
import { span, time } from "../time.js";
import { bridgePill, lag, savedOf, secretsInUse } from "./effective.js";
import { identityOf, KINDS, kindOf, readRole, readSpiffeId } from "./identity.js";
import { bouncerLines, values } from "./lines.js";

/** @type {import("../router.js").Render} */
export async function bouncers(visit) {
  const [name] = visit.rest;
  if (name === "new") return register(visit);
  if (name) return one(visit, name);
  const list = h("div", {});
  let before = "";
  const load = async () => {
    const found = await all("/v1/bouncers", { signal: visit.leaving });
    const now = JSON.stringify(found, (key, value) => (["age_ms", "last_seen_at", "clock_skew_ms"].includes(key) ? undefined : value));
    if (now === before) return;
    before = now;
    replace(list, listed(found.items), cutOff(found, "bouncers"));
  };
  await load();
  poll(load, 3_000, visit.leaving);
  return {
    title: "Bouncers",
    intro: "A bouncer is the resolver beside an Envoy. It proves who it is by its SVID or its IAM role, takes policy, and hands in audit.",
    actions: may("write", "everywhere") ? [link("bouncers/new", { class: "button primary" }, icon("add"), "Register a bouncer")] : [],
    content: list,
  };
}

/** @param {any[]} items */
function listed(items) {
  if (items.length === 0) {
    return empty("No bouncer is registered", "Register one by the SPIFFE ID of its resolver's SVID, or by its IAM role; then start the resolver, and it appears here as connected.",
      may("write", "everywhere") ? link("bouncers/new", { class: "button primary" }, "Register a bouncer") : "");
  }
  return table({
    caption: "Bouncers",
    rows: items,
    data: (row) => ({ bouncer: row.name }),
    columns: [
      { label: "Name", head: true, cell: (row) => [link(`bouncers/${row.name}`, {}, row.name), h("div", { class: "muted small" }, kindOf(row)), h("div", { class: "muted" }, code(identityOf(row)))] },
      { label: "Health", cell: (row) => [bridgePill(row.bridge), !row.bridge.ok && h("div", { class: "small" }, row.bridge.detail)] },
      { label: "Epoch", cell: (row) => (row.bridge.state === "never_seen" ? "—" : String(row.bridge.epoch_acked)) },
      { label: "Lag", class: "whole", cell: (row) => lag(row.bridge) },
      { label: "Version", cell: (row) => row.bridge.version ?? "—" },
      { label: "Resolvers", cell: (row) => String(row.bridge.instances) },
      { label: "Last heard of", cell: (row) => time(row.bridge.last_seen_at) },
    ],
  });
}

/** @param {import("../router.js").Visit} visit @param {string} name */
async function one(visit, name) {
  const path = `/v1/bouncers/${encodeURIComponent(name)}`;
  const region = h("div", { class: "stack" });
  const outcome = h("div", {});
  let before = "";
  /** @type {any} */
  let shown = null;
  const load = async () => {
    const item = await get(path, visit.leaving);
    const now = JSON.stringify(item, (key, value) => (["age_ms", "clock_skew_ms"].includes(key) ? undefined : value));
    if (now === before) return;
    before = now;
    const saved = await savedOf([item], visit.leaving);
    replace(region, ...detail(item, saved));
    shown = item;
  };
  await load();
  poll(load, 3_000, visit.leaving);
  const remove = h("button", { type: "button", class: "button danger" }, "Remove …");
  remove.addEventListener("click", async () => {
    const etag = etagOf(shown);
    const sure = await ask({
      title: `Remove the bouncer ${name}?`, danger: true, confirm: "Remove the bouncer",
      body: ["Its sessions on the Policy Bridge end, and it gets no policy any more. When its snapshot is too old (bridge.snapshot_max_age_s), it denies every protected stream.",
        "A bouncer that still guards protected resources is not removed."],
    });
    if (sure === null) return;
    try {
      await call("DELETE", path, { etag });
      toast(`The bouncer ${name} is removed`);
      visit.go("bouncers");
    } catch (fault) {
      const problem = asProblem(fault);
      outcome.replaceChildren(changedMeanwhile(problem, () => get(path), visit.reload)
        ?? problemBox(problem, link(`resources?bouncer=${encodeURIComponent(name)}`, { class: "button" }, "Its protected resources")));
    }
  });
  return { title: name, actions: may("write", "everywhere") ? [remove] : [], content: [outcome, region] };
}

/** @param {any} item @param {import("./effective.js").Saved} saved */
function detail(item, saved) {
  const { bridge } = item;
  const skew = bridge.clock_skew_ms;
  return [
    bridge.ok ? notice(bridge.dev ? "warn" : "ok", bridge.detail)
      : h("div", { class: "notice warn" }, icon("warn"), h("div", { class: "notice-body" }, h("p", { class: "notice-title" }, bridge.detail),
        bridge.next && h("p", {}, h("strong", {}, "What to do: "), bridge.next))),
    h("section", { "aria-labelledby": "in-effect" }, h("h2", { id: "in-effect" }, "In effect"), facts([
      ["Health", bridgePill(bridge)],
      ["Policy epoch taken", `${bridge.epoch_acked} (${lag(bridge)})`],
      ["Resolvers connected", String(bridge.instances)],
      ["Version", bridge.version ?? "unknown"],
      ["Ready", bridge.ready === undefined ? "not said" : bridge.ready ? pill("ok", "Ready") : [pill("bad", "Not ready"), " ", bridge.not_ready.map((/** @type {string} */ code) => h("code", { class: "reason" }, code))]],
      ["Last heard of", time(bridge.last_seen_at, { inline: true })],
      ["Clock", skew === undefined ? "not said" : Math.abs(skew) < 1_000 ? "agrees with the control plane's" : `${span(Math.abs(skew))} ${skew > 0 ? "ahead" : "behind"}`],
      ["Audit events missing", bridge.audit_missing ? pill("warn", String(bridge.audit_missing)) : "none"],
      ["Mode", bridge.dev ? pill("warn", "--dev: not for production") : "production"],
      ["Policy refused", bridge.refused && h("code", { class: "reason" }, bridge.refused)],
    ]), bridge.problems.length > 0 && table({
      caption: "What it can never use", rows: bridge.problems,
      columns: [{ label: "It can never use", head: true, class: "path", cell: (row) => h("code", {}, row.subject) }, { label: "Why", cell: (row) => h("code", { class: "reason" }, row.reason) }],
    }), secretsInUse([item], saved)),
    h("section", { "aria-labelledby": "saved" }, h("h2", { id: "saved" }, "Saved"), facts([
      [kindOf(item), code(identityOf(item))],
      ["Registered", h("span", {}, "by ", h("strong", {}, item.created_by), " ", time(item.created_at, { inline: true }))],
      ["Guards", link(`resources?bouncer=${encodeURIComponent(item.name)}`, {}, "its protected resources")],
    ])),
  ];
}

/** Examples, by what the API calls them. @type {Record<string, string>} */
const EXAMPLES = { spiffe_id: values().identity, iam_role_arn: "arn:aws:iam::123456789012:role/bouncer-payments-east" };

/** @param {import("../router.js").Visit} visit @returns {Promise<import("../router.js").Page>} */
async function register(visit) {
  const made = form({
    name: "Register a bouncer", submit: "Register the bouncer",
    fields: [
      { name: "name", label: "Name", required: true, mono: true, placeholder: "payments-east", problems: ["name_taken"], hint: "As “bouncer” in its resolver.toml, and as bouncer= in the AAD of its credentials." },
      {
        name: "known_by", label: "Known by", kind: "radio", required: true, value: "spiffe_id",
        options: [
          { value: "spiffe_id", label: KINDS.spiffe_id, hint: "Its resolver has an SVID, from SPIRE or another Workload API." },
          { value: "iam_role_arn", label: KINDS.iam_role_arn, hint: "Its resolver runs with a role in AWS and without SPIRE. The control plane needs [bridge.iam] for it; its audit is chained, not signed." },
        ],
      },
      { name: "spiffe_id", label: "SPIFFE ID of its resolver", required: true, mono: true, placeholder: EXAMPLES.spiffe_id, reads: readSpiffeId, problems: ["spiffe_id_taken"], hint: "Who presents this SVID on the Policy Bridge is this bouncer." },
      { name: "iam_role_arn", label: "IAM role of its resolver", required: true, mono: true, placeholder: EXAMPLES.iam_role_arn, reads: readRole, problems: ["iam_role_taken"], hint: "The role's ARN, without its path. Whoever may assume the role is this bouncer." },
    ],
    actions: [link("bouncers", { class: "button" }, "Cancel")],
    send: async ({ known_by: _, ...body }) => {
      await call("POST", "/v1/bouncers", { body });
      toast(`The bouncer ${body.name} is registered`);
      visit.go(`bouncers/${body.name}`);
    },
  });
  const typed = (/** @type {string} */ name) => String(made.field(name).value);
  const lines = h("div", { class: "stack" });
  const follow = () => {
    const kind = typed("known_by");
    for (const name of Object.keys(KINDS)) made.field(name).row.hidden = name !== kind;
    const own = values({ bouncer: typed("name"), identity: typed(kind) || EXAMPLES[kind] });
    lines.replaceChildren(...bouncerLines(own).map(([name, text]) => commands(name, text)));
  };
  made.element.addEventListener("input", follow);
  follow();
  return {
    title: "Register a bouncer",
    content: [made.element, h("section", { "aria-labelledby": "lines" }, h("h2", { id: "lines" }, "From the command line"), lines)],
  };
}
