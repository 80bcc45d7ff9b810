// The paste guard: what looks like a plaintext credential is stopped on its way into any text field of the console, by
// paste or by drop, and said so beside the field. What is typed in is looked at when it is sent (forms.js, api.js).
import { announce, append, h } from "./dom.js";
import { plaintextAdvice } from "./forms.js";
import { plaintextIn } from "./plaintext.js";

/** @param {EventTarget | null} target @returns {HTMLInputElement | HTMLTextAreaElement | null} */
function guarded(target) {
  const field = target instanceof Element ? target.closest("input, textarea") : null;
  // Only the sign-in page has a field in which a token belongs.
  return field && !("holdsToken" in /** @type {HTMLElement} */ (field).dataset) ? /** @type {any} */ (field) : null;
}

/** What the field would hold afterwards. @param {HTMLInputElement | HTMLTextAreaElement} field @param {string} text */
function outcome(field, text) {
  const { value } = field;
  const [from, to] = [field.selectionStart ?? value.length, field.selectionEnd ?? value.length];
  return value.slice(0, from) + text + value.slice(to);
}

/** @param {Event} event @param {DataTransfer | null} data */
function look(event, data) {
  const field = guarded(event.target);
  const text = data?.getData("text") ?? "";
  if (!field || !text) return;
  const kind = plaintextIn(text) ?? plaintextIn(outcome(field, text));
  if (!kind) return void quiet(field);
  event.preventDefault();
  event.stopPropagation();
  explain(field, kind);
}

/** @param {HTMLElement} field @param {string} kind */
function explain(field, kind) {
  quiet(field);
  const id = `${field.id || "field"}-guard`;
  const box = h("div", { class: "guard notice bad", id, role: "alert" }, h("div", { class: "notice-body" }));
  append(/** @type {Element} */ (box.firstElementChild), plaintextAdvice(kind));
  field.setAttribute("aria-invalid", "true");
  const described = field.getAttribute("aria-describedby");
  field.setAttribute("aria-describedby", described ? `${id} ${described}` : id);
  field.insertAdjacentElement("afterend", box);
  announce(`Refused: this looks like ${kind}. Nothing was sent.`);
}

/** @param {HTMLElement} field */
function quiet(field) {
  const id = `${field.id || "field"}-guard`;
  const box = document.getElementById(id);
  if (!box) return;
  box.remove();
  field.removeAttribute("aria-invalid");
  const rest = (field.getAttribute("aria-describedby") ?? "").split(" ").filter((part) => part && part !== id).join(" ");
  if (rest) field.setAttribute("aria-describedby", rest);
  else field.removeAttribute("aria-describedby");
}

/** Watches the whole document. */
export function guardPastes() {
  document.addEventListener("paste", (event) => look(event, event.clipboardData), true);
  document.addEventListener("drop", (event) => look(event, event.dataTransfer), true);
  document.addEventListener("input", (event) => {
    const field = guarded(event.target);
    if (field) quiet(field);
  }, true);
}
