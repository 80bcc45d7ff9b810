//! Credentials that no shape describes: keys in DER and PEM, key stores, tokens with a structure. Keys are new in each
//! run; what is encrypted, or only carried, is noise in the right frame.

use super::everyday::{inner_key, pem};
use super::noise::Noise;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{KeyPair, SignatureAlgorithm};
use serde_json::json;

/// What the corpus means by `made = "…"`.
pub(super) fn make(what: &str) -> Vec<u8> {
    binary(what).unwrap_or_else(|| textual(what).into_bytes())
}

fn pkcs8(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
    KeyPair::generate_for(algorithm).unwrap().serialize_der()
}

/// DER of one tag around `parts`.
pub(super) fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = match u16::try_from(body.len()).unwrap() {
        short @ 0..=0x7f => vec![short.to_be_bytes()[1]],
        middle @ 0x80..=0xff => vec![0x81, middle.to_be_bytes()[1]],
        long => [&[0x82], &long.to_be_bytes()[..]].concat(),
    };
    [&[tag], &length[..], &body].concat()
}

const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const PBES2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";

fn encrypted_pkcs8() -> Vec<u8> {
    let mut noise = Noise::of("encrypted PKCS#8");
    let parameters = der(0x30, &[&noise.bytes(70)]);
    der(0x30, &[&der(0x30, &[PBES2, &parameters]), &der(0x04, &[&noise.bytes(1_232)])])
}

fn pkcs12() -> Vec<u8> {
    let content = der(0xa0, &[&der(0x04, &[&Noise::of("PKCS#12").bytes(2_400)])]);
    der(0x30, &[b"\x02\x01\x03", &der(0x30, &[DATA, &content])])
}

fn binary(what: &str) -> Option<Vec<u8>> {
    let made = match what {
        "der-pkcs8-rsa" => pkcs8(&rcgen::PKCS_RSA_SHA256),
        "der-pkcs8-ec-p256" => pkcs8(&rcgen::PKCS_ECDSA_P256_SHA256),
        "der-pkcs8-ec-p384" => pkcs8(&rcgen::PKCS_ECDSA_P384_SHA384),
        "der-pkcs8-ed25519" => pkcs8(&rcgen::PKCS_ED25519),
        "der-pkcs8-encrypted" => encrypted_pkcs8(),
        "der-pkcs1" => inner_key(&pkcs8(&rcgen::PKCS_RSA_SHA256)),
        "der-sec1-p256" => inner_key(&pkcs8(&rcgen::PKCS_ECDSA_P256_SHA256)),
        "der-sec1-p384" => inner_key(&pkcs8(&rcgen::PKCS_ECDSA_P384_SHA384)),
        "pkcs12" => pkcs12(),
        "pkcs12-ber" => {
            [b"\x30\x80\x02\x01\x03\x30\x80", DATA, b"\xa0\x80\x24\x80", &Noise::of(what).bytes(900)].concat()
        }
        "openssh-bare" => openssh(),
        "jks" => {
            [&b"\xfe\xed\xfe\xed\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\x08payments"[..], &Noise::of(what).bytes(900)].concat()
        }
        _ => return None,
    };
    Some(made)
}

fn openssh() -> Vec<u8> {
    let mut noise = Noise::of("OpenSSH");
    [b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01\0\0\0\x33", &noise.bytes(200)[..]].concat()
}

fn part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn jwt(header: &str, claims: &str) -> String {
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(Noise::of(claims).bytes(32)))
}

