// One envelope secret: what is registered, who uses it, its generations, and what can be done with it.
import { all, call, etagOf, get } from "../api.js";
import { changedMeanwhile } from "../changed.js";
import { copyable } from "../copy.js";
import { ask } from "../dialog.js";
import { code, h } from "../dom.js";
import { asProblem, cutOff, notice, problemBox, toast, warningList } from "../notice.js";
import { enabledPill, pill } from "../pill.js";
import { link } from "../router.js";
import { may } from "../session.js";
import { facts, table } from "../table.js";
import { time } from "../time.js";
import { secretsInUse } from "./effective.js";
import { age, ends, expiry } from "./secrets.js";

const LIST = "/v1/crypto/envelope-secrets";

/** @param {import("../router.js").Visit} visit @param {string} id @returns {Promise<import("../router.js").Page>} */
export async function secret(visit, id) {
  const path = `${LIST}/${encodeURIComponent(id)}`;
  const [found, history, bouncers] = await Promise.all([
    call("GET", path, { signal: visit.leaving }), all(`${path}/history`, { signal: visit.leaving, most: 200 }), all("/v1/bouncers", { signal: visit.leaving }),
  ]);
  const item = found.json;
  const tag = found.etag ?? etagOf(item);
  const outcome = h("div", {});
  const act = async (/** @type {() => Promise<void>} */ work) => {
    try {
      await work();
    } catch (fault) {
      const problem = asProblem(fault);
      outcome.replaceChildren(changedMeanwhile(problem, () => get(path), visit.reload) ?? problemBox(problem));
      outcome.scrollIntoView({ block: "nearest" });
    }
  };
  const users = bouncers.items.map((bouncer) => ({
    ...bouncer, bridge: { ...bouncer.bridge, secrets: bouncer.bridge.secrets.filter((/** @type {any} */ use) => use.logical_path === item.logical_path) },
  }));
  return {
    title: item.logical_path,
    actions: may("write") ? actions({ item, path, tag, act, visit }) : [],
    content: [
      outcome, warningList(item.warnings) ?? "",
      h("section", { "aria-labelledby": "saved" }, h("h2", { id: "saved" }, "Saved"), saved(item, ends(users))),
      h("section", { "aria-labelledby": "in-effect" }, h("h2", { id: "in-effect" }, "In effect"),
        secretsInUse(users, new Map([[item.logical_path, item]])), cutOff(bouncers, "bouncers", "What the others report is not looked at."),
        may("audit") && h("p", {}, link(`audit?logical_path=${encodeURIComponent(item.logical_path)}`, {}, "Its decisions in the audit"))),
      h("section", { "aria-labelledby": "history" }, h("h2", { id: "history" }, "Generations"),
        generations(history.items, item, (generation) => void act(() => rollBack({ item, path, tag, visit, generation }))),
        cutOff(history, "generations", "'bouncerctl secrets history' has them all.")),
    ],
  };
}

/** @param {any} item @param {Map<string, string>} inUse */
function saved(item, inUse) {
  return facts([
    ["State", enabledPill(item.enabled)],
    ["Generation", String(item.generation)],
    ["Provider", item.provider === "kms_envelope" ? "KMS envelope" : "Vault delegate"],
    [item.provider === "kms_envelope" ? "KMS key" : "Vault namespace", h("code", {}, item.key_id)],
    ["Ciphertext reference", shortened(item.ciphertext_ref)],
    ["AAD", item.aad ? pairs(item.aad) : pill("warn", "none")],
    ["Certificate chain", item.certificate_chain ? h("details", { id: "chain" }, h("summary", {}, "Show the public chain"), h("pre", { tabindex: 0 }, item.certificate_chain)) : "not registered beside it"],
    ["Expires", h("span", {}, expiry(item, inUse))],
    ["Rotation age", age(item)],
    ["Registered", h("span", {}, "by ", h("strong", {}, item.created_by), " ", time(item.created_at, { inline: true }), item.reason && `, “${item.reason}”`)],
    ["Last enabled or disabled", item.changed_at && h("span", {}, "by ", h("strong", {}, item.changed_by), " ", time(item.changed_at, { inline: true }))],
    ["Id", copyable(item.id, "the secret's id")],
  ]);
}

