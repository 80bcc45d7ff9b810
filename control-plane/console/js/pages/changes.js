// Audit → Administrative changes: who changed what, and when.
import { get, withQuery } from "../api.js";
import { code, h, oneAtATime } from "../dom.js";
import { exportButtons } from "../export.js";
import { empty, problemBox } from "../notice.js";
import { table } from "../table.js";
import { time } from "../time.js";

const CHANGES = "/v1/audit/admin-events";

/** @type {import("../router.js").Render} */
export async function changes({ leaving }) {
  /** @type {any[]} */
  let items = [];
  let cursor = null;
  const rows = h("div", {});
  const older = h("button", { type: "button", class: "button" }, "Show older");
  const load = async () => {
    const part = await get(withQuery(CHANGES, { limit: 100, cursor }), leaving);
    items = [...items, ...part.items];
    cursor = part.next_cursor ?? null;
    older.hidden = !cursor;
    rows.replaceChildren(items.length === 0 ? empty("Nothing was changed yet", "Each change that an administrator makes stands here, with who and when.") : listed(items));
  };
  oneAtATime(older, () => load().catch((fault) => rows.append(problemBox(fault))));
  await load();
  return {
    title: "Administrative changes",
    intro: "What was registered, changed, turned on and off, and by whom.",
    content: [h("div", { class: "section-head" }, h("h2", {}, "Changes"), h("div", { class: "actions" }, exportButtons(CHANGES, {}))), rows, h("div", { class: "actions" }, older)],
  };
}

/** @param {any[]} items */
function listed(items) {
  return table({
    caption: "Administrative changes, newest first", rows: items,
    columns: [
      { label: "Time", head: true, cell: (row) => time(row.time) },
      { label: "Who", cell: (row) => row.actor },
      { label: "What", cell: (row) => h("span", { class: "tag" }, row.action) },
      { label: "Subject", class: "path", cell: (row) => code(row.subject) },
      { label: "Detail", cell: (row) => row.detail ?? "" },
    ],
  });
}