fn textual(what: &str) -> String {
    let noise = |length| Noise::of(what).bytes(length);
    let number = |length| URL_SAFE_NO_PAD.encode(noise(length));
    let rsa = || pkcs8(&rcgen::PKCS_RSA_SHA256);
    match what {
        "pem-pkcs8-rsa" => pem("PRIVATE KEY", &rsa()),
        "pem-pkcs8-ec" => pem("PRIVATE KEY", &pkcs8(&rcgen::PKCS_ECDSA_P256_SHA256)),
        "pem-pkcs8-ed25519" => pem("PRIVATE KEY", &pkcs8(&rcgen::PKCS_ED25519)),
        "pem-pkcs8-encrypted" => pem("ENCRYPTED PRIVATE KEY", &encrypted_pkcs8()),
        "pem-pkcs1" => pem("RSA PRIVATE KEY", &inner_key(&rsa())),
        "pem-pkcs1-encrypted" => {
            let header = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0A1B2C3D\n\n";
            pem("RSA PRIVATE KEY", &noise(1_200)).replace("-----BEGIN RSA PRIVATE KEY-----\n", header)
        }
        "pem-sec1" => pem("EC PRIVATE KEY", &inner_key(&pkcs8(&rcgen::PKCS_ECDSA_P256_SHA256))),
        "pem-dsa" => pem("DSA PRIVATE KEY", &noise(448)),
        "pem-any" => pem("ANY PRIVATE KEY", &noise(448)),
        "pem-with-chain" => {
            let key = KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap().self_signed(&key);
            certificate.unwrap().pem() + &key.serialize_pem()
        }
        "pem-body" => pem("", &rsa()).lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join("\n"),
        "openssh-pem" => pem("OPENSSH PRIVATE KEY", &openssh()),
        "pgp" => pem("PGP PRIVATE KEY BLOCK", &noise(900)).replacen('\n', "\n\n", 1),
        "putty-2" | "putty-3" => format!(
            "PuTTY-User-Key-File-{}: ssh-ed25519\nEncryption: none\nComment: a\nPublic-Lines: 1\n{}\nPrivate-Lines: 1\n{}\n",
            &what[6..],
            STANDARD.encode(noise(48)),
            STANDARD.encode(noise(36)),
        ),
        "jwt" => jwt(r#"{"alg":"RS256","typ":"JWT"}"#, r#"{"sub":"payments","exp":2000000000}"#),
        "jwt-service-account" => jwt(
            r#"{"alg":"RS256","kid":"a"}"#,
            r#"{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:shop:cart"}"#,
        ),
        "jwt-unsigned" => format!("{}.{}.", part(r#"{"alg":"none"}"#), part(r#"{"sub":"payments"}"#)),
        "jwe" => format!(
            "{}.{}.{}.{}.{}",
            part(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#),
            number(256),
            number(12),
            number(90),
            number(16)
        ),
        "jwk-ec" => json!({"kty": "EC", "crv": "P-256", "x": number(32), "y": number(32), "d": number(32)}).to_string(),
        "jwk-rsa" => {
            json!({"kty": "RSA", "n": number(256), "e": "AQAB", "d": number(256), "p": number(128)}).to_string()
        }
        "jwk-oct" => json!({"kty": "oct", "alg": "HS256", "k": number(32)}).to_string(),
        "gcp-service-account" => json!({
            "type": "service_account", "project_id": "payments", "private_key_id": "0a1b2c3d4e5f",
            "private_key": pem("PRIVATE KEY", &rsa()), "client_email": "bouncer@payments.iam.gserviceaccount.com",
        })
        .to_string(),
        "docker-config" => {
            let auth = STANDARD.encode("deploy:S3cretPassw0rd");
            json!({"auths": {"registry.example.org": {"auth": auth}}}).to_string()
        }
        "kubeconfig" => {
            let key = STANDARD.encode(pem("EC PRIVATE KEY", &inner_key(&pkcs8(&rcgen::PKCS_ECDSA_P256_SHA256))));
            format!("users:\n- name: admin\n  user:\n    client-key-data: {key}\n")
        }
        "basic" => format!("Authorization: Basic {}", STANDARD.encode("deploy:S3cretPassw0rd")),
        _ => panic!("the corpus makes no {what}"),
    }
}
