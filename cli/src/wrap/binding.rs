//! The AAD as a binding: what in it could never match a stream is refused, what it leaves open is told.
//!
//! Called by `wrap` before anything is encrypted, since an encryption context can't be corrected afterwards.

use super::CredentialError;
use bouncer_custody::{
    BouncerName, CallerPattern, EncryptionContext, Environment, Generation, Reserved, UpstreamPattern,
};

/// Refuses reserved pairs that no stream could ever match.
///
/// # Errors
/// [`CredentialError::BadPair`], naming the key.
pub(crate) fn check(aad: &EncryptionContext) -> Result<(), CredentialError> {
    for key in [Reserved::Bouncer, Reserved::Upstream, Reserved::Caller, Reserved::Env, Reserved::Generation] {
        let Some(value) = aad.get(key) else { continue };
        let (fits, form) = match key {
            Reserved::Bouncer => (value.parse::<BouncerName>().is_ok(), "a bouncer's name"),
            Reserved::Upstream => (value.parse::<UpstreamPattern>().is_ok(), "host:port, or *.suffix"),
            Reserved::Caller => {
                (value.parse::<CallerPattern>().is_ok(), "a SPIFFE ID, or a prefix of whole path segments ending in /*")
            }
            Reserved::Env => (value.parse::<Environment>().is_ok(), "an environment's name"),
            Reserved::Generation => (generation(value), "a number from 1 up, without leading zeros"),
        };
        if !fits {
            return Err(CredentialError::BadPair { key: key.as_str(), form });
        }
    }
    Ok(())
}

fn generation(text: &str) -> bool {
    text.parse().ok().and_then(Generation::new).is_some_and(|generation| generation.to_string() == text)
}

/// Refuses a header without `upstream=`: whoever receives a token can use it elsewhere.
///
/// # Errors
/// [`CredentialError::HeaderWithoutUpstream`].
pub(crate) fn check_kind(aad: &EncryptionContext, is_header: bool) -> Result<(), CredentialError> {
    if is_header && aad.get(Reserved::Upstream).is_none() {
        return Err(CredentialError::HeaderWithoutUpstream);
    }
    Ok(())
}

/// What the AAD leaves to the resolver's rails, and what is probably mistyped.
pub(crate) fn warnings(aad: &EncryptionContext) -> Vec<String> {
    let mut warnings = Vec::new();
    let without = |key: Reserved| aad.get(key).is_none();
    for (key, rail) in [
        (Reserved::Bouncer, "its key is listed as `dedicated_keys` of the resolver's rails"),
        (Reserved::Upstream, "its cluster's rail lists `logical_paths`"),
        (Reserved::Caller, "its cluster's rail lists `callers`"),
    ] {
        if without(key) {
            let key = key.as_str();
            warnings.push(format!(
                "the AAD does not name {key}=: streams are denied with binding_incomplete unless {rail}"
            ));
        }
    }
    for (key, _) in aad.pairs() {
        let lower = key.to_ascii_lowercase();
        let reserved = ["bouncer", "upstream", "caller", "env", "generation"];
        if !reserved.contains(&key) && reserved.contains(&lower.as_str()) {
            warnings.push(format!("the AAD names {key}=, which binds nothing: the reserved key is {lower}="));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aad(text: &str) -> EncryptionContext {
        text.parse().unwrap()
    }

    #[test]
    fn what_could_never_match_is_refused() {
        assert!(check(&aad("env=production,bouncer=payments-east,team=a")).is_ok());
        assert!(check(&aad("upstream=*.example.com,caller=spiffe://example.org/ns/shop/*,generation=3")).is_ok());
        for bad in [
            "bouncer=Payments",
            "upstream=payments",
            "caller=cart",
            "env=-",
            "generation=03",
            "generation=0",
            "upstream=*",
        ] {
            assert!(matches!(check(&aad(bad)), Err(CredentialError::BadPair { .. })), "{bad}");
        }
    }

    #[test]
    fn what_is_left_open_is_told() {
        assert_eq!(warnings(&aad("env=production")).len(), 3);
        assert_eq!(warnings(&aad("env=production,bouncer=payments-east")).len(), 2);
        assert!(warnings(&aad("bouncer=a,upstream=b:1,caller=spiffe://c/*")).is_empty());
        assert!(warnings(&aad("bouncer=a,upstream=b:1,caller=spiffe://c/*,Env=x"))[0].contains("env="));
    }

    #[test]
    fn a_token_needs_a_destination() {
        assert!(check_kind(&aad("bouncer=a"), true).is_err());
        assert!(check_kind(&aad("bouncer=a"), false).is_ok());
        assert!(check_kind(&aad("upstream=a:1"), true).is_ok());
    }
}
