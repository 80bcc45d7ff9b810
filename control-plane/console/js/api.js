// The one way to the control plane's API. Nothing is sent from anywhere else, so this is also where plaintext is held
// back a last time, whatever way it took into a form.
import { plaintextIn } from "./plaintext.js";

/** What went wrong with a call: RFC 9457, whoever found the fault. */
export class Problem extends Error {
  /** @param {Record<string, any>} body @param {number} status @param {string} [requestId] */
  constructor(body, status, requestId) {
    super(body.title ?? "The call failed");
    this.status = status;
    this.code = String(body.type ?? "").replace("urn:bouncer:problem:", "") || "unknown";
    this.title = body.title ?? "The call failed";
    this.detail = body.detail ?? "";
    this.next = body.next ?? "";
    this.requestId = requestId ?? String(body.instance ?? "").replace("urn:uuid:", "");
    /** @type {{ field: string, detail: string }[]} */
    this.errors = body.errors ?? [];
  }
}

/** The change was not made: it waits for a second person. */
export class Waiting extends Problem {
  /** @param {any} proposal */
  constructor(proposal) {
    super({ type: "urn:bouncer:problem:waits_for_second_person", title: "The change waits for a second person" }, 202);
    this.proposal = proposal;
  }
}

/** Without these words nobody would know what to do with a refused paste. @param {string} kind @param {string} [field] */
export function refusal(kind, field) {
  return new Problem({
    type: "urn:bouncer:problem:plaintext_held_back",
    title: "Nothing was sent",
    detail: `${field ? `The field '${field}'` : "The text"} looks like ${kind}. It has not left this browser.`,
    next: "The control plane takes envelope metadata only. Wrap the credential under your own key with 'bouncerctl wrap', " +
      "and register what that prints.",
  }, 0);
}

let csrf = "";
/** @type {() => void} */
let sessionEnded = () => {};

/** @param {string} token */
export function useCsrfToken(token) {
  csrf = token;
}

/** @param {() => void} listener */
export function onSessionEnd(listener) {
  sessionEnded = listener;
}

/**
 * @typedef {object} Answer
 * @property {any} json
 * @property {string | null} etag
 * @property {number} status
 */

/**
 * One call. Throws a Problem unless it succeeds. `etag` is what a change is built on, null where nothing was there:
 * whoever was faster is never overwritten unseen. Left out, the change is made whatever is there.
 * @param {string} method
 * @param {string} path
 * @param {{ body?: any, etag?: string | null, signal?: AbortSignal, signIn?: boolean, bearer?: string }} [options]
 * @returns {Promise<Answer>}
 */
export async function call(method, path, { body, etag, signal, signIn = false, bearer } = {}) {
  holdBack(path, body);
  /** @type {Record<string, string>} */
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (method !== "GET" && csrf) headers["x-bouncer-csrf"] = csrf;
  if (etag) headers["if-match"] = etag;
  else if (etag === null) headers["if-none-match"] = "*";
  // Signing in is the one call that carries a token, and it carries it where no body is.
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
    });
  } catch (fault) {
    if (signal?.aborted) throw fault;
    throw new Problem({
      type: "urn:bouncer:problem:unreachable",
      title: "The control plane does not answer",
      detail: "No connection to it could be made, or it broke. A change may or may not have been made.",
      next: "Check that the control plane runs and that this machine reaches it; then read back what you meant to change.",
    }, 0);
  }
  const text = await response.text();
  let json = null;
  try {
    json = text ? JSON.parse(text) : null;
  } catch {
    // Probes answer with plain text.
  }
  if (!response.ok) {
    const problem = new Problem(json ?? {}, response.status, response.headers.get("x-request-id") ?? undefined);
    if (response.status === 401 && !signIn) sessionEnded();
    throw problem;
  }
  if (response.status === 202) throw new Waiting(json);
  return { json, etag: response.headers.get("etag"), status: response.status };
}

/** @param {string} path @param {any} body */
function holdBack(path, body) {
  const query = path.split("?")[1];
  if (query) {
    for (const [name, value] of new URLSearchParams(query)) look(value, name);
  }
  walk(body, "");
}

/** @param {any} value @param {string} field */
function walk(value, field) {
  if (typeof value === "string") look(value, field);
  else if (Array.isArray(value)) value.forEach((item, index) => walk(item, `${field}[${index}]`));
  else if (value && typeof value === "object") {
    for (const [name, item] of Object.entries(value)) walk(item, field ? `${field}.${name}` : name);
  }
}

/** @param {string} text @param {string} field */
function look(text, field) {
  const kind = plaintextIn(text);
  if (kind) throw refusal(kind, field);
}

/** The entity tag of an item of a list, by which a change is made conditional; null of what was never made. @param {any} item */
export const etagOf = (item) => (item?.revision ? `"r${item.revision}"` : null);

/** @param {string} path @param {AbortSignal} [signal] */
export async function get(path, signal) {
  return (await call("GET", path, { signal })).json;
}

/**
 * A list to its end, or to `most` items.
 * @param {string} path
 * @param {{ most?: number, signal?: AbortSignal }} [options]
 * @returns {Promise<{ items: any[], more: boolean }>}
 */
export async function all(path, { most = 5_000, signal } = {}) {
  const items = [];
  let cursor = null;
  do {
    const part = await get(withQuery(path, { limit: 500, cursor }), signal);
    items.push(...part.items);
    cursor = part.next_cursor ?? null;
  } while (cursor && items.length < most);
  return { items: items.slice(0, most), more: cursor !== null };
}

/**
 * A path with parameters added; those without a value are left out.
 * @param {string} path
 * @param {Record<string, any>} parameters
 */
export function withQuery(path, parameters) {
  const [base, query] = path.split("?");
  const search = new URLSearchParams(query);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") search.set(name, String(value));
  }
  const text = search.toString();
  return text ? `${base}?${text}` : base;
}
