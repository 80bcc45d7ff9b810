//! What a structural field can hold of the corpus: what its form excludes can never be stored there, and what its
//! alphabet cannot exclude is what the detector is for.

use super::formats::{self, Credential};
use super::legitimate;
use bouncer_control_plane::plaintext;
use bouncer_custody::{
    BouncerName, CallerPattern, CiphertextRef, ClusterName, EncryptionContext, Environment, KeyId, LogicalPath,
    Provider, ResourceName, SpiffeId, Upstream, VaultNamespace,
};
use proptest::prelude::*;

/// A field, whether a text parses as it, and how a credential could be put into it: alone, and within its form.
struct Field {
    name: &'static str,
    parses: fn(&str) -> bool,
    around: &'static [(&'static str, &'static str)],
}

const ARN: &str = "arn:aws:kms:us-east-1:123456789012:key/";

const FIELDS: [Field; 14] = [
    Field {
        name: "key_id of KMS",
        parses: |text| KeyId::parse(Provider::KmsEnvelope, text).is_ok(),
        around: &[
            ("", ""),
            (ARN, ""),
            ("arn:aws:kms:", ":123456789012:key/abc"),
            ("arn:aws:kms:us-east-1:", ":key/abc"),
            ("arn:aws-", ":kms:us-east-1:123456789012:key/abc"),
        ],
    },
    Field {
        name: "namespace",
        parses: |text| text.parse::<VaultNamespace>().is_ok(),
        around: &[("", ""), ("a/", "/b")],
    },
    Field {
        name: "logical_path",
        parses: |text| text.parse::<LogicalPath>().is_ok(),
        around: &[("", ""), ("a/", "/b")],
    },
    Field {
        name: "ciphertext_ref of Vault",
        parses: |text| text.parse::<CiphertextRef>().is_ok_and(|reference| reference.vault().is_ok()),
        around: &[("", ""), ("kv2:a/", ""), ("kv1:", "/b"), ("pki:a/", ""), ("transit:a/k#vault:v1:", "")],
    },
    Field {
        name: "ciphertext_ref of KMS",
        parses: |text| text.parse::<CiphertextRef>().is_ok_and(|reference| reference.kms().is_ok()),
        around: &[("", "")],
    },
    Field {
        name: "aad",
        parses: |text| text.parse::<EncryptionContext>().is_ok(),
        around: &[("", ""), ("env=", ""), ("a=b,c=", "")],
    },
    Field { name: "bouncer", parses: |text| text.parse::<BouncerName>().is_ok(), around: &[("", ""), ("a-", "")] },
    Field { name: "resource", parses: |text| text.parse::<ResourceName>().is_ok(), around: &[("", "")] },
    Field { name: "environment", parses: |text| text.parse::<Environment>().is_ok(), around: &[("", "")] },
    Field {
        name: "cluster",
        parses: |text| text.parse::<ClusterName>().is_ok(),
        around: &[("", ""), ("outbound|443||", "")],
    },
    Field {
        name: "upstream",
        parses: |text| text.parse::<Upstream>().is_ok(),
        around: &[("", ""), ("", ":443"), ("", ".a.example:443")],
    },
    Field {
        name: "spiffe_id",
        parses: |text| text.parse::<SpiffeId>().is_ok(),
        around: &[("", ""), ("spiffe://a/", ""), ("spiffe://", "/a")],
    },
    Field {
        name: "caller",
        parses: |text| text.parse::<CallerPattern>().is_ok(),
        around: &[("", ""), ("spiffe://a/", "/*")],
    },
    Field { name: "provider", parses: |text| text.parse::<Provider>().is_ok(), around: &[("", "")] },
];

/// Without the name beside it. Binary ones are written in base64 where a text is wanted.
fn alone(credential: &Credential) -> String {
    String::from_utf8(credential.alone.clone()).unwrap_or_else(|_| credential.text())
}

fn fits(field: &Field, credential: &Credential) -> Vec<String> {
    let alone = alone(credential);
    let texts = field.around.iter().map(|(before, after)| format!("{before}{alone}{after}"));
    texts.filter(|text| (field.parses)(text)).collect()
}

/// Whether the detector knows the credential by a form of its own.
fn has_a_form(credential: &Credential) -> bool {
    plaintext::find(&alone(credential)).is_some()
}

