//! Who a bouncer is on the Policy Bridge: a SPIFFE ID, or a cloud role.

use crate::key::is_partition;
use crate::malformed::{Malformed, Problem, bounded, checked_text};
use crate::spiffe_id::SpiffeId;
use std::fmt;
use std::str::FromStr;

const ROLE: &str = "IAM role ARN";
const ROLE_FORM: &str = "arn:PARTITION:iam::ACCOUNT:role/NAME with an account of 12 digits, and without the role's path: \
                         STS does not say it, and a name is one role in an account";
/// IAM's own limit.
const NAME: usize = 64;

/// What IAM takes in the name of a role, and STS in that of a session.
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    (1..=NAME).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Partition, account and resource of an ARN of a service without regions.
fn arn_parts<'a>(text: &'a str, service: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mut parts = text.split(':');
    let (arn, partition, named, region) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (account, resource) = (parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && arn == "arn" && named == service && region.is_empty();
    (whole && is_partition(partition) && is_account(account)).then_some((partition, account, resource))
}

checked_text! {
    /// The ARN of an IAM role, `arn:aws:iam::ACCOUNT:role/NAME`, without its path.
    RoleArn, |text| {
        bounded(text, ROLE, 128)?;
        let name = arn_parts(text, "iam").and_then(|(_, _, resource)| resource.strip_prefix("role/"));
        name.filter(|name| is_name(name)).map(|_| ()).ok_or(Problem::Form(ROLE_FORM).of(ROLE))
    }
}

impl RoleArn {
    /// The role behind a session, as STS names it: `arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION`. `None` for anything
    /// else: a user, an account's root, a federated user.
    #[must_use]
    pub fn of_session(arn: &str) -> Option<Self> {
        let (partition, account, resource) = arn_parts(arn, "sts")?;
        let (name, session) = resource.strip_prefix("assumed-role/")?.split_once('/')?;
        if !is_name(session) {
            return None;
        }
        format!("arn:{partition}:iam::{account}:role/{name}").parse().ok()
    }

    /// The account that it belongs to, 12 digits.
    #[must_use]
    pub fn account(&self) -> &str {
        arn_parts(&self.0, "iam").map_or("", |(_, account, _)| account)
    }
}

/// Who a bouncer is on the Policy Bridge. One or the other, told apart by how it begins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BouncerIdentity {
    /// By its X.509-SVID.
    Spiffe(SpiffeId),
    /// By an IAM role that STS vouches for.
    IamRole(RoleArn),
}

impl BouncerIdentity {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Spiffe(id) => id.as_str(),
            Self::IamRole(role) => role.as_str(),
        }
    }

    /// What it is, in a sentence.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Spiffe(_) => "SPIFFE ID",
            Self::IamRole(_) => "IAM role",
        }
    }

    /// The SPIFFE ID, if it is one.
    #[must_use]
    pub const fn spiffe_id(&self) -> Option<&SpiffeId> {
        match self {
            Self::Spiffe(id) => Some(id),
            Self::IamRole(_) => None,
        }
    }

    /// The role, if it is one.
    #[must_use]
    pub const fn iam_role(&self) -> Option<&RoleArn> {
        match self {
            Self::Spiffe(_) => None,
            Self::IamRole(role) => Some(role),
        }
    }
}

impl fmt::Display for BouncerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BouncerIdentity {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.starts_with("arn:") { text.parse().map(Self::IamRole) } else { text.parse().map(Self::Spiffe) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::123456789012:role/bouncer-payments-east";

    #[test]
    fn a_role_is_named_by_account_and_name() {
        let role: RoleArn = ROLE.parse().unwrap();
        assert_eq!((role.as_str(), role.account()), (ROLE, "123456789012"));
        for good in ["arn:aws-cn:iam::123456789012:role/a", "arn:aws-us-gov:iam::123456789012:role/A_+=,.@-z"] {
            assert!(good.parse::<RoleArn>().is_ok(), "{good}");
        }
        let long = format!("arn:aws:iam::123456789012:role/{}", "a".repeat(65));
        for bad in [
            "",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/team/bouncer",
            "arn:aws:iam::12345678901:role/a",
            "arn:aws:iam::1234567890123:role/a",
            "arn:aws:iam::12345678901x:role/a",
            "arn:aws:iam:eu-west-1:123456789012:role/a",
            "arn:aws:iam::123456789012:user/a",
            "arn:aws:sts::123456789012:role/a",
            "arn:aws:iam::123456789012:role/a b",
            "arn:aws:iam::123456789012:role/*",
            "arn:aws:iam::123456789012:role/a:b",
            "arn:AWS:iam::123456789012:role/a",
            " arn:aws:iam::123456789012:role/a",
            "arn:aws:iam::123456789012:role/ä",
            &long,
        ] {
            assert!(bad.parse::<RoleArn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_session_leads_to_its_role_and_nothing_else_does() {
        let session = "arn:aws:sts::123456789012:assumed-role/bouncer-payments-east/i-0123456789abcdef0";
        assert_eq!(RoleArn::of_session(session).unwrap().as_str(), ROLE);
        for other in [
            ROLE,
            "arn:aws:iam::123456789012:user/bouncer-payments-east",
            "arn:aws:iam::123456789012:root",
            "arn:aws:sts::123456789012:federated-user/bouncer-payments-east",
            "arn:aws:sts::123456789012:assumed-role/bouncer-payments-east",
            "arn:aws:sts::123456789012:assumed-role/bouncer-payments-east/",
            "arn:aws:sts::123456789012:assumed-role/team/bouncer-payments-east/session",
            "arn:aws:sts::123456789012:assumed-role//session",
            "arn:aws:iam::123456789012:assumed-role/a/session",
            "arn:aws:sts:eu-west-1:123456789012:assumed-role/a/session",
        ] {
            assert_eq!(RoleArn::of_session(other), None, "{other}");
        }
    }

    #[test]
    fn an_identity_is_a_spiffe_id_or_a_role() {
        assert!(matches!(ROLE.parse(), Ok(BouncerIdentity::IamRole(_))));
        assert!(matches!("spiffe://example.org/b".parse(), Ok(BouncerIdentity::Spiffe(_))));
        assert!("arn:aws:iam::1:role/b".parse::<BouncerIdentity>().is_err());
        assert!("http://example.org/b".parse::<BouncerIdentity>().is_err());
    }
}
