// Tells a plaintext credential by its form, before anything is sent. The same forms as the control plane's own check,
// which stays the authority (control-plane/src/plaintext); this one exists so that what was pasted by mistake never
// leaves the browser. Only forms are recognised, never entropy, so that a KMS ciphertext blob always passes. Nothing here
// keeps or repeats the text it was given.

const DEPTH = 3;
const UPPER = "[A-Z0-9]";
const ALNUM = "[A-Za-z0-9]";
const WORD = "[A-Za-z0-9_-]";

/** @param {string} prefix @param {string} alphabet @param {number} least @param {number} [most] */
function shape(prefix, alphabet, least, most) {
  const literal = prefix.replace(/[.\\]/g, "\\$&");
  const end = most === undefined ? "" : `(?!${alphabet})`;
  return new RegExp(`(?<![A-Za-z0-9])${literal}${alphabet}{${least},${most ?? ""}}${end}`);
}

const service = "a service's API token";
/** @type {[RegExp, string][]} */
const SHAPES = [
  [shape("AKIA", UPPER, 16, 16), "an AWS access key"],
  [shape("ASIA", UPPER, 16, 16), "an AWS access key"],
  [/(?<![A-Za-z0-9])hv[sbr]\.[A-Za-z0-9_-]{20,}/, "a Vault token"],
  [shape("s.", ALNUM, 24, 24), "a Vault token"],
  [shape("b.AAAA", WORD, 40), "a Vault token"],
  [/(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{20,}/, service],
  [shape("github_pat_", WORD, 20), service],
  [shape("glpat-", WORD, 16), service],
  [/(?<![A-Za-z0-9])xox[abceoprs]-[A-Za-z0-9_-]{10,}/, service],
  [shape("xapp-", WORD, 10), service],
  [/(?<![A-Za-z0-9])(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{10,}/, service],
  [shape("whsec_", ALNUM, 20), service],
  [shape("AIza", WORD, 35, 35), service],
  [shape("ya29.", WORD, 20), service],
  [/(?<![A-Za-z0-9])sk-(?:ant|proj)-[A-Za-z0-9_-]{20,}/, service],
  [shape("sk-", ALNUM, 32), service],
  [shape("npm_", ALNUM, 36, 36), service],
  [shape("pypi-", WORD, 40), service],
  [shape("dop_v1_", ALNUM, 64, 64), service],
  [shape("SG.", WORD, 20), service],
  [shape("bnc_", WORD, 43, 43), "a token of this control plane"],
];

/**
 * What the text looks like, with its article; null if it looks like nothing that must not be sent.
 * @param {string} text
 * @returns {string | null}
 */
export function plaintextIn(text) {
  return within(text, DEPTH);
}

/** @param {string} text @param {number} depth @returns {string | null} */
function within(text, depth) {
  const found = privateKey(text) ?? token(text) ?? encodedKey(text);
  if (found || depth === 0) return found;
  for (const inner of decodings(text)) {
    const deeper = within(inner, depth - 1);
    if (deeper) return deeper;
  }
  return null;
}

/** @param {string} text */
function privateKey(text) {
  const upper = text.toUpperCase();
  const pem = [...upper.matchAll(/--BEGIN/g)].some((match) => {
    const label = upper.slice(match.index + 7, match.index + 55);
    return label.includes("PRIVATE") && label.includes("KEY");
  });
  const putty = upper.includes("PUTTY-USER-KEY-FILE");
  const jwk = text.includes('"kty"') && (text.includes('"d"') || text.includes('"k"'));
  return pem || putty || jwk ? "a private key" : null;
}

/** @param {string} text */
function token(text) {
  const known = SHAPES.find(([pattern]) => pattern.test(text));
  if (known) return known[1];
  if (jsonWebToken(text)) return "a JSON Web Token";
  const squeezed = text.replace(/[_\-"' \t]/g, "").toLowerCase();
  if (/(?:secretaccesskey|awssessiontoken|awssecretkey)[=:>]+[a-z0-9/+]{16,}/.test(squeezed)) return "an AWS access key";
  if (authorization(text)) return "the credentials of an Authorization header";
  const withPassword = [...text.matchAll(/:\/\/([^/?# \n]*)/g)].some(([, authority]) => {
    const at = authority.lastIndexOf("@");
    return at > 0 && /:./.test(authority.slice(0, at));
  });
  return withPassword ? "a URL with a password" : null;
}

/** @param {string} text */
function jsonWebToken(text) {
  return [...text.matchAll(/eyJ[A-Za-z0-9_.-]*/g)].some(([match]) => {
    const parts = match.split(".");
    if (parts.length < 3) return false;
    try {
      const header = JSON.parse(latin(bytes(parts[0]) ?? []));
      return typeof header === "object" && header !== null && "alg" in header;
    } catch {
      return false;
    }
  });
}

/** @param {string} text */
function authorization(text) {
  const values = (/** @type {string} */ scheme) => {
    const pattern = new RegExp(`(?<![A-Za-z0-9])${scheme}[ \\t+]+([A-Za-z0-9._~+/=-]*)`, "gi");
    return [...text.matchAll(pattern)].map((match) => match[1]);
  };
  if (values("bearer").some((value) => value.length >= 16 && /[0-9]/.test(value))) return true;
  return values("basic").some((value) => value.length > 0 && latin(bytes(value) ?? []).includes(":"));
}

/** Runs of base64 in either alphabet, line breaks taken out, all in the standard alphabet. @param {string} text */
function runs(text) {
  const joined = text.replaceAll("\\n", "\n").replaceAll("\\r", "\r").replace(/[ \t\r\n]/g, "");
  const found = joined.match(/[A-Za-z0-9+/_-]{24,}/g) ?? [];
  return found.map((run) => run.replaceAll("-", "+").replaceAll("_", "/"));
}

/** @param {string} base64 @returns {number[] | null} */
function bytes(base64) {
  const standard = base64.replaceAll("-", "+").replaceAll("_", "/").replace(/=+$/, "");
  const usable = standard.length % 4 === 1 ? standard.slice(0, -1) : standard;
  try {
    return [...atob(usable)].map((character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

/** @param {number[]} octets */
const latin = (octets) => octets.map((octet) => String.fromCharCode(octet)).join("");

/** @param {string} text */
function decodings(text) {
  const inner = [];
  for (const run of runs(text)) {
    const octets = bytes(run);
    if (!octets) continue;
    try {
      inner.push(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(octets)));
    } catch {
      // No text, so nothing is written in it.
    }
  }
  if (/%[0-9A-Fa-f]{2}/.test(text)) {
    inner.push(text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))));
  }
  return inner;
}

/** Private keys in DER behind base64, wherever in a run they begin. @param {string} text */
function encodedKey(text) {
  for (const run of runs(text)) {
    for (const match of run.matchAll(/[Mb]/g)) {
      const rest = run.slice(match.index, match.index + 64);
      if (rest.length < 24) break;
      const head = bytes(rest.slice(0, rest.length - (rest.length % 4)));
      if (head && isPrivateKey(head)) return "a private key";
    }
  }
  return null;
}

/** The contents of a DER SEQUENCE, as far as they are there. @param {number[]} der @returns {number[] | null} */
function sequence(der) {
  if (der[0] !== 0x30 || der.length < 2) return null;
  const length = der[1];
  if (length <= 0x7f) return der.slice(2);
  if (length >= 0x81 && length <= 0x83) return der.slice(2 + length - 0x80);
  return null;
}

/** @param {number[]} octets @param {number[]} prefix */
const starts = (octets, prefix) => prefix.every((octet, index) => octets[index] === octet);

/** PKCS#8, encrypted PKCS#8, PKCS#1, SEC1, PKCS#12, OpenSSH. @param {number[]} head */
function isPrivateKey(head) {
  if (latin(head).startsWith("openssh-key-v1\0")) return true;
  const body = sequence(head);
  if (!body) return false;
  const algorithm = sequence(body);
  if (algorithm) {
    const pkcs = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01];
    return algorithm[0] === 6 && starts(algorithm.slice(2), pkcs) && [0x05, 0x0c].includes(algorithm[9]);
  }
  if (body[0] !== 2 || body[1] !== 1) return false;
  const [version, rest] = [body[2], body.slice(3)];
  if (version <= 1 && sequence(rest)?.[0] === 6) return true;
  if (version === 0 && rest[0] === 2 && rest[1] >= 0x40 && rest[1] <= 0x84) return true;
  if (version === 1 && rest[0] === 4 && rest[1] >= 0x14 && rest[1] <= 0x48) return true;
  const pkcs7 = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];
  return version === 3 && starts(sequence(rest) ?? [], pkcs7);
}
