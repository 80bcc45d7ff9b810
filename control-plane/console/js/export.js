// Export of a list: all of what the filters leave, newest first, as CSV or as JSON lines, put together in the browser.
import { all, withQuery } from "./api.js";
import { announce, h } from "./dom.js";
import { icon } from "./icons.js";
import { asProblem, toast } from "./notice.js";

/** So much is put together in a browser; beyond it, bouncerctl pages through. */
const MOST = 20_000;

/** @param {string} path @param {Record<string, string | null>} chosen */
export function exportButtons(path, chosen) {
  const button = (/** @type {string} */ label, /** @type {string} */ ending, /** @type {string} */ type, /** @type {(items: any[]) => string} */ write) => {
    const element = h("button", { type: "button", class: "button small", "aria-label": `Export as ${label}` }, icon("download"), label);
    element.addEventListener("click", async () => {
      element.setAttribute("aria-disabled", "true");
      announce("Exporting");
      try {
        const { items, more } = await all(withQuery(path, chosen), { most: MOST });
        save(new Blob([write(items)], { type }), `${path.split("/").pop()}-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.${ending}`);
        toast(more ? `Exported the newest ${items.length.toLocaleString("en")}; there are more` : `Exported ${items.length.toLocaleString("en")}`);
      } catch (fault) {
        toast(`Not exported: ${asProblem(fault).title}`);
      } finally {
        element.removeAttribute("aria-disabled");
      }
    });
    return element;
  };
  return [button("CSV", "csv", "text/csv", csv), button("JSON", "jsonl", "application/x-ndjson", (items) => items.map((item) => `${JSON.stringify(item)}\n`).join(""))];
}

/** @param {any[]} items */
export function csv(items) {
  const names = [...new Set(items.flatMap((item) => Object.keys(item)))];
  const lines = [names, ...items.map((item) => names.map((name) => item[name] ?? ""))];
  return lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

/** RFC 4180; a spreadsheet must not take a text for a formula. @param {any} value */
function cell(value) {
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  const inert = /^[=+\-@\t\r]/.test(text) && typeof value === "string" ? `'${text}` : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const anchor = h("a", { href: url, download: name, hidden: true });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
