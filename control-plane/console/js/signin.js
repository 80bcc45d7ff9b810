// Signing in, with an API token or by OIDC. The token goes to the control plane once; what stays is a cookie that no
// script can read.
import { announce, h } from "./dom.js";
import { form } from "./forms.js";
import { notice } from "./notice.js";
import { icon } from "./icons.js";
import { methods, signIn } from "./session.js";

/**
 * @param {HTMLElement} root
 * @param {{ ended: boolean, done: () => void }} options
 */
export function signInPage(root, { ended, done }) {
  document.title = "Sign in · Bouncer";
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
      done();
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
    ended && notice("warn", "Your session has ended", h("p", {}, "Sign in again, and you are back where you were.")),
    element, oidc,
    h("p", { class: "hint" }, "This control plane holds envelope metadata, policy and audit. It stores no credential, and " +
      "cannot decrypt one."),
  ));
  summary.id = "sign-in-summary";
  field("token").controls[0].focus();
  if (ended) announce("Your session has ended. Sign in again.");
  void offerOidc(oidc);
}

/** @param {HTMLElement} place */
async function offerOidc(place) {
  const ways = await methods();
  if (!ways?.oidc) return;
  const name = ways.oidc.name ? `Sign in with ${ways.oidc.name}` : "Sign in with OIDC";
  place.replaceChildren(h("p", { class: "or" }, "or"), h("a", { class: "button wide", href: "/v1/session/oidc/start" }, name));
}