/** @param {string} text */
function shortened(text) {
  return text.length <= 80 ? h("code", {}, text)
    : h("span", {}, h("code", {}, `${text.slice(0, 32)} … ${text.slice(-12)}`), h("span", { class: "muted" }, ` ${text.length.toLocaleString("en")} characters`));
}

/** @param {string} aad */
function pairs(aad) {
  return h("ul", { class: "plain pairs" }, aad.split(",").map((pair) => h("li", {}, h("code", {}, pair))));
}

/** @param {any} context */
function actions({ item, path, tag, act, visit }) {
  const toggle = h("button", { type: "button", class: `button ${item.enabled ? "danger" : ""}` }, item.enabled ? "Disable …" : "Enable …");
  toggle.addEventListener("click", () => void act(async () => {
    const agreed = await ask(item.enabled
      ? {
        title: "Disable this credential?", danger: true, confirm: "Disable, and cut off",
        body: ["Bouncers stop using it within a second. Streams that need it are denied (envelope_missing), and live streams that carry it are reset.",
          "Enabled again it gets a new tag, so that no connection of before is used."],
        reason: { label: "Why?", hint: "Kept in the list of administrative changes. No secrets." },
      }
      : { title: "Enable this credential?", confirm: "Enable", body: ["Bouncers may unwrap it again for enabled resources and their callers."] });
    if (agreed === null) return;
    await call("PATCH", path, { body: { enabled: !item.enabled, ...(agreed ? { reason: agreed } : {}) }, etag: tag });
    toast(`The credential is ${item.enabled ? "disabled" : "enabled"}`);
    visit.reload();
  }));
  const remove = h("button", { type: "button", class: "button danger" }, "Delete …");
  remove.addEventListener("click", () => void act(async () => {
    const agreed = await ask({
      title: "Delete this credential?", danger: true, confirm: "Delete, and deny",
      body: [h("p", {}, h("code", {}, item.logical_path)), "Streams that need it are denied within a second, and live streams that carry it are reset. The ciphertext is gone from the newest state; its history stays.",
        "Nothing at KMS or Vault is changed."],
    });
    if (agreed === null) return;
    await call("DELETE", path, { etag: tag });
    toast("The credential is deleted");
    visit.go("secrets");
  }));
  return [link(`secrets/new?path=${encodeURIComponent(item.logical_path)}&from=${item.id}`, { class: "button primary" }, "New generation"), toggle, remove];
}

/** @param {any} context */
async function rollBack({ item, path, tag, visit, generation }) {
  const reason = await ask({
    title: `Roll back to generation ${generation}?`, danger: true, confirm: `Register ${generation} again`,
    body: [`What generation ${generation} held is registered again, as generation ${item.generation + 1}. Bouncers try it ahead of the streams, and go on with the one in use if it is no good.`,
      "Where the AAD has generation=, its ciphertext is bound to its number, and has to be wrapped anew instead."],
    reason: { label: "Why?", hint: "Stands in the history, for whoever comes after you. No secrets." },
  });
  if (reason === null) return;
  await call("POST", `${path}/rollback`, { body: { generation, ...(reason ? { reason } : {}) }, etag: tag });
  toast(`Generation ${generation} is registered again`);
  visit.reload();
}

/** @param {any[]} items @param {any} newest @param {(generation: number) => void} back */
function generations(items, newest, back) {
  if (items.length === 0) return notice("info", "No history");
  return table({
    caption: "Generations, newest first", rows: items,
    columns: [
      { label: "Generation", head: true, cell: (row) => [String(row.generation), " ", row.generation === newest.generation && h("span", { class: "tag" }, "newest")] },
      { label: "Registered", cell: (row) => time(row.created_at) },
      { label: "By", cell: (row) => row.created_by },
      { label: "Why", cell: (row) => row.reason ?? h("span", { class: "muted" }, "no reason given") },
      { label: "Key", class: "path", cell: (row) => code(row.key_id) },
      { label: "", cell: (row) => (row.generation === newest.generation || !may("write") ? "" : rollBackButton(row.generation, back)) },
    ],
  });
}

/** @param {number} generation @param {(generation: number) => void} back */
function rollBackButton(generation, back) {
  return h("button", { type: "button", class: "button small", "aria-label": `Roll back to generation ${generation}`, on: { click: () => back(generation) } }, "Roll back …");
}
