//! Plain names: bouncers, clusters, protected resources, environments.

use crate::malformed::{Malformed, Problem, bounded, checked_text};

fn label(text: &str, what: &'static str) -> Result<(), Malformed> {
    bounded(text, what, 63)?;
    let allowed = "lower-case letters, digits and inner '-', '_' or '.'";
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.chars().all(|c| inner(c) || matches!(c, '-' | '_' | '.')) {
        return Err(Problem::Character(allowed).of(what));
    }
    if !text.starts_with(inner) || !text.ends_with(inner) {
        return Err(Problem::Form("a name that begins and ends with a letter or digit").of(what));
    }
    Ok(())
}

checked_text! {
    /// A bouncer's name: one Envoy with its resolver, or a set of them that may use the same credentials.
    /// At most 63 bytes of lower-case letters, digits and inner `-`, `_`, `.`.
    BouncerName, |text| label(text, "bouncer name")
}

checked_text! {
    /// A protected resource's name. Same form as a [`BouncerName`].
    ResourceName, |text| label(text, "protected resource name")
}

checked_text! {
    /// The environment a resolver serves, compared with the AAD's `env=`. Same form as a [`BouncerName`].
    Environment, |text| label(text, "environment")
}

checked_text! {
    /// Envoy's name of a cluster: at most 255 bytes of visible ASCII. Istio's `outbound|443||host` is one.
    ClusterName, |text| {
        bounded(text, "cluster name", 255)?;
        if text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(())
        } else {
            Err(Problem::Character("visible ASCII without spaces").of("cluster name"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_form() {
        for good in ["payments-east", "a", "b.2_c"] {
            assert!(good.parse::<BouncerName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a b", "a,b", "a=b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<BouncerName>().is_err(), "{bad}");
        }
        assert!("outbound|443||api.example.com".parse::<ClusterName>().is_ok());
        assert!("two words".parse::<ClusterName>().is_err());
    }
}
