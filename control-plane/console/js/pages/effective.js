// What bouncers report that they hold and use, beside what is saved.
import { Problem, all, withQuery } from "../api.js";
import { code, h } from "../dom.js";
import { empty } from "../notice.js";
import { pill } from "../pill.js";
import { link } from "../router.js";
import { table } from "../table.js";
import { time } from "../time.js";

/** Whether a bouncer's connection is well. @param {any} bridge */
export function bridgePill(bridge) {
  if (bridge.ok) return bridge.dev ? pill("warn", "Healthy, with --dev") : pill("ok", "Healthy");
  if (bridge.state === "never_seen") return pill("wait", "Never connected");
  if (bridge.state === "disconnected") return pill("bad", "Disconnected");
  return pill("warn", bridge.link ? `Broken link: ${bridge.link}` : "Needs attention");
}

/** How far behind the policy it is. @param {any} bridge */
export function lag(bridge) {
  if (bridge.state === "never_seen") return "—";
  if (bridge.epoch_lag === 0) return "in sync";
  return `${bridge.epoch_lag} change${bridge.epoch_lag === 1 ? "" : "s"} behind`;
}

const SECRETS = "/v1/crypto/envelope-secrets";
/** So many are looked up at once. */
const ABREAST = 8;

/** @typedef {Map<string, any> | null} Saved the newest saved generations, by path; null if they cannot be known */

/**
 * What is saved of the credentials that bouncers report in use.
 * @param {any[]} bouncers
 * @param {AbortSignal} signal
 * @returns {Promise<Saved>}
 */
export async function savedOf(bouncers, signal) {
  const paths = new Set(bouncers.flatMap((bouncer) => bouncer.bridge.secrets.map((/** @type {any} */ use) => use.logical_path)));
  if (paths.size === 0) return new Map();
  try {
    const { items, more } = await all(SECRETS, { most: 500, signal });
    const saved = new Map(items.map((item) => [item.logical_path, item]));
    const rest = more ? [...paths].filter((path) => !saved.has(path)) : [];
    for (let at = 0; at < rest.length; at += ABREAST) {
      const found = await Promise.all(rest.slice(at, at + ABREAST).map((path) => savedAt(path, signal)));
      for (const item of found.filter(Boolean)) saved.set(item.logical_path, item);
    }
    return saved;
  } catch (fault) {
    if (fault instanceof Problem && fault.code === "feature_disabled") return null;
    throw fault;
  }
}

/** The newest generation of a path, if it is saved. @param {string} path @param {AbortSignal} [signal] */
export async function savedAt(path, signal) {
  const { items } = await all(withQuery(SECRETS, { q: path }), { signal });
  return items.find((item) => item.logical_path === path) ?? null;
}

/**
 * @param {any[]} bouncers
 * @param {number} epoch
 * @param {Saved} saved
 */
export function effectiveState(bouncers, epoch, saved) {
  if (bouncers.length === 0) {
    return empty("No bouncer is registered", "A bouncer is one resolver beside an Envoy, known by its SPIFFE ID.",
      link("bouncers/new", { class: "button primary" }, "Register a bouncer"));
  }
  return h("div", { class: "stack" }, table({
    caption: "Bouncers, and what they report",
    rows: bouncers,
    columns: [
      { label: "Bouncer", head: true, cell: (row) => link(`bouncers/${row.name}`, {}, row.name) },
      { label: "Health", cell: (row) => bridgePill(row.bridge) },
      { label: "Policy in effect", cell: (row) => (row.bridge.state === "never_seen" ? "none" : `epoch ${row.bridge.epoch_acked} of ${epoch}, ${lag(row.bridge)}`) },
      { label: "Version", cell: (row) => row.bridge.version ?? "—" },
      { label: "Last heard of", cell: (row) => time(row.bridge.last_seen_at) },
    ],
  }), secretsInUse(bouncers, saved));
}

/**
 * @param {any[]} bouncers
 * @param {Saved} saved
 */
export function secretsInUse(bouncers, saved) {
  const rows = bouncers.flatMap((bouncer) => bouncer.bridge.secrets.map((/** @type {any} */ secret) => ({ bouncer: bouncer.name, ...secret })));
  if (rows.length === 0) {
    return h("p", { class: "muted" }, "No bouncer reports a credential in use. It unwraps one when the first stream needs it.");
  }
  return table({
    caption: "Credentials in use, as bouncers report them",
    rows,
    columns: [
      { label: "Credential in use", head: true, class: "path", cell: (row) => code(row.logical_path) },
      { label: "Bouncer", class: "whole", cell: (row) => link(`bouncers/${row.bouncer}`, {}, row.bouncer) },
      { label: "In effect", cell: (row) => inEffect(row, saved) },
      { label: "State", cell: (row) => (row.reason ? [pill("bad", "Cannot be used"), h("code", { class: "reason" }, row.reason)] : pill("ok", "In use")) },
      { label: "Expires", cell: (row) => (row.not_after ? time(row.not_after) : h("span", { class: "muted" }, "no date")) },
    ],
  });
}

/** @param {any} row @param {Saved} known */
function inEffect(row, known) {
  const text = row.generation ? `generation ${row.generation}` : "none yet";
  if (!known) return text;
  const saved = known.get(row.logical_path);
  if (!saved) return [text, h("div", { class: "differs" }, "not saved")];
  if (!saved.enabled) return [text, h("div", { class: "muted" }, "saved: disabled")];
  return saved.generation === row.generation ? text : [text, h("div", { class: "differs" }, `saved: generation ${saved.generation}`)];
}
