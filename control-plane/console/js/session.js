// Who is signed in, and what they may do. The session itself is a cookie that no script can read; the token that was
// typed in is sent once and not kept.
import { call, useCsrfToken } from "./api.js";

/**
 * @typedef {object} Session
 * @property {string} actor
 * @property {string} role
 * @property {string[]} permissions
 * @property {string[]} path_prefixes
 * @property {string} expires_at
 * @property {boolean} second_person changes of binding wait for a second person
 */

/** @type {Session | null} */
let current = null;

/** @param {any} json @returns {Session} */
function take(json) {
  useCsrfToken(json.csrf_token ?? "");
  current = {
    actor: json.actor, role: json.role, permissions: json.permissions ?? [], path_prefixes: json.path_prefixes ?? [],
    expires_at: json.expires_at, second_person: json.second_person,
  };
  return current;
}

/** The session of this browser, asked for once; null if there is none. */
export async function resume() {
  try {
    return take((await call("GET", "/v1/session", { signIn: true })).json);
  } catch (problem) {
    if (/** @type {any} */ (problem).status === 401) return null;
    throw problem;
  }
}

/** @param {string} token */
export async function signIn(token) {
  // What no header can carry is no token; the API says so in its own words.
  const bearer = /^[\x21-\x7e]+$/.test(token) ? token : "none";
  return take((await call("POST", "/v1/session", { bearer, signIn: true })).json);
}

export async function signOut() {
  await call("DELETE", "/v1/session");
  forget();
}

export function forget() {
  current = null;
  useCsrfToken("");
}

export const session = () => current;

/**
 * Whether the role may do this. The API decides anyway; this only spares a refusal.
 * @param {"read" | "audit" | "write" | "admin"} permission
 * @param {"everywhere"} [where] for what is about more than the paths that a token may be limited to
 */
export function may(permission, where) {
  if (where === "everywhere" && current && current.path_prefixes.length > 0) return false;
  return current?.permissions.includes(permission) ?? false;
}

/** How one may sign in besides with a token. */
export async function methods() {
  try {
    return (await call("GET", "/v1/session/methods", { signIn: true })).json;
  } catch {
    return { token: true, oidc: false };
  }
}
