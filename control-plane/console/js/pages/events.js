// Audit events as a table: the outcome and the reason first, all else on demand.
import { code, h } from "../dom.js";
import { outcomePill } from "../pill.js";
import { facts } from "../table.js";
import { absolute, ago, compact } from "../time.js";
import { table } from "../table.js";

/**
 * @param {any[]} items
 * @param {Set<string>} fresh those that just arrived
 * @param {(item: any) => string} key
 */
export function eventTable(items, fresh, key) {
  return table({
    caption: "Audit events, newest first", rows: items,
    data: (row) => ({ event: row.id, ...(fresh.has(key(row)) ? { fresh: "" } : {}) }),
    columns: [
      { label: "Time", head: true, cell: (row) => when(row.time) },
      { label: "Outcome", cell: (row) => [outcomePill(row.outcome), row.dev && h("span", { class: "tag dev" }, "--dev"), row.reason && h("div", {}, h("code", { class: "reason" }, row.reason))] },
      { label: "Caller", class: "path", cell: (row) => (row.caller ? code(row.caller) : h("span", { class: "muted" }, "not verified")) },
      { label: "Credential", class: "path", cell: (row) => (row.logical_path ? [code(row.logical_path), row.generation > 0 && h("span", { class: "muted" }, ` @${row.generation}`)] : h("span", { class: "muted" }, "—")) },
      { label: "Bouncer", class: "whole", cell: (row) => row.bouncer },
      { label: "Streams", class: "number", cell: (row) => row.count.toLocaleString("en") },
      { label: "Details", cell: (row) => more(row, key(row)) },
    ],
  });
}

/** @param {string} iso */
function when(iso) {
  return h("time", { datetime: iso, title: absolute(iso), class: "time" }, h("span", { class: "absolute" }, compact(iso)), " ", h("span", { class: "relative", data: { when: iso } }, ago(iso)));
}

/** @param {any} row @param {string} key */
function more(row, key) {
  const exact = (/** @type {string} */ text) => text && h("code", {}, text);
  return h("details", { class: "more", id: `event-${key}` }, h("summary", {}, "All fields"), facts([
    ["Decision id", exact(row.id)],
    ["Decided", absolute(row.time)],
    ["Arrived here", absolute(row.received_at)],
    ["Sequence", String(row.sequence)],
    ["Resource", row.resource],
    ["Cluster", exact(row.cluster)],
    ["Destination, by the rails", exact(row.destination)],
    ["Authority, as the client sent it", exact(row.authority)],
    ["Key", exact(row.key_id)],
    ["SHA-256 of the AAD", exact(row.aad_sha256)],
    ["KMS or Vault request", exact(row.backend_request_id)],
    ["Reuses the decision", exact(row.decision_id)],
  ]));
}
