// What stands around every page: where one can go, who one is, and what must be seen from everywhere.
import { get } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { asProblem, toast } from "./notice.js";
import { href } from "./router.js";
import { may, session, signOut } from "./session.js";

const FLAG = "flags.crypto.dual_custody_intercept";
/** @type {[string, [string, string, any, ((flagOn: boolean) => boolean)?][]][]} */
const GROUPS = [
  ["", [["overview", "Overview", "overview"], ["setup", "Guided setup", "setup"], ["proposals", "Proposals", "wait"]]],
  ["Bouncer Management", [["bouncers", "Bouncers", "bouncer"], ["resources", "Protected resources", "resource"]]],
  ["Credentials", [["secrets", "Envelope secrets", "secret"]]],
  ["Audit", [["audit", "Decisions", "audit", () => may("audit")], ["changes", "Administrative changes", "changes", () => may("audit", "everywhere")]]],
  ["Settings", [["flags", "Feature flags", "flag"], ["provider", "Cryptographic provider", "provider", (flagOn) => flagOn],
    ["tokens", "API tokens", "token", () => may("admin", "everywhere")]]],
];

let flagOn = false;
let waiting = 0;
let current = "";
let timer = 0;

/** @param {HTMLElement} root @param {{ signedOut: () => void }} options */
export function frame(root, { signedOut }) {
  const who = session();
  const toggle = h("button", { type: "button", class: "button quiet menu", "aria-expanded": "false", "aria-controls": "menu" },
    icon("menu"), h("span", {}, "Menu"));
  toggle.addEventListener("click", () => openMenu(toggle.getAttribute("aria-expanded") !== "true"));
  const leave = h("button", { type: "button", class: "button quiet small" }, icon("out"), h("span", {}, "Sign out"));
  leave.addEventListener("click", async () => {
    try {
      await signOut();
      clearTimeout(timer);
      signedOut();
    } catch (fault) {
      toast(`Not signed out: ${asProblem(fault).title}`);
    }
  });
  root.replaceChildren(
    h("header", { class: "side" },
      h("div", { class: "side-head" },
        h("a", { class: "brand", href: href("overview") }, icon("bouncer"), h("span", {}, "Bouncer")), toggle),
      h("div", { id: "menu", class: "menu-body" },
        h("nav", { "aria-label": "Console", id: "nav" }),
        h("div", { class: "side-foot" },
          h("p", { class: "who" }, h("span", { class: "who-name" }, who?.actor ?? ""), h("span", { class: "muted" }, who?.role ?? "", who && who.path_prefixes.length > 0 && `, limited to ${who.path_prefixes.join(", ")}`)),
          themeChoice(), leave))),
    h("div", { class: "content" }, h("div", { id: "banner" }), h("main", { id: "main", tabindex: -1 })),
  );
  drawNav();
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") openMenu(false); });
}

/** @param {boolean} open */
function openMenu(open) {
  document.querySelector(".menu")?.setAttribute("aria-expanded", String(open));
  document.querySelector(".side")?.classList.toggle("open", open);
}

function drawNav() {
  const nav = document.getElementById("nav");
  if (!nav) return;
  // Whoever is on one of its links stays on it.
  const held = nav.contains(document.activeElement) ? document.activeElement?.getAttribute("href") : null;
  nav.replaceChildren(...GROUPS.map(([title, items]) => {
    const shown = items.filter(([, , , when]) => !when || when(flagOn));
    if (shown.length === 0) return "";
    return h("div", { class: "nav-group" }, title && h("p", { class: "nav-title" }, title),
      h("ul", {}, shown.map(([path, label, image]) => h("li", {},
        h("a", { href: href(path), "aria-current": path === current ? "page" : null }, icon(image), h("span", {}, label), path === "proposals" && waiting > 0 && badge())))));
  }));
  if (held) /** @type {HTMLElement | null} */ (nav.querySelector(`a[href=${JSON.stringify(held)}]`))?.focus();
}

/** How many changes wait. */
function badge() {
  return h("span", { class: "badge" }, waiting > 99 ? "99+" : waiting, h("span", { class: "visually-hidden" }, " waiting for a second person"));
}

/** The page that is shown. @param {string} name */
export function showsNow(name) {
  current = name;
  drawNav();
  openMenu(false);
}

function themeChoice() {
  const theme = /** @type {any} */ (window).bouncerTheme;
  const group = h("div", { class: "theme", role: "group", "aria-label": "Colours" });
  const draw = () => {
    for (const button of group.children) button.setAttribute("aria-pressed", String(/** @type {any} */ (button).dataset.theme === theme.get()));
  };
  for (const [value, label, image] of /** @type {[string, string, any][]} */ ([["light", "Light", "sun"], ["system", "As the system", "system"], ["dark", "Dark", "moon"]])) {
    const button = h("button", { type: "button", "aria-label": label, title: label, data: { theme: value } }, icon(image));
    button.addEventListener("click", () => { theme.set(value); draw(); });
    group.append(button);
  }
  draw();
  return group;
}

/** Looks again at what the frame shows: whether the flag is on, whether a bouncer runs with --dev. */
export async function refreshFrame() {
  clearTimeout(timer);
  if (!session()) return;
  try {
    const [flags, bridge, pending] = await Promise.all([
      get("/v1/feature-flags"), get("/v1/policy-bridge/health"),
      session()?.second_person ? get("/v1/proposals?state=pending&limit=100") : { items: [] }]);
    const on = flags.items.some((/** @type {any} */ flag) => flag.name === FLAG && flag.enabled);
    if (on !== flagOn || waiting !== pending.items.length) {
      flagOn = on;
      waiting = pending.items.length;
      drawNav();
    }
    banner(bridge.items.filter((/** @type {any} */ item) => item.bridge.dev && item.bridge.state === "connected"));
  } catch {
    // The page that is shown says what is wrong; the frame tries again.
  }
  timer = window.setTimeout(() => void refreshFrame(), 20_000);
}

/** @param {any[]} developing bouncers that run with --dev */
function banner(developing) {
  const place = document.getElementById("banner");
  if (!place) return;
  const names = developing.map((bouncer) => bouncer.name).join(", ");
  if (place.dataset.names === names) return;
  place.dataset.names = names;
  place.replaceChildren(developing.length === 0 ? "" : h("div", { class: "dev-banner", role: "alert" }, icon("warn"),
    h("p", {}, h("strong", {}, "Development mode — not for production. "), h("span", {}, `${names} runs with --dev: plain HTTP, loopback ` +
      "backends and file identities are allowed. Restart its resolver without --dev."))));
}