#[test]
fn what_fits_into_a_structural_field_is_seen_there() {
    let credentials = formats::credentials();
    for field in &FIELDS {
        let mut counts = (0, 0);
        for credential in &credentials {
            let fitting = fits(field, credential);
            let missed: Vec<_> = fitting.iter().filter(|text| plaintext::find(text).is_none()).collect();
            assert!(missed.is_empty() || !has_a_form(credential), "{} in {}", credential.name, field.name);
            counts.0 += usize::from(!fitting.is_empty());
            counts.1 += usize::from(!missed.is_empty());
        }
        let (fit, missed) = counts;
        println!(
            "{:26}{fit:4} of {} fit; {missed} of them have no form and are not seen",
            field.name,
            credentials.len()
        );
    }
    // The control: the check would see one that passes.
    assert!(credentials.iter().filter(|credential| has_a_form(credential)).count() > 180);
}

#[test]
fn an_arn_a_provider_and_an_upstream_hold_none_at_all() {
    let [arn, upstream, provider] =
        ["key_id of KMS", "upstream", "provider"].map(|name| FIELDS.iter().find(|field| field.name == name).unwrap());
    for credential in formats::credentials() {
        assert_eq!(fits(provider, &credential), Vec::<String>::new(), "{}", credential.name);
        // Identifiers that are keys by their name only look as a key's own id does; no form can tell.
        let is_an_id = std::str::from_utf8(&credential.alone).is_ok_and(|text| text.parse::<uuid::Uuid>().is_ok());
        assert!(fits(arn, &credential).is_empty() || is_an_id, "{} in an ARN", credential.name);
        for text in fits(upstream, &credential) {
            assert!(!has_a_form(&credential) || plaintext::find(&text).is_some(), "{} in an upstream", credential.name);
        }
    }
}

#[test]
fn the_control_every_field_parses_what_belongs_there() {
    let belongs = [
        ("key_id of KMS", "ARN"),
        ("namespace", "namespace"),
        ("logical_path", "logical path"),
        ("ciphertext_ref of Vault", "kv2 path"),
        ("ciphertext_ref of Vault", "transit ciphertext"),
        ("ciphertext_ref of KMS", "KMS blob"),
        ("ciphertext_ref of KMS", "envelope"),
        ("aad", "AAD"),
        ("bouncer", "name"),
        ("cluster", "cluster"),
        ("upstream", "upstream"),
        ("spiffe_id", "SPIFFE ID"),
        ("caller", "SPIFFE ID"),
    ];
    let texts = legitimate::texts();
    for (field, kind) in belongs {
        let field = FIELDS.iter().find(|candidate| candidate.name == field).unwrap();
        let mut of_kind = texts.iter().filter(|(what, _)| *what == kind).peekable();
        assert!(of_kind.peek().is_some(), "{kind}");
        for (_, text) in of_kind {
            assert!((field.parses)(text), "{kind} as {}: {text}", field.name);
        }
    }
}

proptest! {
    /// Whatever stands in the place of a key's id: what parses is a UUID, a multi-region id, or too short for a secret.
    #[test]
    fn an_arn_has_no_room_for_a_secret(id in "[A-Za-z0-9-]{1,64}", region in "[a-z0-9-]{1,40}") {
        let text = format!("arn:aws:kms:{region}:123456789012:key/{id}");
        if KeyId::parse(Provider::KmsEnvelope, &text).is_ok() {
            let digits = id.strip_prefix("mrk-").unwrap_or(&id).replace('-', "");
            let is_of_kms = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            prop_assert!(id.len() <= 12 || is_of_kms, "{}", id);
            prop_assert!(region.len() <= 24 && region.bytes().filter(u8::is_ascii_digit).count() <= 2, "{}", region);
        }
    }

    /// No structural field takes a line break, a space, a quote or what is not ASCII: no PEM, no JSON, no sentence.
    #[test]
    fn no_structural_field_holds_a_text(before in "[a-z]{1,9}", after in "[a-z]{1,9}", between in "[ \n\r\t\"'{}\u{e4}\u{0}]") {
        for field in FIELDS.iter().filter(|field| field.name != "cluster") {
            for (left, right) in field.around {
                prop_assert!(!(field.parses)(&format!("{left}{before}{between}{after}{right}")) || "{}".contains(&between), "{}", field.name);
            }
        }
    }
}
