// Lines to copy into a terminal. They never hold a token: $TOKEN stands where it belongs.
import { announce, h, unique } from "./dom.js";
import { icon } from "./icons.js";

/** @param {() => string} text @param {string} what */
export function copyButton(text, what) {
  const label = h("span", {}, "Copy");
  const button = h("button", { type: "button", class: "button small quiet copy", "aria-label": `Copy ${what}` }, icon("copy"), label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      label.textContent = "Copied";
      announce(`Copied ${what}`);
    } catch {
      label.textContent = "Not copied";
      announce("The browser did not allow copying. Select the text instead.");
    }
    setTimeout(() => { label.textContent = "Copy"; }, 2_000);
  });
  return button;
}

/**
 * A block of commands with its name and a copy button.
 * @param {string} name
 * @param {string} text
 */
export function commands(name, text) {
  const id = unique("commands");
  return h(
    "figure",
    { class: "commands" },
    h("figcaption", { id }, name, copyButton(() => text, name)),
    h("pre", { tabindex: 0, role: "group", "aria-labelledby": id }, h("code", {}, text)),
  );
}

/** A value that one may want elsewhere, such as a request id. @param {string} text @param {string} what */
export function copyable(text, what) {
  return h("span", { class: "copyable" }, h("code", {}, text), copyButton(() => text, what));
}

/** A word for the shell, quoted where it must be. @param {string} word */
export function shell(word) {
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
