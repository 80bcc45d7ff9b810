// Signing in, with an API token or by OIDC. The token goes to the control plane once; what stays is a cookie that no
// script can read.
import { announce, h } from "./dom.js";
import { form } from "./forms.js";
import { notice } from "./notice.js";
import { icon } from "./icons.js";
import { here } from "./router.js";
import { methods, signIn } from "./session.js";

/** Where to go on after the way by the identity provider: kept by the browser until one is back, signed in or not. */
const RETURN = "bouncer.return";

/**
 * @param {HTMLElement} root
 * @param {{ ended: boolean, done: (goal: string) => void }} options
 */
export function signInPage(root, { ended, done }) {
  document.title = "Sign in · Bouncer";
  const error = new URLSearchParams(location.search).get("error");
  const asked = here();
  const goal = error ? cameFrom() : asked.startsWith("?") ? "" : asked;
  const { element, field, summary } = form({
    name: "Sign in",
    submit: "Sign in",
    fields: [{
      name: "token", label: "API token", kind: "password", required: true, mono: true, holdsToken: true,
      hint: "Begins with bnc_. It is sent to this control plane once, and is not kept in the browser.",
    }],
    send: async ({ token }) => {
      await signIn(token);
      announce("Signed in");
      done(goal);
    },
    explain: (problem) => (problem.status === 401
      ? h("div", { class: "notice bad", role: "alert" }, icon("bad"), h("div", { class: "notice-body" },
        h("p", { class: "notice-title" }, "This token is not known here"),
        h("p", {}, "It may be revoked, expired, or of another control plane."),
        h("p", {}, h("strong", {}, "What to do: "), "ask who administers this control plane for one, or make the first " +
          "on its machine:"),
        h("pre", { tabindex: 0 }, h("code", {}, "bouncer-control-plane bootstrap --token-file PATH"))))
      : null),
  });
  const oidc = h("div", { class: "oidc" });
  root.replaceChildren(h("main", { id: "main", class: "sign-in" },
    h("div", { class: "brand" }, icon("bouncer"), h("span", {}, "Bouncer")),
    h("h1", { tabindex: -1, id: "page-title" }, "Sign in to the control plane"),
    failed(error),
    ended && notice("warn", "Your session has ended", h("p", {}, "Sign in again, and you are back where you were.")),
    element, oidc,
    h("p", { class: "hint" }, "This control plane holds envelope metadata, policy and audit. It stores no credential, and " +
      "cannot decrypt one."),
  ));
  summary.id = "sign-in-summary";
  field("token").controls[0].focus();
  if (ended) announce("Your session has ended. Sign in again.");
  void offerOidc(oidc, goal);
}

/** Why the identity provider did not sign anybody in, as the control plane says. @param {string | null} code */
function failed(code) {
  if (!code) return null;
  const [why, next] = {
    csrf: ["The sign-in was not begun in this browser, or too long ago.", "Begin it here."],
    no_role: ["The identity provider knows you, but none of your groups stands for a role here.", "Ask an administrator to map one of them ([[oidc.roles]])."],
    identity_provider_unavailable: ["The identity provider does not answer as it should.", "Try again shortly, or sign in with an API token. The control plane's log says what is wrong."],
  }[code] ?? ["The identity provider did not vouch for you.", "Try again, or sign in with an API token."];
  return h("div", { class: "notice bad", role: "alert" }, icon("bad"), h("div", { class: "notice-body" },
    h("p", { class: "notice-title" }, "You are not signed in"), h("p", {}, why), h("p", {}, h("strong", {}, "What to do: "), next)));
}

/** Where one was before the identity provider was asked; told once, and "" if nowhere. */
export function cameFrom() {
  try {
    const path = sessionStorage.getItem(RETURN);
    sessionStorage.removeItem(RETURN);
    return path ?? "";
  } catch {
    return "";
  }
}

/** @param {HTMLElement} place @param {string} goal where to go on */
async function offerOidc(place, goal) {
  const ways = await methods();
  if (!ways?.oidc) return;
  const name = ways.oidc.name ? `Sign in with ${ways.oidc.name}` : "Sign in with OIDC";
  const leave = () => {
    try {
      sessionStorage.setItem(RETURN, goal);
    } catch {
      // Then one comes back to the overview.
    }
  };
  place.replaceChildren(h("p", { class: "or" }, "or"), h("a", { class: "button wide", href: "/v1/session/oidc/start", on: { click: leave } }, name));
}
