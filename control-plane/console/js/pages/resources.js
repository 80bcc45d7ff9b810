// Bouncer Management → Protected resources: which cluster needs which credential, by which protocol, for whom.
import { all, call, etagOf, get, withQuery } from "../api.js";
import { changedMeanwhile } from "../changed.js";
import { commands } from "../copy.js";
import { ask } from "../dialog.js";
import { code, h } from "../dom.js";
import { filterBar, only } from "../filters.js";
import { form } from "../forms.js";
import { icon } from "../icons.js";
import { asProblem, cutOff, empty, notice, problemBox, toast, warningList } from "../notice.js";
import { enabledPill, pill } from "../pill.js";
import { link } from "../router.js";
import { may } from "../session.js";
import { facts, table } from "../table.js";
import { time } from "../time.js";
import { resourceChangeLines, resourceLines, values } from "./lines.js";

const LIST = "/v1/protected-resources";
/** @param {string} name */
const pathOf = (name) => `${LIST}/${encodeURIComponent(name)}`;
/** @param {string} protocol */
const protocolName = (protocol) => (protocol === "mtls" ? "mTLS" : "HTTPS");

/** @type {import("../router.js").Render} */
export async function resources(visit) {
  const [name, edit] = visit.rest;
  if (name === "new") return editor(visit, null);
  if (name && edit === "edit") return editor(visit, name);
  if (name) return one(visit, name);
  const chosen = only(visit.query, ["q", "bouncer", "enabled"]);
  const [found, bouncers] = await Promise.all([
    all(withQuery(LIST, chosen), { signal: visit.leaving }), all("/v1/bouncers", { signal: visit.leaving }),
  ]);
  const filtered = Object.values(chosen).some(Boolean);
  return {
    title: "Protected resources",
    intro: "Streams to these clusters go up with a credential, for the callers that are listed, or not at all.",
    actions: may("write") ? [link("resources/new", { class: "button primary" }, icon("add"), "Protect a resource")] : [],
    content: [
      filterBar({
        label: "Protected resources", query: visit.query, go: (query) => visit.go(`resources${query ? `?${query}` : ""}`),
        filters: [
          { name: "q", label: "Name contains", wide: true },
          { name: "bouncer", label: "Bouncer", options: bouncers.items.map((item) => ({ value: item.name, label: item.name })) },
          { name: "enabled", label: "State", options: [{ value: "true", label: "Enabled" }, { value: "false", label: "Disabled" }] },
        ],
      }),
      found.items.length > 0 ? listed(found.items) : filtered ? empty("Nothing matches", "No protected resource fits these filters.", link("resources", { class: "button" }, "Show all"))
        : empty("No resource is protected", "A protected resource names the bouncer, Envoy's cluster, the credential's logical path, and who may call.",
          may("write") ? link("resources/new", { class: "button primary" }, "Protect a resource") : ""),
      cutOff(found, "protected resources", "Narrow the filters to see them."),
      cutOff(bouncers, "bouncers", "The address takes the others too, as bouncer=NAME."),
    ].filter(Boolean),
  };
}

/** @param {any} row */
function state(row) {
  if (!row.enabled) return enabledPill(false);
  return row.warnings.length > 0 ? pill("warn", row.warnings.length === 1 ? "1 warning" : `${row.warnings.length} warnings`) : enabledPill(true);
}

/** @param {any[]} items */
function listed(items) {
  return table({
    caption: "Protected resources", rows: items, data: (row) => ({ resource: row.name }),
    columns: [
      { label: "Name", head: true, cell: (row) => [link(`resources/${row.name}`, {}, row.name), h("div", { class: "muted small" }, row.upstream)] },
      { label: "Protocol", cell: (row) => h("span", { class: "tag" }, protocolName(row.protocol)) },
      { label: "Bouncer", class: "whole", cell: (row) => link(`bouncers/${row.bouncer}`, {}, row.bouncer) },
      { label: "Cluster", cell: (row) => h("code", {}, row.cluster) },
      { label: "Credential", class: "path", cell: (row) => code(row.logical_path) },
      { label: "Callers", cell: (row) => (row.callers.length === 0 ? pill("warn", "nobody") : String(row.callers.length)) },
      { label: "State", cell: state },
    ],
  });
}

