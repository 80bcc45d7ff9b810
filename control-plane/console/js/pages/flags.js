// Settings → Feature flags.
import { call, etagOf, get } from "../api.js";
import { changedMeanwhile } from "../changed.js";
import { ask } from "../dialog.js";
import { h } from "../dom.js";
import { refreshFrame } from "../frame.js";
import { asProblem, notice, problemBox, toast } from "../notice.js";
import { pill } from "../pill.js";
import { may } from "../session.js";
import { time } from "../time.js";

const LIST = "/v1/feature-flags";

/** @type {import("../router.js").Render} */
export async function flags({ leaving, reload }) {
  const { items } = await get(LIST, leaving);
  return {
    title: "Feature flags",
    intro: "Flags decide what bouncers may do at all. A change reaches them within a second.",
    content: h("ul", { class: "cards wide" }, items.map((/** @type {any} */ flag) => card(flag, reload))),
  };
}

/** A flag, as it is now: there is a list of them only. @param {string} name */
async function read(name) {
  const { items } = await get(LIST);
  return items.find((/** @type {any} */ item) => item.name === name);
}

/** @param {any} flag @param {() => void} reload */
function card(flag, reload) {
  const outcome = h("div", {});
  const button = h("button", { type: "button", class: `button ${flag.enabled ? "" : "primary"}`, disabled: !may("admin", "everywhere") }, flag.enabled ? "Turn off …" : "Turn on …");
  button.addEventListener("click", async () => {
    if (await agreed(flag) === null) return;
    try {
      await call("PUT", `${LIST}/${encodeURIComponent(flag.name)}`, { body: { enabled: !flag.enabled }, etag: etagOf(flag) });
      toast(`${flag.name} is ${flag.enabled ? "off" : "on"}`);
      await refreshFrame();
      reload();
    } catch (fault) {
      const problem = asProblem(fault);
      outcome.replaceChildren(changedMeanwhile(problem, () => read(flag.name), reload) ?? problemBox(problem));
    }
  });
  return h("li", { class: "card flag", data: { flag: flag.name } },
    h("div", { class: "card-head" }, h("h2", { class: "mono" }, flag.name), flag.enabled ? pill("ok", "On") : pill("off", "Off")),
    h("p", {}, flag.description),
    h("p", { class: "muted" }, flag.updated_at ? ["Last changed by ", h("strong", {}, flag.updated_by), " ", time(flag.updated_at, { inline: true })] : "Never changed: off is the default."),
    !may("admin", "everywhere") && h("p", { class: "muted" }, "Your role cannot change flags."),
    outcome, h("div", { class: "actions" }, button));
}

/** @param {any} flag */
function agreed(flag) {
  if (flag.enabled) {
    return ask({
      title: "Turn dual-custody intercept off?", danger: true, confirm: "Turn off, and deny",
      body: [
        "Every bouncer denies every protected stream as soon as it hears of it, which takes about a second. Streams that carry a credential are cut off.",
        "Every /v1/crypto call is refused until the flag is on again. Nothing that is registered is lost.",
      ],
    });
  }
  return ask({
    title: "Turn dual-custody intercept on?", confirm: "Turn on",
    body: [
      "Bouncers may then unwrap the customer's credentials at intercept time, for enabled protected resources and their callers only.",
      notice("info", "Credentials stay where they are", h("p", {}, "The control plane stores envelope metadata and cannot decrypt.")),
    ],
  });
}
