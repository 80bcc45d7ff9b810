// Which page stands at which address, and going from one to the next without loading the console again: the title, the
// focus and the scroll position follow.
import { h } from "./dom.js";
import { problemBox } from "./notice.js";

export const BASE = "/console";

/**
 * @typedef {object} Visit what a page is given
 * @property {string[]} rest the parts of the path below the page's own
 * @property {URLSearchParams} query
 * @property {AbortSignal} leaving aborted when the page is left
 * @property {(path: string) => void} go
 * @property {() => void} reload
 */
/** @typedef {{ title: string, content: Node | Node[], actions?: Node[], intro?: string }} Page */
/** @typedef {(visit: Visit) => Promise<Page>} Render */

/** @type {Record<string, Render>} */
let pages = {};
/** @type {(path: string) => void} */
let arrived = () => {};
let visit = new AbortController();

/** @param {Record<string, Render>} table @param {(path: string) => void} onArrive */
export function start(table, onArrive) {
  pages = table;
  arrived = onArrive;
}

/** The address within the console, with its query. */
export const here = () => location.pathname.slice(BASE.length).replace(/^\/|\/$/g, "") + location.search;

/** @param {string} path */
export const href = (path) => `${BASE}/${path}`;

/** A link within the console. @param {string} path @param {Record<string, any>} properties @param {...any} children */
export function link(path, properties, ...children) {
  return h("a", { href: href(path), ...properties }, ...children);
}

/** @param {string} path @param {{ replace?: boolean }} [options] */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", href(path));
  return show();
}

/** Ends what the page that is shown has under way. */
export function leave() {
  visit.abort();
}

/** Shows what the address names. @param {{ focus?: boolean }} [options] */
export async function show({ focus = true } = {}) {
  leave();
  visit = new AbortController();
  const { signal } = visit;
  const address = here();
  const [name, ...rest] = partsOf(address);
  arrived(name);
  const main = /** @type {HTMLElement} */ (document.getElementById("main"));
  main.setAttribute("aria-busy", "true");
  const render = Object.hasOwn(pages, name) ? pages[name] : lost;
  /** @type {Page} */
  let page;
  try {
    page = await render({
      rest, query: new URLSearchParams(location.search), leaving: signal,
      go: (to) => void go(to), reload: () => {
        // Whoever has gone elsewhere meanwhile is not called back, and their focus stays where it is.
        if (here() === address) void show({ focus: false });
      },
    });
  } catch (fault) {
    if (signal.aborted) return;
    const again = h("button", { type: "button", class: "button", on: { click: () => show() } }, "Try again");
    page = { title: "This page cannot be shown", content: problemBox(fault, again) };
  }
  if (signal.aborted) return;
  document.title = `${page.title} · Bouncer`;
  const heading = h("h1", { tabindex: -1, id: "page-title" }, page.title);
  main.replaceChildren(
    h("div", { class: "page-head" }, h("div", {}, heading, page.intro && h("p", { class: "intro" }, page.intro)),
      page.actions?.length ? h("div", { class: "actions" }, page.actions) : ""),
    ...[page.content].flat(),
  );
  main.setAttribute("aria-busy", "false");
  main.dataset.page = name;
  if (focus) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

/** What the path of an address consists of; nothing that names a page, if it cannot be decoded. @param {string} address */
function partsOf(address) {
  try {
    return address.split("?")[0].split("/").map(decodeURIComponent);
  } catch {
    return [""];
  }
}

/** @returns {Promise<Page>} */
async function lost() {
  return {
    title: "No such page",
    content: h("p", {}, "The console has nothing at this address. ", link("overview", {}, "Go to the overview"), "."),
  };
}

/** Follows links within the console, and the browser's own buttons. */
export function follow() {
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const anchor = event.target instanceof Element ? event.target.closest("a") : null;
    if (!anchor || anchor.target || anchor.hasAttribute("download") || anchor.origin !== location.origin) return;
    if (!anchor.pathname.startsWith(`${BASE}/`)) return;
    if (anchor.hash) {
      // Within the page, such as the skip link: only the focus goes there.
      event.preventDefault();
      return void document.getElementById(anchor.hash.slice(1))?.focus();
    }
    event.preventDefault();
    void go(anchor.pathname.slice(BASE.length + 1) + anchor.search);
  });
  addEventListener("popstate", () => void show());
}
