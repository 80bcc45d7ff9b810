// Asks before something that cuts traffic or cannot be taken back, and says what will happen.
import { h, unique } from "./dom.js";

/**
 * Resolves to what was typed (or "" without a field), or null if the person thought better of it.
 * @param {object} question
 * @param {string} question.title
 * @param {(Node | string)[]} question.body
 * @param {string} question.confirm
 * @param {boolean} [question.danger]
 * @param {{ label: string, hint?: string }} [question.reason] asks for a reason too
 * @returns {Promise<string | null>}
 */
export function ask({ title, body, confirm, danger = false, reason }) {
  return new Promise((resolve) => {
    const heading = unique("dialog-title");
    const text = unique("dialog-text");
    const field = unique("dialog-reason");
    const input = reason && h("input", { id: field, name: "reason", maxlength: 500, autocomplete: "off", class: "wide" });
    const cancel = h("button", { type: "button", class: "button" }, "Cancel");
    const go = h("button", { type: "submit", class: `button ${danger ? "danger" : "primary"}` }, confirm);
    const form = h(
      "form",
      { method: "dialog", novalidate: true },
      h("h2", { id: heading }, title),
      h("div", { id: text, class: "dialog-body" }, body.map((part) => (part instanceof Node ? part : h("p", {}, part)))),
      reason && h("div", { class: "field" }, h("label", { for: field }, reason.label),
        reason.hint && h("p", { class: "hint" }, reason.hint), input),
      h("div", { class: "actions end" }, cancel, go),
    );
    const dialog = /** @type {HTMLDialogElement} */ (h("dialog", { class: "dialog", "aria-labelledby": heading, "aria-describedby": text }, form));
    const opener = /** @type {HTMLElement | null} */ (document.activeElement);
    /** @type {string | null} */
    let answer = null;
    cancel.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer = input ? /** @type {HTMLInputElement} */ (input).value.trim() : "";
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      opener?.focus({ preventScroll: true });
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
    (input ?? cancel).focus();
  });
}