/** @param {import("../router.js").Visit} visit @param {string} name @returns {Promise<import("../router.js").Page>} */
async function one(visit, name) {
  const { json: item, etag } = await call("GET", pathOf(name), { signal: visit.leaving });
  const tag = etag ?? etagOf(item);
  const outcome = h("div", {});
  const act = async (/** @type {() => Promise<any>} */ work) => {
    try {
      await work();
    } catch (fault) {
      const problem = asProblem(fault);
      outcome.replaceChildren(changedMeanwhile(problem, () => get(pathOf(name)), visit.reload) ?? problemBox(problem));
    }
  };
  const toggle = h("button", { type: "button", class: "button" }, item.enabled ? "Disable …" : "Enable …");
  toggle.addEventListener("click", () => void act(async () => {
    if (await sure(item) === null) return;
    const { name: _, created_at, created_by, updated_at, updated_by, warnings, revision, ...body } = item;
    await call("PUT", pathOf(name), { body: { ...body, enabled: !item.enabled }, etag: tag });
    toast(`${name} is ${item.enabled ? "disabled" : "enabled"}`);
    visit.reload();
  }));
  const remove = h("button", { type: "button", class: "button danger" }, "Delete …");
  remove.addEventListener("click", () => void act(async () => {
    const agreed = await ask({
      title: `Delete the protected resource ${name}?`, danger: true, confirm: "Delete, and deny",
      body: [`Streams to the cluster ${item.cluster} by these callers are denied within about a second (not_registered), and those that carry its credential are cut off.`,
        "The credential itself stays registered. The registration has to be made anew to undo this."],
    });
    if (agreed === null) return;
    await call("DELETE", pathOf(name), { etag: tag });
    toast(`${name} is deleted`);
    visit.go("resources");
  }));
  return {
    title: name,
    actions: may("write") ? [link(`resources/${name}/edit`, { class: "button" }, "Change"), toggle, remove] : [],
    content: [outcome, warningList(item.warnings) ?? "", facts([
      ["State", enabledPill(item.enabled)],
      ["Protocol", item.protocol === "mtls" ? "mTLS: a client certificate" : "HTTPS: a credential in a header"],
      ["Bouncer", link(`bouncers/${item.bouncer}`, {}, item.bouncer)],
      ["Envoy's cluster", h("code", {}, item.cluster)],
      ["Upstream", h("span", {}, h("code", {}, item.upstream), h("div", { class: "muted small" }, "Informative: the resolver goes by its own rails."))],
      ["Credential", link(`secrets?q=${encodeURIComponent(item.logical_path)}`, {}, code(item.logical_path))],
      ["Callers", item.callers.length === 0 ? pill("warn", "nobody: every stream is denied") : h("ul", { class: "plain" }, item.callers.map((/** @type {string} */ caller) => h("li", {}, h("code", {}, caller))))],
      ["Registered", h("span", {}, "by ", h("strong", {}, item.created_by), " ", time(item.created_at, { inline: true }))],
      ["Last changed", h("span", {}, "by ", h("strong", {}, item.updated_by), " ", time(item.updated_at, { inline: true }))],
      ["Decisions", may("audit") && link(`audit?logical_path=${encodeURIComponent(item.logical_path)}`, {}, "in the audit")],
    ])],
  };
}

/** @param {any} item */
function sure(item) {
  return item.enabled
    ? ask({
      title: `Disable ${item.name}?`, danger: true, confirm: "Disable, and deny",
      body: [`Streams to the cluster ${item.cluster} by its callers are denied within about a second (resource_disabled), and those that carry its credential are cut off.`],
    })
    : ask({ title: `Enable ${item.name}?`, confirm: "Enable", body: ["Its callers' streams get the credential again, under a new tag: no connection of before is used."] });
}

