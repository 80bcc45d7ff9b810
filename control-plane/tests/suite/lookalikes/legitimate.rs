//! What the control plane is there to store: none of it may be refused.

use super::made::der;
use super::noise::Noise;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

const HEX: &str = "0123456789abcdef";
const LOWER: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A text that must pass, and what it is.
pub(super) type Text = (&'static str, String);

/// A KMS ciphertext blob as KMS writes it: a header with the hash of the key, its length, and around the ciphertext a
/// CMS EncryptedData, whose DER begins as a PKCS#8 key does.
pub(super) fn kms_blob(noise: &mut Noise, plaintext: usize) -> Vec<u8> {
    const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    const ENCRYPTED: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x06";
    const AES_256_GCM: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2e";
    let parameters = der(0x30, &[&der(0x04, &[&noise.bytes(12)]), b"\x02\x01\x10"]);
    let algorithm = der(0x30, &[AES_256_GCM, &parameters]);
    let content = der(0x30, &[DATA, &algorithm, &der(0x80, &[&noise.bytes(plaintext + 27)])]);
    let encrypted = der(0x30, &[b"\x02\x01\x00", &content]);
    let cms = der(0x30, &[ENCRYPTED, &der(0xa0, &[&encrypted])]);
    let length = u32::try_from(cms.len()).unwrap().to_be_bytes();
    [&[1, 2, 2, 0, 0x78], &noise.bytes(32)[..], &[1], &noise.bytes(16), &length, &cms].concat()
}

fn envelope(noise: &mut Noise, payload: usize) -> Vec<u8> {
    let header = bouncer_custody::EnvelopeHeader::new(payload, noise.bytes(12).try_into().unwrap()).unwrap();
    let (key, sealed) = (kms_blob(noise, 32), noise.bytes(payload + 16));
    bouncer_custody::SealedEnvelope::new(header, &key, &sealed).unwrap().to_bytes()
}

fn uuid(noise: &mut Noise) -> String {
    let bytes: [u8; 16] = noise.bytes(16).try_into().unwrap();
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

fn path(noise: &mut Noise) -> String {
    let words =
        ["payments", "upstream-tls", "api_v2", "team-a", "prod", "eu-west-1", "client.pem", "s", "tokens", "sk"];
    let segments: Vec<_> = (0..2 + noise.below(3)).map(|_| noise.one(&words)).collect();
    segments.join("/")
}

fn arn(noise: &mut Noise) -> String {
    let id = if noise.below(2) == 0 { uuid(noise) } else { format!("mrk-{}", noise.text(HEX, 32)) };
    let region = noise.one(&["us-east-1", "ca-central-1", "us-gov-west-1", "ap-southeast-4"]);
    format!("arn:aws:kms:{region}:{}:key/{id}", noise.text("0123456789", 12))
}

fn spiffe_id(noise: &mut Noise) -> String {
    format!("spiffe://example.org/ns/{}/sa/{}", noise.text(LOWER, 8), noise.text(LOWER, 12))
}

fn aad(noise: &mut Noise) -> String {
    let upstream = format!("{}.internal:8443", noise.text(LOWER, 10));
    let caller = spiffe_id(noise);
    let more = match noise.below(5) {
        0 => format!(",token=payments-{}", noise.below(9)),
        1 => format!(",secret={}", path(noise)),
        2 => format!(",ticket={}", uuid(noise)),
        3 => format!(",build={}", noise.text(HEX, 40)),
        _ => String::new(),
    };
    format!("env=production,bouncer=payments-east,upstream={upstream},caller={caller},generation=7{more}")
}

/// What people write into a field that is free.
const NOTES: [&str; 24] = [
    "Production CMK, dual custody",
    "Rotate the private key every quarter; the bearer token lives in Vault.",
    "Basic authentication was switched off in 2025. See https://wiki.example.org/kms?page=2#tokens",
    "Owner: ops@example.org, escalation: +1 555 0100 and https://example.org/on-call",
    "secret: in Vault, below kv2:secret/payments/upstream-tls",
    "password policy: 16 characters, rotated by the customer every 90 days",
    "api_key = (see the customer's KMS)",
    "token: transit:mount/key#vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9g==",
    "Approved in CHG0012345 by A. Person, 2026-01-31T12:00:00Z, version 1.2.3-rc.4+build.5",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12 of the policy repository",
    "The key's alias is alias/payments-prod, its administrators are arn:aws:iam::123456789012:role/KeyAdmin",
    "arn:aws:iam::123456789012:role/service-role/AWSServiceRoleForPaymentsUpstream2026",
    "risk-assessment-2026-q1-final-version-2, task-4711, disk-encryption-key-rotation-plan",
    "Clés gérées par le client ; rotation trimestrielle",
    "顧客管理の鍵、四半期ごとに更新",
    "spiffe://example.org/ns/shop/sa/cart may call outbound|443||api.example.com",
    "-----BEGIN CERTIFICATE----- blocks go into certificate_chain, not here",
    "Fingerprint AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJxEq0e0sBeLgbaUnpVfFPZ6sWcBWRUg0DJ5qTf1bXyZ ops",
    "100% of the callers moved (50%2B50%), next: %PATH%",
    "C:\\keys\\new\\readme.txt and \\\\server\\share\\token\\list",
    "session: 2026-01, token bucket: 50 per second, api: v1, auth: SVID",
    "image registry.example.org/bouncer@sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9",
];

/// Requests, certificates and public keys of P-256, P-384, Ed25519 and RSA: the same in each run, since by chance the base64
/// of a new one may hold what a short token looks like.
const CERTIFICATES: &str = include_str!("../../corpus/certificates.pem");

fn certificates() -> Vec<Text> {
    let of_block = |block: &str| {
        let pem = format!("-----BEGIN {block}");
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(&body).unwrap();
        match block.split_once("-----").unwrap().0 {
            "CERTIFICATE" => vec![
                ("certificate chain", pem.repeat(3)),
                ("certificate in base64", body),
                ("certificate in base64 twice", STANDARD.encode(&pem)),
                ("certificate in hex", der.iter().map(|byte| format!("{byte:02x}")).collect()),
                ("certificate", pem),
            ],
            "CERTIFICATE REQUEST" => vec![("certificate request", pem)],
            _ => vec![("public key in base64", STANDARD.encode(&pem)), ("public key", pem)],
        }
    };
    CERTIFICATES.split("-----BEGIN ").skip(1).flat_map(of_block).collect()
}

/// Ciphertexts of noise that happens to begin as a short mark of a token does, and then is of the token's length: one in
/// some hundred thousand is.
fn lucky(noise: &mut Noise) -> Vec<Text> {
    const MARKS: [&str; 13] =
        ["A3T", "YC", "4b1d", "AIza", "AKCp", "AQVN", "EAAA", "EAAC", "EAAM", "EZAK", "EZTK", "LTAI", "cmVmd"];
    let mut texts = Vec::new();
    for mark in MARKS {
        let alphabet = if mark == "A3T" { UPPER } else { ALNUM };
        for length in 15..=100 {
            let begun = format!("{mark}{}/", noise.text(alphabet, length));
            let rest = STANDARD.encode(noise.bytes(16 + length % 50));
            texts.extend([
                ("transit ciphertext that begins as a token does", format!("transit:transit/k#vault:v1:{begun}{rest}")),
                ("ciphertext that holds what a token is", format!("{}+{begun}{}", &rest[..10], &rest[..12])),
                ("ciphertext that begins as a token does", begun + &rest),
            ]);
        }
    }
    texts
}

/// Every legitimate text: some thousands.
pub(super) fn texts() -> Vec<Text> {
    let mut noise = Noise::of("legitimate");
    let mut texts = certificates();
    // Each length of plaintext that KMS takes shifts what is within the blob, so each short one is here.
    let short = 1..400;
    let long = (400..4_096).step_by(61);
    texts.extend(short.chain(long).map(|plaintext| ("KMS blob", STANDARD.encode(kms_blob(&mut noise, plaintext)))));
    texts.extend([1, 4_097, 20_000, 65_536].map(|size| ("envelope", STANDARD.encode(envelope(&mut noise, size)))));
    for round in 0..300 {
        let (bytes, version) = (noise.bytes(40 + round * 3), noise.below(20) + 1);
        let ciphertext = STANDARD.encode(&bytes);
        texts.extend([
            ("transit ciphertext", format!("transit:transit/{}#vault:v{version}:{ciphertext}", noise.text(LOWER, 9))),
            ("ciphertext in base64url", URL_SAFE_NO_PAD.encode(&bytes)),
            ("ciphertext in base64", STANDARD.encode(&bytes)),
            ("kv2 path", format!("kv2:secret/{}", path(&mut noise))),
            ("logical path", path(&mut noise)),
            ("namespace", format!("{}/", path(&mut noise))),
            ("ARN", arn(&mut noise)),
            ("AAD", aad(&mut noise)),
            ("SPIFFE ID", spiffe_id(&mut noise)),
            ("UUID", uuid(&mut noise)),
            ("SHA-1", noise.text(HEX, 40)),
            ("SHA-256", noise.text(HEX, 64)),
            ("SHA-256 in base64", STANDARD.encode(noise.bytes(32))),
            ("hex", noise.text(HEX, 200 + round)),
            ("name", noise.text(LOWER, 1 + round % 63)),
            (
                "cluster",
                format!("outbound|{}||{}.shop.svc.cluster.local", 1 + noise.below(65_535), noise.text(LOWER, 12)),
            ),
            ("upstream", format!("{}.example.com:{}", noise.text(LOWER, 12), 1 + noise.below(65_535))),
        ]);
    }
    texts.extend([60_000, 95_000].map(|size| ("ciphertext in base64", STANDARD.encode(noise.bytes(size)))));
    texts.extend(NOTES.map(|note| ("note", note.to_owned())));
    texts.extend(lucky(&mut Noise::of("lucky")));
    texts
}

/// Whole bodies, whose fields are also judged together.
pub(super) fn bodies() -> Vec<Value> {
    let mut noise = Noise::of("bodies");
    let bodies = (0..150).flat_map(|round| {
        let blob = STANDARD.encode(kms_blob(&mut noise, 1 + round * 17 % 4_000));
        vec![
            json!({
                "logical_path": path(&mut noise), "key_id": arn(&mut noise), "ciphertext_ref": blob,
                "aad": aad(&mut noise), "provider": "kms_envelope", "enabled": true,
            }),
            json!({
                "logical_path": path(&mut noise), "key_id": "team-a", "aad": aad(&mut noise), "provider": "vault_delegate",
                "ciphertext_ref": format!("transit:transit/k#vault:v1:{}", STANDARD.encode(noise.bytes(60 + round))),
            }),
            json!({"provider": "kms_envelope", "kms_key_arn": arn(&mut noise), "notes": NOTES[round % NOTES.len()]}),
            json!({
                "name": "payments-api", "bouncer": "payments-east", "cluster": "outbound|443||api.example.com",
                "upstream": "payments.internal:8443", "protocol": "mtls", "logical_path": path(&mut noise),
                "callers": (0..round % 12).map(|_| spiffe_id(&mut noise)).collect::<Vec<_>>(), "enabled": true,
            }),
            json!({"name": format!("east-{round}"), "spiffe_id": spiffe_id(&mut noise)}),
        ]
    });
    bodies.collect()
}
