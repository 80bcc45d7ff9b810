// The command lines of the set-up: what to type into a terminal instead, for this control plane's URL. No line ever holds
// a token; $TOKEN stands where it belongs.
import { shell } from "../copy.js";

/**
 * @typedef {object} Values what the lines are about
 * @property {string} url
 * @property {string} key
 * @property {string} bouncer
 * @property {string} identity a SPIFFE ID or an IAM role
 * @property {string} resource
 * @property {string} cluster
 * @property {string} upstream
 * @property {string} protocol
 * @property {string[]} callers
 * @property {string} path
 * @property {boolean} enabled
 */
/** @typedef {[string, string][]} Lines names and commands */

/** Examples, for whoever has not said otherwise. @param {Partial<Values>} [own] @returns {Values} */
export function values(own = {}) {
  const given = Object.fromEntries(Object.entries(own).filter(([, value]) => String(value ?? "") !== ""));
  return {
    url: location.origin,
    key: "arn:aws:kms:ca-central-1:123456789012:key/abc-123",
    bouncer: "payments-east",
    identity: "spiffe://example.org/bouncer/payments-east",
    resource: "payments-api",
    cluster: "payments",
    upstream: "payments.internal:8443",
    protocol: "mtls",
    callers: ["spiffe://example.org/ns/shop/*"],
    path: "protected-resources/payments-api/upstream-tls",
    enabled: true,
    ...given,
  };
}

/** @param {Values} v @param {string} method @param {string} path @param {any} [body] @param {string | null} [etag] */
function curl(v, method, path, body, etag) {
  const lines = [`curl -sS${method === "GET" ? "" : ` -X ${method}`} -H "Authorization: Bearer $TOKEN"`];
  if (body) lines[0] += ' -H "Content-Type: application/json"';
  if (etag) lines.push(`  -H ${shell(`If-Match: ${etag}`)}`);
  lines.push(`  ${shell(v.url + path)}`);
  if (body) lines.push(`  -d ${shell(JSON.stringify(body, null, 2))}`);
  return lines.join(" \\\n");
}

/** @param {Values} v */
const ctl = (v) => `export CONTROL_PLANE_URL=${shell(v.url)}\n`;

/** @param {Values} v @returns {Lines} */
export function flagLines(v) {
  return [
    ["bouncerctl", `${ctl(v)}bouncerctl flags enable`],
    ["curl", curl(v, "PUT", "/v1/feature-flags/flags.crypto.dual_custody_intercept", { enabled: true })],
  ];
}

/** @param {Values} v @returns {Lines} */
export function settingsLines(v) {
  return [
    ["bouncerctl", `${ctl(v)}bouncerctl settings set --provider kms_envelope \\\n  --kms-key-arn ${shell(v.key)}`],
    ["curl", curl(v, "PUT", "/v1/crypto/settings", { provider: "kms_envelope", kms_key_arn: v.key, notes: "Production CMK, dual custody" })],
  ];
}

/** @param {Values} v @returns {Lines} */
export function secretLines(v) {
  const aad = `env=production,bouncer=${v.bouncer},upstream=${v.upstream},caller=${v.callers[0]}`;
  return [
    ["bouncerctl: wrap and register", `${ctl(v)}bouncerctl wrap --key-arn ${shell(v.key)} --in bundle.pem \\\n  --aad ${shell(aad)} \\\n  --register ${shell(v.path)}`],
    ["curl: register what was wrapped", curl(v, "POST", "/v1/crypto/envelope-secrets", {
      logical_path: v.path, key_id: v.key, ciphertext_ref: "THE_CIPHERTEXT_THAT_WRAP_PRINTED", aad, provider: "kms_envelope",
    })],
    ["curl: list mappings", curl(v, "GET", "/v1/crypto/envelope-secrets")],
  ];
}

/** @param {Values} v @returns {Lines} */
export function bouncerLines(v) {
  const [option, field] = v.identity.startsWith("arn:") ? ["--iam-role", "iam_role_arn"] : ["--spiffe-id", "spiffe_id"];
  return [
    ["bouncerctl", `${ctl(v)}bouncerctl bouncers add ${shell(v.bouncer)} ${option} ${shell(v.identity)}`],
    ["curl", curl(v, "POST", "/v1/bouncers", { name: v.bouncer, [field]: v.identity })],
  ];
}

/** As the API has it. @param {Values} v */
const resource = (v) => ({
  name: v.resource, bouncer: v.bouncer, cluster: v.cluster, upstream: v.upstream, protocol: v.protocol, logical_path: v.path,
  callers: v.callers, enabled: v.enabled,
});

/** @param {Values} v @returns {Lines} */
export function resourceLines(v) {
  const callers = v.callers.map((caller) => ` \\\n  --caller ${shell(caller)}`).join("");
  return [
    ["bouncerctl", `${ctl(v)}bouncerctl resources add ${shell(v.resource)} --bouncer ${shell(v.bouncer)} \\\n  --cluster ${shell(v.cluster)} --upstream ${shell(v.upstream)} --protocol ${shell(v.protocol)} \\\n  --logical-path ${shell(v.path)}${callers}${v.enabled ? "" : " \\\n  --disabled"}`],
    ["curl", curl(v, "POST", "/v1/protected-resources", resource(v))],
  ];
}

/**
 * Changes one that is registered; by curl only if it is still as it was read.
 * @param {Values} v
 * @param {string | null} etag
 * @returns {Lines}
 */
export function resourceChangeLines(v, etag) {
  // JSON is YAML.
  const file = JSON.stringify({ version: 1, protected_resources: [resource(v)] }, null, 2);
  return [
    ["bouncerctl", `${ctl(v)}bouncerctl apply -f - <<'END'\n${file}\nEND`],
    ["curl", curl(v, "PUT", `/v1/protected-resources/${encodeURIComponent(v.resource)}`, resource(v), etag)],
  ];
}

/** @param {Values} v @returns {Lines} */
export function verifyLines(v) {
  return [
    ["bouncerctl", `${ctl(v)}bouncerctl status\nbouncerctl probe\nbouncerctl audit list --limit 5`],
    ["curl", `${curl(v, "GET", "/v1/bootstrap/status")} | jq .`],
    ["curl: why was it denied?", curl(v, "GET", "/v1/audit/events?outcome=deny&limit=5")],
  ];
}
