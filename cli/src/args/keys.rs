//! The options of what has to do with keys: wrapping under one, moving to another, seeing what hangs on which.

use bouncer_custody::{EncryptionContext, KmsKeyArn, LogicalPath};
use std::path::PathBuf;

/// How a credential is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// By KMS itself where it fits into 4,096 bytes, else in an envelope.
    Auto,
    /// By KMS itself: at most 4,096 bytes.
    Direct,
    /// In an envelope: a data key of its own, wrapped by KMS; at most 64 KiB.
    Envelope,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Wrap {
    /// The KMS key, by its full ARN. An alias is not accepted: its target can be changed.
    #[arg(long, value_name = "ARN")]
    pub key_arn: KmsKeyArn,
    /// What the credential is bound to: KMS's encryption context, `k=v,k=v`. Reserved keys: bouncer, upstream, caller,
    /// env, generation.
    #[arg(long, value_name = "K=V,K=V")]
    pub aad: EncryptionContext,
    /// The credential: PEM (private key, with or without its chain) or JSON; `-` for standard input.
    #[arg(long = "in", value_name = "FILE")]
    pub input: PathBuf,
    /// The certificate chain, PEM, leaf first, where it is not in the bundle.
    #[arg(long, value_name = "FILE")]
    pub chain: Option<PathBuf>,
    /// How to encrypt it. auto: by KMS itself where it fits, else in an envelope.
    #[arg(long, value_enum, default_value_t = Form::Auto, value_name = "FORM")]
    pub form: Form,
    /// KMS's address, such as a VPC or FIPS endpoint. By default the public one of the key's region.
    #[arg(long, value_name = "URL")]
    pub kms_endpoint: Option<String>,
    /// Allow what must not happen in production: a KMS endpoint over plain HTTP, and made-up AWS credentials for it
    /// where the environment has none.
    #[arg(long)]
    pub dev: bool,
    /// Register the result under this logical path too.
    #[arg(long, value_name = "LOGICAL_PATH")]
    pub register: Option<LogicalPath>,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["paths", "all"])))]
pub(crate) struct Rewrap {
    /// The credentials to move, by their logical paths.
    #[arg(value_name = "LOGICAL_PATH")]
    pub paths: Vec<LogicalPath>,
    /// Move every credential that is wrapped under --from-key.
    #[arg(long, requires = "from_key")]
    pub all: bool,
    /// The key that they are wrapped under now. With paths it may be left out, and is then whatever is registered.
    #[arg(long, value_name = "ARN")]
    pub from_key: Option<KmsKeyArn>,
    /// The key to move them to, of the same region. An alias is not accepted: its target can be changed.
    #[arg(long, value_name = "ARN")]
    pub to_key: KmsKeyArn,
    /// Change nothing: say what would be moved, and ask KMS whether it would do it (its own DryRun).
    #[arg(long)]
    pub dry_run: bool,
    /// KMS's address, such as a VPC or FIPS endpoint. By default the public one of the keys' region.
    #[arg(long, value_name = "URL")]
    pub kms_endpoint: Option<String>,
    /// Allow what must not happen in production: a KMS endpoint over plain HTTP, and made-up AWS credentials for it
    /// where the environment has none.
    #[arg(long)]
    pub dev: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inventory {
    /// Only this key, by its ARN, or this Vault namespace.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}
