// Begins the console: who is signed in, the frame around the pages, the pages themselves.
import { onSessionEnd } from "./api.js";
import { h } from "./dom.js";
import { frame, refreshFrame, showsNow } from "./frame.js";
import { guardPastes } from "./guard.js";
import { asProblem, problemBox } from "./notice.js";
import * as router from "./router.js";
import { forget, resume, session } from "./session.js";
import { cameFrom, signInPage } from "./signin.js";
import { overview } from "./pages/overview.js";
import { setup } from "./pages/setup.js";
import { bouncers } from "./pages/bouncers.js";
import { resources } from "./pages/resources.js";
import { secrets } from "./pages/secrets.js";
import { audit } from "./pages/audit.js";
import { changes } from "./pages/changes.js";
import { flags } from "./pages/flags.js";
import { provider } from "./pages/provider.js";
import { proposals } from "./pages/proposals.js";
import { tokens } from "./pages/tokens.js";

const PAGES = { overview, setup, bouncers, resources, secrets, audit, changes, flags, provider, proposals, tokens };

/** The sign-in page, which goes on to where one was. @param {{ ended?: boolean }} [why] */
function askToSignIn({ ended = false } = {}) {
  router.leave();
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  const root = /** @type {HTMLElement} */ (document.getElementById("frame"));
  root.className = "frame outside";
  signInPage(root, { ended, done: enter });
}

/** The frame, and in it the page of the address, or where one wanted to go. @param {string} [goal] */
function enter(goal) {
  const root = /** @type {HTMLElement} */ (document.getElementById("frame"));
  root.className = "frame";
  frame(root, { signedOut: () => askToSignIn() });
  router.start(PAGES, showsNow);
  void refreshFrame();
  const before = cameFrom();
  const [page] = router.here().split("?");
  if (page === "") router.go(goal || before || "overview", { replace: true });
  else router.show();
}

async function begin() {
  guardPastes();
  router.follow();
  onSessionEnd(() => {
    if (!session()) return;
    forget();
    askToSignIn({ ended: true });
  });
  try {
    if (await resume()) enter();
    else askToSignIn();
  } catch (fault) {
    const root = /** @type {HTMLElement} */ (document.getElementById("frame"));
    const again = h("button", { type: "button", class: "button", on: { click: () => location.reload() } }, "Try again");
    root.className = "frame outside";
    root.replaceChildren(h("main", { id: "main", class: "sign-in" }, h("h1", {}, "Bouncer"), problemBox(asProblem(fault), again)));
  }
}

void begin();
