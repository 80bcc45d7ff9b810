// Settings → Cryptographic provider: under whose key credentials are wrapped.
import { call, etagOf, get } from "../api.js";
import { changedMeanwhile } from "../changed.js";
import { h } from "../dom.js";
import { form } from "../forms.js";
import { asProblem, notice, toast, warningList } from "../notice.js";
import { link } from "../router.js";
import { may } from "../session.js";
import { facts } from "../table.js";
import { time } from "../time.js";
import { commands } from "../copy.js";
import { settingsLines, values } from "./lines.js";

const PATH = "/v1/crypto/settings";

/** A page for whatever needs the flag while it is off. @param {string} title */
export function flagIsOff(title) {
  return {
    title,
    content: notice("warn", "The feature flag is off",
      h("p", {}, "While ", h("code", {}, "flags.crypto.dual_custody_intercept"), " is off, every /v1/crypto call is refused (403 feature_disabled), and bouncers deny all protected streams."),
      h("p", { class: "actions" }, link("flags", { class: "button primary" }, "Open feature flags"))),
  };
}

/** @type {import("../router.js").Render} */
export async function provider({ leaving, reload }) {
  const title = "Cryptographic provider";
  let current = null;
  try {
    current = await get(PATH, leaving);
  } catch (fault) {
    const problem = asProblem(fault);
    if (problem.code === "feature_disabled") return flagIsOff(title);
    if (problem.status !== 404) throw fault;
  }
  return {
    title,
    intro: "Who can unwrap credentials: the customer's own KMS key, or the customer's own Vault. Never this control plane.",
    content: [
      current ? h("section", { "aria-labelledby": "chosen" }, h("h2", { id: "chosen" }, "Chosen"), chosen(current), warningList(current.warnings))
        : notice("info", "No provider is chosen yet", h("p", {}, "Choose one below. Bouncers must allow the key in their rails as well.")),
      h("section", { "aria-labelledby": "change" }, h("h2", { id: "change" }, current ? "Change" : "Choose"),
        may("admin", "everywhere") ? editor(current, reload) : notice("info", "Your role can look, and not change the provider")),
      h("section", { "aria-labelledby": "by-line" }, h("h2", { id: "by-line" }, "From the command line"),
        settingsLines(values()).map(([name, text]) => commands(name, text))),
    ],
  };
}

/** @param {any} current */
function chosen(current) {
  return facts([
    ["Provider", current.provider === "kms_envelope" ? "KMS envelope" : "Vault delegate"],
    ["KMS key", current.kms_key_arn && h("code", {}, current.kms_key_arn)],
    ["Vault namespace", current.vault_namespace && h("code", {}, current.vault_namespace)],
    ["Notes", current.notes],
    ["Last changed", h("span", {}, h("strong", {}, current.updated_by), " ", time(current.updated_at, { inline: true }))],
  ]);
}

/** @param {any} current @param {() => void} reload */
function editor(current, reload) {
  const made = form({
    name: "Cryptographic provider", submit: "Save the provider",
    fields: [
      {
        name: "provider", label: "Provider", kind: "radio", required: true, value: current?.provider ?? "kms_envelope",
        options: [
          { value: "kms_envelope", label: "KMS envelope", hint: "Credentials are wrapped under a key in the customer's AWS KMS. The control plane stores the ciphertext and the key's ARN." },
          { value: "vault_delegate", label: "Vault delegate", hint: "Credentials stay in the customer's HashiCorp Vault or OpenBao. The control plane stores a path and a namespace." },
        ],
      },
      { name: "kms_key_arn", label: "ARN of the KMS key", required: true, mono: true, value: current?.kms_key_arn ?? "", placeholder: "arn:aws:kms:REGION:ACCOUNT:key/ID", hint: "The key itself, not an alias: an alias can be pointed elsewhere." },
      { name: "vault_namespace", label: "Vault namespace", required: true, mono: true, value: current?.vault_namespace ?? "", placeholder: "root", hint: "“root” for the root namespace." },
      { name: "notes", label: "Notes", kind: "textarea", rows: 3, value: current?.notes ?? "", hint: "For people. At most 2,000 bytes." },
    ],
    explain: (problem) => changedMeanwhile(problem, () => get(PATH), reload),
    send: async (typed) => {
      const body = { ...typed };
      if (!body.notes) delete body.notes;
      await call("PUT", PATH, { body, etag: etagOf(current) });
      toast("The provider is saved");
      reload();
    },
  });
  const choose = () => {
    const kms = made.field("provider").value === "kms_envelope";
    made.field("kms_key_arn").row.hidden = !kms;
    made.field("vault_namespace").row.hidden = kms;
  };
  made.element.addEventListener("change", choose);
  choose();
  return made.element;
}

