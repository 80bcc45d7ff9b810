//! What a file may say of each kind of thing: its fields, their order, and the rule for each.

use bouncer_custody::{
    BouncerName, CallerPattern, CiphertextRef, ClusterName, EncryptionContext, KeyId, LogicalPath, Provider,
    ResourceName, RoleArn, SpiffeId, Upstream,
};
use serde_json::Value;
use std::fmt::Display;
use std::str::FromStr;

/// Kinds of things, in the order in which they can be made: each needs those before it only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A feature flag.
    Flag,
    /// The cryptographic provider.
    Settings,
    /// A bouncer.
    Bouncer,
    /// A wrapped credential.
    Secret,
    /// A protected resource.
    Resource,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// Text of which a rule makes the form that the control plane keeps.
    Text(Rule),
    /// Several such texts, whose order means nothing.
    Texts(Rule),
    /// A truth; true unless given.
    Truth,
}

/// Makes the kept form of a text, or says which rule it breaks, without repeating it.
pub(super) type Rule = fn(&str) -> Result<String, String>;

/// A field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) is_needed: bool,
}

impl Field {
    /// Its name.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }
}

const fn needed(name: &'static str, form: Form) -> Field {
    Field { name, form, is_needed: true }
}

const fn optional(name: &'static str, form: Form) -> Field {
    Field { name, form, is_needed: false }
}

impl Kind {
    /// All, in their order.
    pub(crate) const ALL: [Self; 5] = [Self::Flag, Self::Settings, Self::Bouncer, Self::Secret, Self::Resource];

    /// The section of a file that holds them.
    pub(crate) const fn section(self) -> &'static str {
        match self {
            Self::Flag => "feature_flags",
            Self::Settings => "settings",
            Self::Bouncer => "bouncers",
            Self::Secret => "envelope_secrets",
            Self::Resource => "protected_resources",
        }
    }

    /// What one of them is called.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Settings => "settings",
            Self::Bouncer => "bouncer",
            Self::Secret => "credential",
            Self::Resource => "resource",
        }
    }

    /// Whether it is behind the flag: neither read nor changed while that is off.
    pub(crate) const fn is_guarded(self) -> bool {
        matches!(self, Self::Settings | Self::Secret)
    }

    /// The field that names one of them, and its rule.
    pub(super) const fn name(self) -> (&'static str, Rule) {
        match self {
            Self::Flag | Self::Settings => ("name", any),
            Self::Bouncer => ("name", text::<BouncerName>),
            Self::Secret => ("logical_path", text::<LogicalPath>),
            Self::Resource => ("name", text::<ResourceName>),
        }
    }

    /// The fields besides the name.
    pub(super) const fn fields(self) -> &'static [Field] {
        const FLAG: &[Field] = &[needed("enabled", Form::Truth)];
        const SETTINGS: &[Field] = &[
            needed("provider", Form::Text(text::<Provider>)),
            optional("kms_key_arn", Form::Text(any)),
            optional("vault_namespace", Form::Text(any)),
            optional("notes", Form::Text(any)),
        ];
        const BOUNCER: &[Field] = &[
            optional("spiffe_id", Form::Text(text::<SpiffeId>)),
            optional("iam_role_arn", Form::Text(text::<RoleArn>)),
        ];
        const SECRET: &[Field] = &[
            needed("provider", Form::Text(text::<Provider>)),
            needed("key_id", Form::Text(any)),
            needed("ciphertext_ref", Form::Text(text::<CiphertextRef>)),
            optional("aad", Form::Text(text::<EncryptionContext>)),
            optional("certificate_chain", Form::Text(chain)),
            optional("enabled", Form::Truth),
        ];
        const RESOURCE: &[Field] = &[
            needed("bouncer", Form::Text(text::<BouncerName>)),
            needed("cluster", Form::Text(text::<ClusterName>)),
            needed("upstream", Form::Text(text::<Upstream>)),
            needed("protocol", Form::Text(protocol)),
            needed("logical_path", Form::Text(text::<LogicalPath>)),
            needed("callers", Form::Texts(text::<CallerPattern>)),
            optional("enabled", Form::Truth),
        ];
        match self {
            Self::Flag => FLAG,
            Self::Settings => SETTINGS,
            Self::Bouncer => BOUNCER,
            Self::Secret => SECRET,
            Self::Resource => RESOURCE,
        }
    }

    /// The rules between fields: a bouncer has one identity, and a key is one of the provider's. Gives the field that breaks
    /// one. What is given and not good by itself is not in `fields`, and `is_given` all the same.
    pub(super) fn check(
        self,
        fields: &super::Fields,
        is_given: impl Fn(&str) -> bool,
    ) -> Result<(), (&'static str, String)> {
        if self == Self::Bouncer {
            return match (is_given("spiffe_id"), is_given("iam_role_arn")) {
                (true, true) => {
                    Err(("iam_role_arn", "does not go with spiffe_id: a bouncer has one identity".to_owned()))
                }
                (false, false) => Err(("spiffe_id", "is needed where there is no iam_role_arn".to_owned())),
                _ => Ok(()),
            };
        }
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let Some(provider) = text("provider").and_then(|text| text.parse::<Provider>().ok()) else { return Ok(()) };
        let (key, other) = match (self, provider) {
            (Self::Secret, _) => ("key_id", None),
            (Self::Settings, Provider::KmsEnvelope) => ("kms_key_arn", Some("vault_namespace")),
            (Self::Settings, Provider::VaultDelegate) => ("vault_namespace", Some("kms_key_arn")),
            _ => return Ok(()),
        };
        if let Some(other) = other.filter(|name| fields.contains_key(*name)) {
            return Err((other, format!("does not belong to the provider {provider}")));
        }
        match text(key) {
            None if self == Self::Settings => Err((key, format!("is needed for the provider {provider}"))),
            None => Ok(()),
            Some(text) => KeyId::parse(provider, text).map(drop).map_err(|error| (key, error.to_string())),
        }
    }
}

impl Form {
    /// The form that the control plane keeps, for comparison.
    pub(super) fn canonical(self, value: &Value) -> Result<Value, String> {
        match self {
            Self::Truth => value.as_bool().map(Value::Bool).ok_or_else(|| "must be true or false".to_owned()),
            Self::Text(rule) => {
                rule(value.as_str().ok_or("must be text; quote what looks like a number")?).map(Value::String)
            }
            Self::Texts(rule) => {
                let list = value.as_array().ok_or("must be a list")?;
                let one = |value: &Value| rule(value.as_str().ok_or("must be a list of texts")?);
                let mut texts = list.iter().map(one).collect::<Result<Vec<_>, _>>()?;
                texts.sort();
                texts.dedup();
                Ok(texts.into())
            }
        }
    }
}

fn text<T: FromStr<Err: Display> + Display>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|value| value.to_string()).map_err(|error| error.to_string())
}

fn any(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn protocol(text: &str) -> Result<String, String> {
    if matches!(text, "mtls" | "https") { Ok(text.to_owned()) } else { Err("must be mtls or https".to_owned()) }
}

/// The space around it means nothing, and YAML likes to change it.
fn chain(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY") {
        Ok(format!("{text}\n"))
    } else {
        Err("must be PEM of certificates only".to_owned())
    }
}
