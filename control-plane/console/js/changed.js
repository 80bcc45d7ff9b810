// Two people at once: who changed something meanwhile, and the way back to what is there now.
import { h } from "./dom.js";
import { problemBox } from "./notice.js";
import { time } from "./time.js";

/**
 * For a form's or an action's problem: says who was faster, where that was the problem; else null.
 * @param {import("./api.js").Problem} problem
 * @param {() => Promise<any>} look reads what is there now
 * @param {() => void} reload
 */
export function changedMeanwhile(problem, look, reload) {
  if (problem.status !== 412) return null;
  const who = h("p", {}, "Looking who it was …");
  void look().then((item) => {
    const by = item?.updated_by ?? item?.changed_by ?? item?.created_by;
    const at = item?.updated_at ?? item?.changed_at ?? item?.created_at;
    who.replaceChildren(...(by ? [h("strong", {}, by), " changed it ", time(at, { inline: true }), "."] : ["It was changed or deleted meanwhile."]));
  }, () => who.replaceChildren("It was changed or deleted meanwhile."));
  const again = h("button", { type: "button", class: "button", on: { click: reload } }, "Reload and look");
  const box = problemBox(problem, again);
  box.querySelector(".notice-title")?.after(who);
  return box;
}
