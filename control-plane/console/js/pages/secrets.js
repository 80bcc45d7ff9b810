// Envelope secrets: the metadata of wrapped credentials, by logical path, with generations, age and expiry.
import { all, withQuery } from "../api.js";
import { code, h } from "../dom.js";
import { filterBar, only } from "../filters.js";
import { icon } from "../icons.js";
import { asProblem, cutOff, empty } from "../notice.js";
import { enabledPill, pill } from "../pill.js";
import { link } from "../router.js";
import { may } from "../session.js";
import { table } from "../table.js";
import { span, time } from "../time.js";
import { flagIsOff } from "./provider.js";
import { secret } from "./secret.js";
import { registerSecret } from "./secret_form.js";

const DAY = 86_400_000;
/** Filters by expiry, in days from now. */
const SOON = [["7", "Within 7 days"], ["30", "Within 30 days"], ["90", "Within 90 days"]];

/** @type {import("../router.js").Render} */
export async function secrets(visit) {
  try {
    const [id] = visit.rest;
    if (id === "new") return await registerSecret(visit);
    if (id) return await secret(visit, id);
    return await list(visit);
  } catch (fault) {
    if (asProblem(fault).code === "feature_disabled") return flagIsOff("Envelope secrets");
    throw fault;
  }
}

/** @param {import("../router.js").Visit} visit @returns {Promise<import("../router.js").Page>} */
async function list(visit) {
  const chosen = only(visit.query, ["q", "provider", "enabled"]);
  const days = Number(visit.query.get("expires"));
  const before = days > 0 ? new Date(Date.now() + days * DAY).toISOString() : null;
  const [found, bouncers] = await Promise.all([
    all(withQuery("/v1/crypto/envelope-secrets", { ...chosen, expires_before: before }), { signal: visit.leaving }), all("/v1/bouncers", { signal: visit.leaving }),
  ]);
  const filtered = Object.values(chosen).some(Boolean) || before;
  return {
    title: "Envelope secrets",
    intro: "Metadata of wrapped credentials. What is registered here can be unwrapped by its bouncer only, under the customer's own key.",
    actions: may("write") ? [link("secrets/new", { class: "button primary" }, icon("add"), "Register an envelope")] : [],
    content: [
      filterBar({
        label: "Envelope secrets", query: visit.query, go: (query) => visit.go(`secrets${query ? `?${query}` : ""}`),
        filters: [
          { name: "q", label: "Path contains", wide: true },
          { name: "provider", label: "Provider", options: [{ value: "kms_envelope", label: "KMS envelope" }, { value: "vault_delegate", label: "Vault delegate" }] },
          { name: "enabled", label: "State", options: [{ value: "true", label: "Enabled" }, { value: "false", label: "Disabled" }] },
          { name: "expires", label: "Certificate expires", options: SOON.map(([value, label]) => ({ value, label })) },
        ],
      }),
      found.items.length > 0 ? rows(found.items, ends(bouncers.items)) : filtered
        ? empty("Nothing matches", "No envelope secret fits these filters.", link("secrets", { class: "button" }, "Show all"))
        : empty("No envelope is registered", "Wrap a credential with bouncerctl wrap, on a machine that may hold it, and register what comes out.",
          may("write") ? link("secrets/new", { class: "button primary" }, "Register an envelope") : ""),
      cutOff(found, "envelope secrets", "Narrow the filters to see them."),
      cutOff(bouncers, "bouncers", "When a certificate ends is not looked up at the others."),
    ].filter(Boolean),
  };
}

/** The earliest end of each credential that bouncers report in use. @param {any[]} bouncers */
export function ends(bouncers) {
  /** @type {Map<string, string>} */
  const earliest = new Map();
  for (const use of bouncers.flatMap((bouncer) => bouncer.bridge.secrets)) {
    const known = earliest.get(use.logical_path);
    if (use.not_after && (!known || Date.parse(use.not_after) < Date.parse(known))) earliest.set(use.logical_path, use.not_after);
  }
  return earliest;
}

/** When its certificate ends, as it is registered or as a bouncer found it. @param {any} row @param {Map<string, string>} inUse */
export function expiry(row, inUse) {
  const end = row.expires_at ?? inUse.get(row.logical_path);
  if (!end) return h("span", { class: "muted" }, "not known until unwrapped");
  const left = Date.parse(end) - Date.now();
  if (left < 0) return [pill("bad", "Expired"), " ", time(end)];
  return left < 30 * DAY ? [pill("warn", `In ${span(left)}`), " ", time(end)] : time(end);
}

/** How long it has not been rotated. @param {any} row */
export const age = (row) => h("span", { title: `Registered ${row.created_at}` }, span(Date.now() - Date.parse(row.created_at)));

/** @param {any[]} items @param {Map<string, string>} inUse */
function rows(items, inUse) {
  return table({
    caption: "Envelope secrets", rows: items, data: (row) => ({ secret: row.logical_path }),
    columns: [
      { label: "Logical path", head: true, class: "path", cell: (row) => link(`secrets/${row.id}`, {}, code(row.logical_path)) },
      { label: "Generation", cell: (row) => String(row.generation) },
      { label: "Provider", cell: (row) => h("span", { class: "tag" }, row.provider === "kms_envelope" ? "KMS" : "Vault") },
      { label: "Rotation age", cell: age },
      { label: "Expires", cell: (row) => expiry(row, inUse) },
      { label: "State", cell: (row) => (!row.enabled || row.warnings.length === 0 ? enabledPill(row.enabled) : pill("warn", row.warnings.length === 1 ? "1 warning" : `${row.warnings.length} warnings`)) },
    ],
  });
}
