// Tables that become cards where the screen is narrow. Laid out by the style sheet alone: the same elements, each cell
// with its column's name. The roles are written out, since browsers drop them once a table is displayed as blocks.
import { h } from "./dom.js";

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} label
 * @property {(row: Row) => Node | string | number | null | (Node | string)[]} cell
 * @property {string} [class]
 * @property {boolean} [head] the cell that names its row
 */

/**
 * @template Row
 * @param {object} options
 * @param {string} options.caption for screen readers
 * @param {Column<Row>[]} options.columns
 * @param {Row[]} options.rows
 * @param {(row: Row) => Record<string, string>} [options.data]
 */
export function table({ caption, columns, rows, data }) {
  const head = h("tr", { role: "row" }, columns.map((column) =>
    h("th", { role: "columnheader", scope: "col", class: column.class }, column.label || h("span", { class: "visually-hidden" }, "Actions"))));
  const body = rows.map((row) => h("tr", { role: "row", data: data?.(row) ?? {} }, columns.map((column) => {
    const content = h("div", { class: "cell" }, column.cell(row));
    const label = { data: { label: column.label }, class: column.class };
    return column.head
      ? h("th", { role: "rowheader", scope: "row", ...label }, content)
      : h("td", { role: "cell", ...label }, content);
  })));
  return h("div", { class: "table-wrap" },
    h("table", { role: "table", class: "table" }, h("caption", { class: "visually-hidden" }, caption),
      h("thead", { role: "rowgroup" }, head), h("tbody", { role: "rowgroup" }, body)));
}

/** Pairs of a name and a value. @param {[string, any][]} pairs */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== false)
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
