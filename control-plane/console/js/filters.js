// The filters above a list. What is chosen stands in the address, so that it can be linked to, gone back to and shared.
import { h, unique } from "./dom.js";

/**
 * @typedef {object} Filter
 * @property {string} name as the address and the API call it
 * @property {string} label
 * @property {{ value: string, label: string }[]} [options] else a text is asked for
 * @property {string} [placeholder]
 * @property {boolean} [wide]
 */

/**
 * @param {object} options
 * @param {string} options.label
 * @param {Filter[]} options.filters
 * @param {URLSearchParams} options.query
 * @param {(query: string) => void} options.go
 * @param {Node[]} [options.extra]
 */
export function filterBar({ label, filters, query, go, extra = [] }) {
  const inputs = filters.map((filter) => {
    const id = unique(`filter-${filter.name}`);
    const value = query.get(filter.name) ?? "";
    const input = filter.options
      ? h("select", { id, name: filter.name }, [{ value: "", label: "All" }, ...filter.options].map((o) => h("option", { value: o.value, selected: o.value === value }, o.label)))
      : h("input", { id, name: filter.name, type: "search", value, placeholder: filter.placeholder, autocomplete: "off", spellcheck: "false" });
    return { input, row: h("div", { class: `filter ${filter.wide ? "grow" : ""}` }, h("label", { for: id }, filter.label), input) };
  });
  const chosen = () => {
    const next = new URLSearchParams();
    for (const { input } of inputs) {
      const field = /** @type {HTMLInputElement} */ (input);
      if (field.value.trim()) next.set(field.name, field.value.trim());
    }
    return next.toString();
  };
  const form = h("form", { class: "filters", role: "search", "aria-label": label }, inputs.map(({ row }) => row),
    h("div", { class: "filter actions" }, h("button", { type: "submit", class: "button" }, "Apply"),
      filters.some((filter) => query.get(filter.name)) && clear(() => go("")), extra));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go(chosen());
  });
  form.addEventListener("change", (event) => {
    if (event.target instanceof HTMLSelectElement) go(chosen());
  });
  return form;
}

/** @param {() => void} act */
function clear(act) {
  return h("button", { type: "button", class: "button quiet", on: { click: act } }, "Clear");
}

/** Only the parameters that a call knows. @param {URLSearchParams} query @param {string[]} names */
export const only = (query, names) => Object.fromEntries(names.map((name) => [name, query.get(name)]));
