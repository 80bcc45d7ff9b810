//! Who can unwrap: the provider, and the key or namespace in the customer's own hands.

use crate::malformed::{Malformed, Problem, bounded, checked_text};
use std::fmt;
use std::str::FromStr;

/// How a credential is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// A ciphertext blob under the customer's AWS KMS key.
    KmsEnvelope,
    /// A path in the customer's HashiCorp Vault or OpenBao.
    VaultDelegate,
}

impl Provider {
    /// As it is written in the API and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KmsEnvelope => "kms_envelope",
            Self::VaultDelegate => "vault_delegate",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "kms_envelope" => Ok(Self::KmsEnvelope),
            "vault_delegate" => Ok(Self::VaultDelegate),
            _ => Err(Problem::Form("\"kms_envelope\" or \"vault_delegate\"").of("provider")),
        }
    }
}

const ARN: &str = "KMS key ARN";
const ARN_FORM: &str = "arn:PARTITION:kms:REGION:ACCOUNT:key/ID with the ID that KMS gave the key, a UUID or mrk- and 32 \
                        hex digits (an alias is not accepted, since its target can be changed)";

/// `aws`, or `aws-` and a few letters and dashes.
pub(crate) fn is_partition(text: &str) -> bool {
    let more = text.strip_prefix("aws-").unwrap_or("a");
    text.starts_with("aws") && (text.len() == 3 || text.len() > 4) && text.len() <= 16 && words(more)
}

/// Whether it is the name of a region: letters and dashes, then a dash and a number, such as `ca-central-1`.
#[must_use]
pub fn is_region(text: &str) -> bool {
    let number = |text: &str| matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 24 && text.rsplit_once('-').is_some_and(|(place, last)| words(place) && number(last))
}

fn words(text: &str) -> bool {
    text.split('-').all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()))
}

/// As KMS makes them: a UUID, or `mrk-` and 32 hex digits for a key of several regions. A shorter one of lower-case
/// letters, digits and dashes is a stand-in, as documents have it: no credential is so short.
fn is_key_id(text: &str) -> bool {
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let uuid = text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && hex(&text.replace('-', ""), 32);
    let stand_in = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    uuid || text.strip_prefix("mrk-").is_some_and(|id| hex(id, 32))
        || ((1..=12).contains(&text.len()) && text.bytes().all(stand_in))
}

/// Splits a key ARN into partition, region, account and key id.
fn arn_parts(text: &str) -> Option<(&str, &str, &str, &str)> {
    let mut parts = text.split(':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || arn != "arn" || service != "kms" {
        return None;
    }
    let id = resource.strip_prefix("key/")?;
    let account_ok = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let whole = is_partition(partition) && is_region(region) && account_ok && is_key_id(id);
    whole.then_some((partition, region, account, id))
}

checked_text! {
    /// The full ARN of a customer's KMS key, `arn:aws:kms:REGION:ACCOUNT:key/ID`. Never an alias. Each part has its own
    /// form, so that nothing else fits in.
    KmsKeyArn, |text| {
        bounded(text, ARN, 200)?;
        arn_parts(text).map(|_| ()).ok_or(Problem::Form(ARN_FORM).of(ARN))
    }
}

impl KmsKeyArn {
    /// The region that the key lives in.
    #[must_use]
    pub fn region(&self) -> &str {
        arn_parts(&self.0).map_or("", |(_, region, _, _)| region)
    }

    /// The account that owns the key, 12 digits.
    #[must_use]
    pub fn account(&self) -> &str {
        arn_parts(&self.0).map_or("", |(_, _, account, _)| account)
    }
}

checked_text! {
    /// A Vault namespace, such as `team-a/payments`; `root` for the root namespace. Same segments as a logical path.
    VaultNamespace, |text| {
        text.strip_suffix('/').unwrap_or(text).parse::<crate::LogicalPath>().map(|_| ())
            .map_err(|error| error.problem.of("Vault namespace"))
    }
}

impl VaultNamespace {
    /// As Vault wants it in its header, without a slash at the end; `None` for the root namespace, which has no name.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        let path = self.0.strip_suffix('/').unwrap_or(&self.0);
        (path != "root").then_some(path)
    }
}

/// What `key_id` holds, by provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyId {
    /// For [`Provider::KmsEnvelope`].
    Kms(KmsKeyArn),
    /// For [`Provider::VaultDelegate`].
    Vault(VaultNamespace),
}

impl KeyId {
    /// Parses `key_id` as its provider means it.
    ///
    /// # Errors
    /// [`Malformed`], naming the form that the provider wants.
    pub fn parse(provider: Provider, text: &str) -> Result<Self, Malformed> {
        match provider {
            Provider::KmsEnvelope => text.parse().map(Self::Kms),
            Provider::VaultDelegate => text.parse().map(Self::Vault),
        }
    }

    /// The text as it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Kms(arn) => arn.as_str(),
            Self::Vault(namespace) => namespace.as_str(),
        }
    }

    /// The provider that this key belongs to.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self {
            Self::Kms(_) => Provider::KmsEnvelope,
            Self::Vault(_) => Provider::VaultDelegate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_key_arns_are_keys() {
        let arn: KmsKeyArn = "arn:aws:kms:ca-central-1:123456789012:key/abc-123".parse().unwrap();
        assert_eq!((arn.region(), arn.account()), ("ca-central-1", "123456789012"));
        for good in [
            "arn:aws:kms:us-east-1:123456789012:key/cd613e30-d8f1-4adf-91b7-584a2265b1f5",
            "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab",
            "arn:aws-iso-b:kms:us-isob-east-1:123456789012:key/abc",
        ] {
            assert!(good.parse::<KmsKeyArn>().is_ok(), "{good}");
        }
        for bad in [
            "abc-123",
            "alias/payments",
            "arn:aws:kms:ca-central-1:123456789012:alias/payments",
            "arn:aws:kms:ca-central-1:12345:key/abc",
            "arn:aws:s3:ca-central-1:123456789012:key/abc",
            "arn:evil:kms:ca-central-1:123456789012:key/abc",
            "arn:aws:kms:ca-central-1:123456789012:key/abc:x",
            "arn:aws:kms:ca-central-1:123456789012:key/a b",
            "arn:aws:kms:ca-central-1:123456789012:key/Abc-123",
            "arn:aws:kms:ca-central-1:123456789012:key/a-name-of-our-own",
            "arn:aws:kms:ca-central-1:123456789012:key/cd613e30-d8f1-4adf-91b7-584a2265b1f5a",
            "arn:aws:kms:ca-central-1:123456789012:key/cd613e30-d8f1-4adf-91b7-584a2265b1fg",
            "arn:aws:kms:ca-central-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890a",
            "arn:aws:kms:central:123456789012:key/abc-123",
            "arn:aws:kms:s3cret-1:123456789012:key/abc-123",
            "arn:aws-:kms:ca-central-1:123456789012:key/abc-123",
            "arn:awsx:kms:ca-central-1:123456789012:key/abc-123",
        ] {
            assert!(bad.parse::<KmsKeyArn>().is_err(), "{bad}");
        }
    }
}