/** @param {import("../router.js").Visit} visit @param {string | null} name @returns {Promise<import("../router.js").Page>} */
async function editor(visit, name) {
  const found = name ? await call("GET", pathOf(name), { signal: visit.leaving }) : null;
  const item = found?.json;
  const [bouncers, paths] = await Promise.all([all("/v1/bouncers", { signal: visit.leaving }), knownPaths(visit.leaving)]);
  const list = h("datalist", { id: "known-paths" }, paths.map((path) => h("option", { value: path })));
  const etag = found?.etag ?? etagOf(item);
  const made = form({
    name: item ? `Change ${name}` : "Protect a resource", submit: item ? "Save" : "Protect the resource",
    fields: [
      { name: "name", label: "Name", required: true, mono: true, value: name ?? "", readonly: Boolean(name), placeholder: "payments-api" },
      { name: "bouncer", label: "Bouncer", kind: "select", required: true, value: item?.bouncer ?? visit.query.get("bouncer") ?? bouncers.items[0]?.name ?? "", options: bouncers.items.map((b) => ({ value: b.name, label: b.name })), hint: "The one in front of it." },
      { name: "cluster", label: "Envoy's cluster", required: true, mono: true, value: item?.cluster ?? "", placeholder: "payments" },
      { name: "upstream", label: "Upstream, host:port", required: true, mono: true, value: item?.upstream ?? "", placeholder: "payments.internal:8443", hint: "Informative: the resolver compares its own rails." },
      {
        name: "protocol", label: "Protocol", kind: "radio", required: true, value: item?.protocol ?? "mtls",
        options: [{ value: "mtls", label: "mTLS", hint: "Envoy presents a client certificate to the upstream." }, { value: "https", label: "HTTPS", hint: "TLS, with the credential in a header. Its AAD must name the upstream." }],
      },
      { name: "logical_path", label: "Logical path of the credential", required: true, mono: true, list: "known-paths", value: item?.logical_path ?? "", placeholder: "protected-resources/payments-api/upstream-tls" },
      { name: "callers", label: "Callers", kind: "lines", mono: true, value: (item?.callers ?? []).join("\n"), placeholder: "spiffe://example.org/ns/shop/*", hint: "One a line: a SPIFFE ID, or a prefix of whole path segments ending in /*. Without any, nobody may call." },
      { name: "enabled", label: "Enabled: its callers' streams may have the credential", kind: "checkbox", value: item?.enabled ?? true },
    ],
    actions: [link(name ? `resources/${name}` : "resources", { class: "button" }, "Cancel")],
    explain: (problem) => (name ? changedMeanwhile(problem, () => get(pathOf(name)), visit.reload) : null),
    send: async (body) => {
      if (name) await call("PUT", pathOf(name), { body, etag });
      else await call("POST", LIST, { body });
      toast(name ? `${name} is saved` : `${body.name} is protected`);
      visit.go(`resources/${name ?? body.name}`);
    },
  });
  const typed = (/** @type {string} */ field) => /** @type {any} */ (made.field(field).value);
  const lines = h("div", { class: "stack" });
  const follow = () => {
    const own = {
      resource: typed("name"), bouncer: typed("bouncer"), cluster: typed("cluster"), upstream: typed("upstream"),
      protocol: typed("protocol"), path: typed("logical_path"), callers: typed("callers"), enabled: typed("enabled"),
    };
    // What is registered is changed to just what the form holds; of what is not, the form may yet be empty.
    const shown = name ? resourceChangeLines({ ...values(), ...own }, etag) : resourceLines(values(own));
    lines.replaceChildren(...shown.map(([line, text]) => commands(line, text)));
  };
  made.element.addEventListener("input", follow);
  follow();
  const title = name ? `Change ${name}` : "Protect a resource";
  if (bouncers.items.length === 0) {
    return { title, content: empty("There is no bouncer yet", "A resource is protected by a bouncer, so register that first.", link("bouncers/new", { class: "button primary" }, "Register a bouncer")) };
  }
  return {
    title,
    content: [item?.enabled ? notice("info", "A change takes effect within about a second", h("p", {}, "Callers that are taken out are denied at once; their streams are cut off.")) : "",
      made.element, list, h("section", { "aria-labelledby": "lines" }, h("h2", { id: "lines" }, "From the command line"), lines)],
  };
}

/** For the field's suggestions; without the flag there are none. @param {AbortSignal} signal */
async function knownPaths(signal) {
  try {
    const { items } = await get("/v1/crypto/envelope-secrets?limit=500", signal);
    return items.map((/** @type {any} */ item) => item.logical_path);
  } catch {
    return [];
  }
}
