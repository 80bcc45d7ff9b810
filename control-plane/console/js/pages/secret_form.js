// Registering an envelope: the first generation of a path, or the next. Metadata only; the guard refuses anything else.
import { call, get } from "../api.js";
import { changedMeanwhile } from "../changed.js";
import { commands } from "../copy.js";
import { h } from "../dom.js";
import { form } from "../forms.js";
import { asProblem, notice, toast } from "../notice.js";
import { link } from "../router.js";
import { savedAt } from "./effective.js";
import { secretLines, values } from "./lines.js";

/** @param {import("../router.js").Visit} visit @returns {Promise<import("../router.js").Page>} */
export async function registerSecret(visit) {
  const path = visit.query.get("path") ?? "";
  const from = visit.query.get("from");
  const [before, settings] = await Promise.all([from ? get(`/v1/crypto/envelope-secrets/${encodeURIComponent(from)}`, visit.leaving) : null, chosen(visit.leaving)]);
  const provider = before?.provider ?? settings?.provider ?? "kms_envelope";
  const key = before?.key_id ?? settings?.kms_key_arn ?? settings?.vault_namespace ?? "";
  const made = form({
    name: "Register an envelope", submit: before ? `Register generation ${before.generation + 1}` : "Register the envelope",
    fields: [
      { name: "logical_path", label: "Logical path", required: true, mono: true, value: path, readonly: Boolean(before), placeholder: "protected-resources/payments-api/upstream-tls", hint: before ? "" : "What the credential is called. One that is registered already gets its next generation from its own page." },
      {
        name: "provider", label: "Provider", kind: "radio", required: true, value: provider,
        options: [{ value: "kms_envelope", label: "KMS envelope" }, { value: "vault_delegate", label: "Vault delegate" }],
      },
      { name: "key_id", label: "Key", required: true, mono: true, value: key, hint: "The KMS key's ARN, or the Vault namespace (“root” for the root)." },
      { name: "ciphertext_ref", label: "Ciphertext reference", kind: "textarea", required: true, mono: true, hint: "The whole ciphertext that bouncerctl wrap printed, or for Vault kv2:mount/path, pki:mount/role or transit:mount/key#vault:v1:… Never the credential itself." },
      { name: "aad", label: "AAD", mono: true, value: before?.aad ?? "", placeholder: "env=production,bouncer=payments-east,upstream=payments.internal:8443", hint: "The encryption context, exactly as it was when the credential was wrapped." },
      { name: "certificate_chain", label: "Certificate chain", kind: "textarea", mono: true, placeholder: "-----BEGIN CERTIFICATE-----", hint: "Public certificates only, leaf first, where the ciphertext holds the key alone." },
      { name: "reason", label: "Reason", hint: "For the history: why this generation? No secrets." },
      { name: "enabled", label: "Enabled: bouncers may use it at once", kind: "checkbox", value: before?.enabled ?? true },
    ],
    actions: [link(before ? `secrets/${before.id}` : "secrets", { class: "button" }, "Cancel")],
    explain: (problem) => {
      const look = () => savedAt(String(made.field("logical_path").value));
      return changedMeanwhile(problem, look, () => void look().then((item) => visit.go(item ? `secrets/${item.id}` : "secrets")));
    },
    send: async (typed) => {
      const body = { ...typed, ciphertext_ref: typed.ciphertext_ref.replace(/\s+/g, "") };
      for (const name of ["aad", "certificate_chain", "reason"]) if (!body[name].trim()) delete body[name];
      // Whoever registered in between must not be overtaken unseen, neither of a generation nor of the first one.
      if (before) body.generation = before.generation + 1;
      const stored = await call("POST", "/v1/crypto/envelope-secrets", { body, etag: before ? undefined : null });
      toast(`Generation ${stored.json.generation} is registered`);
      visit.go(`secrets/${stored.json.id}`);
    },
  });
  return {
    title: before ? "Register a new generation" : "Register an envelope",
    content: [
      notice("info", "Metadata only", h("p", {}, "Wrap the credential first, under your own key, where its plaintext may be. Keys, tokens and passwords are refused in every field, before anything is sent.")),
      made.element,
      h("section", { "aria-labelledby": "lines" }, h("h2", { id: "lines" }, "From the command line"),
        secretLines(values({ key: provider === "kms_envelope" ? key : "", path })).map(([name, text]) => commands(name, text))),
    ],
  };
}

/** The provider settings, if any were made. @param {AbortSignal} signal */
async function chosen(signal) {
  try {
    return await get("/v1/crypto/settings", signal);
  } catch (fault) {
    if (asProblem(fault).status === 404) return null;
    throw fault;
  }
}
