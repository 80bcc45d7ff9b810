// Who a bouncer is, as it is typed: says in words what a SPIFFE ID or an IAM role names, or what is in the way. A hint,
// and nothing else: whether it is taken is the API's to say.

/** What each kind is called, as the API names it. @type {Record<string, string>} */
export const KINDS = { spiffe_id: "SPIFFE ID", iam_role_arn: "IAM role" };

/** @param {any} bouncer */
export const kindOf = (bouncer) => (bouncer.spiffe_id ? KINDS.spiffe_id : KINDS.iam_role_arn);

/** @param {any} bouncer @returns {string} */
export const identityOf = (bouncer) => bouncer.spiffe_id ?? bouncer.iam_role_arn;

const SPIFFE = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)*)$/;
const ROLE = /^arn:(aws(?:-[a-z-]+)?):iam::(\d{12}):role\/(?:[^:\s]+\/)?([A-Za-z0-9_+=,.@-]{1,64})$/;
const ASSUMED = /^arn:(aws(?:-[a-z-]+)?):sts::(\d{12}):assumed-role\/([A-Za-z0-9_+=,.@-]{1,64})\/[^/]+$/;

/** @param {string} text */
export function readSpiffeId(text) {
  if (text.startsWith("arn:")) return `An ARN is no SPIFFE ID. Choose “${KINDS.iam_role_arn}” for it.`;
  const [, domain, path] = SPIFFE.exec(text) ?? [];
  if (!domain) return "Not a SPIFFE ID yet: spiffe://TRUST-DOMAIN/PATH, the trust domain in lower case.";
  return path ? `${path} in the trust domain ${domain}.` : `The trust domain ${domain} itself.`;
}

/** @param {string} text */
export function readRole(text) {
  if (text.startsWith("spiffe:")) return `A SPIFFE ID is no role. Choose “${KINDS.spiffe_id}” for it.`;
  const session = ASSUMED.exec(text);
  if (session) return `A session of a role. Give the role itself: ${arn(session)}`;
  const role = ROLE.exec(text);
  if (!role) return "Not the ARN of an IAM role yet: arn:aws:iam::ACCOUNT:role/NAME, with an account of 12 digits.";
  return text === arn(role) ? `The role ${role[3]} of the account ${role[2]}.` : `Leave the role's path out: ${arn(role)}`;
}

/** @param {RegExpExecArray} read */
const arn = ([, partition, account, name]) => `arn:${partition}:iam::${account}:role/${name}`;
