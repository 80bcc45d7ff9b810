// Status pills: an icon and words, so that the colour is never what tells.
import { h } from "./dom.js";
import { icon } from "./icons.js";

/** @typedef {"ok" | "warn" | "bad" | "off" | "info" | "wait"} Tone */

/** @param {Tone} tone @param {string} text */
export function pill(tone, text) {
  return h("span", { class: `pill ${tone}` }, icon(tone), h("span", {}, text));
}

/** @param {boolean} enabled */
export const enabledPill = (enabled) => (enabled ? pill("ok", "Enabled") : pill("off", "Disabled"));

/** What an audit event was about. @type {Record<string, { tone: Tone, word: string }>} */
export const OUTCOMES = {
  inject: { tone: "ok", word: "Released" },
  deny: { tone: "bad", word: "Denied" },
  uses: { tone: "info", word: "Reused" },
  pass_through: { tone: "off", word: "Passed through" },
  rotate: { tone: "wait", word: "Rotated" },
  revoke: { tone: "warn", word: "Revoked" },
};

/** @param {string} outcome */
export function outcomePill(outcome) {
  const known = OUTCOMES[outcome];
  return known ? pill(known.tone, known.word) : pill("info", outcome);
}

/** Whether a part is as it should be. @param {{ ok: boolean, next?: string }} check */
export function checkPill(check) {
  if (!check.ok) return pill("bad", "Needs attention");
  return check.next ? pill("warn", "Works, with warnings") : pill("ok", "Healthy");
}
