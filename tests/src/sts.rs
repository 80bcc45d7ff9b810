//! Whom STS trusts: what moto, which takes any web identity, leaves out. The KMS proxy asks here before it hands an
//! `AssumeRoleWithWebIdentity` on.
//!
//! As the API reference of that call says: `InvalidIdentityToken` for a token that is none of the provider's or for
//! another audience, `ExpiredTokenException` for one that has ended, `AccessDenied` where the role's trust policy does not
//! name the subject.

use crate::{Fault, Result};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The audience that AWS's own examples use, and the harness's resolvers ask for.
pub const AUDIENCE: &str = "sts.amazonaws.com";

/// An identity provider, and the role's trust policy.
pub struct Trust {
    /// Uncompressed points by key id.
    keys: HashMap<String, Vec<u8>>,
    audience: String,
    subject: String,
}

/// Why a token buys no credentials: status, code, message.
pub type Refusal = (u16, &'static str, &'static str);

const INVALID: fn(&'static str) -> Refusal = |message| (400, "InvalidIdentityToken", message);

impl Trust {
    /// Trusts the P-256 keys of a JWK set, this audience, and one subject.
    ///
    /// # Errors
    /// If the set holds no such key.
    pub fn new(jwks: &str, audience: &str, subject: &str) -> Result<Self> {
        Ok(Self { keys: points(jwks)?, audience: audience.to_owned(), subject: subject.to_owned() })
    }

    /// Whether the call's token buys credentials.
    ///
    /// # Errors
    /// [`Refusal`], as STS would say it.
    pub fn check(&self, form: &[u8]) -> std::result::Result<(), Refusal> {
        let text = String::from_utf8_lossy(form);
        let token = text.split('&').find_map(|pair| pair.strip_prefix("WebIdentityToken="));
        let token = token.ok_or(INVALID("no token"))?;
        let (signed, signature) = token.rsplit_once('.').ok_or(INVALID("not a JWT"))?;
        let (header, claims) = signed.split_once('.').ok_or(INVALID("not a JWT"))?;
        let json = |part: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok() };
        let (header, claims) = json(header).zip(json(claims)).ok_or(INVALID("not a JWT"))?;
        let key = header["kid"].as_str().filter(|_| header["alg"] == "ES256").and_then(|kid| self.keys.get(kid));
        let key = key.ok_or(INVALID("no verification key"))?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| INVALID("not a JWT"))?;
        let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(signed.as_bytes(), &signature);
        verified.map_err(|_| INVALID("the signature is wrong"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if claims["exp"].as_u64().is_none_or(|end| end <= now) {
            return Err((400, "ExpiredTokenException", "the token has ended"));
        }
        let audiences = claims["aud"].as_array().cloned().unwrap_or_else(|| vec![claims["aud"].clone()]);
        if !audiences.iter().any(|audience| *audience == *self.audience) {
            return Err(INVALID("incorrect token audience"));
        }
        if claims["sub"] != *self.subject {
            return Err((403, "AccessDenied", "not authorized to perform sts:AssumeRoleWithWebIdentity"));
        }
        Ok(())
    }
}

/// The P-256 keys of a JWK set: uncompressed points by key id.
///
/// # Errors
/// If it holds none.
pub fn points(jwks: &str) -> Result<HashMap<String, Vec<u8>>> {
    let set: Value = serde_json::from_str(jwks)?;
    let point = |key: &Value| {
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?).ok();
        (key["crv"] == "P-256" && key["kid"].is_string()).then_some(())?;
        Some([vec![4], coordinate("x")?, coordinate("y")?].concat())
    };
    let all = set["keys"].as_array().into_iter().flatten();
    let keys: HashMap<_, _> = all.filter_map(|key| Some((key["kid"].as_str()?.to_owned(), point(key)?))).collect();
    if keys.is_empty() { Err(Fault::new("the JWK set holds no P-256 key")) } else { Ok(keys) }
}

/// Such a key as a PEM public key (RFC 5480).
#[must_use]
pub fn pem(point: &[u8]) -> String {
    // SubjectPublicKeyInfo of id-ecPublicKey with prime256v1, up to the point.
    const HEAD: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let body = STANDARD.encode([&HEAD[..], point].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}
