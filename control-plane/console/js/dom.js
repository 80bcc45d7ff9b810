// Builds the DOM. Everything on a page is made here, by createElement and text nodes: no markup is ever parsed, so no
// text from the API can become markup. (The page's policy, Trusted Types without any policy, forbids it as well.)

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * An element. `on` holds listeners, `data` the dataset; other properties are attributes, and `true` is an empty one.
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "data") {
      Object.assign(element.dataset, value);
    } else if (name === "value") {
      /** @type {HTMLInputElement} */ (element).value = value;
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(element, children);
  return element;
}

/**
 * An SVG element, with attributes only.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

/**
 * @param {Element} parent
 * @param {(Child | Child[])[]} children
 */
export function append(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** A path or an identity, which may break after its separators and not within its words. @param {string} text */
export function code(text) {
  const parts = text.split(/(?<=[/:,])/);
  return h("code", {}, parts.flatMap((part, index) => (index > 0 ? [document.createElement("wbr"), part] : [part])));
}

/**
 * Has a button do its work, and not once more while it is under way. It keeps the focus meanwhile.
 * @param {HTMLElement} button
 * @param {() => Promise<void>} work throws nothing
 */
export function oneAtATime(button, work) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    void work().finally(() => button.removeAttribute("aria-disabled"));
  });
}

let count = 0;

/** An id that nothing else on the page has. @param {string} prefix */
export function unique(prefix) {
  count += 1;
  return `${prefix}-${count}`;
}

/** Says something to a screen reader, without moving the focus. @param {string} text */
export function announce(text) {
  const announcer = document.getElementById("announcer");
  if (!announcer) return;
  announcer.textContent = "";
  // A text that did not change is not read out, so it is set anew.
  requestAnimationFrame(() => { announcer.textContent = text; });
}

/** Replaces what is in a region, and keeps the focus and open disclosures where their ids remain.
 * @param {Element} region
 * @param {...Child} children
 */
export function replace(region, ...children) {
  const focused = region.contains(document.activeElement) ? document.activeElement?.id : "";
  const open = [...region.querySelectorAll("details[open][id]")].map((details) => details.id);
  region.replaceChildren();
  append(region, children);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}
