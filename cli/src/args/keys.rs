//! The options of what has to do with keys: wrapping under one, moving to another, seeing what hangs on which.

use bouncer_custody::{EncryptionContext, KmsKeyArn, LogicalPath};
use clap::ArgGroup;
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
#[command(group(ArgGroup::new("which").required(true).args(["paths", "all"])))]
#[command(group(ArgGroup::new("target").required(true).args(["to_key", "vault"])))]
#[command(group(ArgGroup::new("source").args(["from_key", "vault"])))]
pub(crate) struct Rewrap {
    /// The credentials to move, by their logical paths.
    #[arg(value_name = "LOGICAL_PATH")]
    pub paths: Vec<LogicalPath>,
    /// Move every credential that is wrapped under --from-key; with --vault, every one that transit encrypted.
    #[arg(long, requires = "source")]
    pub all: bool,
    /// The key that they are wrapped under now. With paths it may be left out, and is then whatever is registered.
    #[arg(long, value_name = "ARN")]
    pub from_key: Option<KmsKeyArn>,
    /// The key to move them to, of the same region. An alias is not accepted: its target can be changed.
    #[arg(long, value_name = "ARN")]
    pub to_key: Option<KmsKeyArn>,
    #[command(flatten)]
    pub vault: VaultServer,
    /// Change nothing: say what would be moved. KMS is asked whether it would do it (its own DryRun), Vault for the
    /// newest version of the key.
    #[arg(long)]
    pub dry_run: bool,
    /// KMS's address, such as a VPC or FIPS endpoint. By default the public one of the keys' region.
    #[arg(long, value_name = "URL", conflicts_with = "vault")]
    pub kms_endpoint: Option<String>,
    /// Allow what must not happen in production: a KMS endpoint over plain HTTP, and made-up AWS credentials for it
    /// where the environment has none; a Vault on this machine over plain HTTP.
    #[arg(long)]
    pub dev: bool,
}

/// The customer's Vault.
#[derive(Debug, clap::Args)]
pub(crate) struct VaultServer {
    /// In the place of --to-key: have the Vault at this address re-encrypt what its transit engine encrypted, with the
    /// newest version of the same key.
    #[arg(long, value_name = "URL")]
    pub vault: Option<String>,
    /// A file that holds the Vault token. Without it the token comes from the environment variable VAULT_TOKEN.
    #[arg(long, value_name = "FILE", requires = "vault", conflicts_with = "to_key")]
    pub vault_token_file: Option<PathBuf>,
    /// PEM certificates to trust for Vault, instead of the system's.
    #[arg(long, value_name = "FILE", requires = "vault", conflicts_with = "to_key")]
    pub vault_ca_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inventory {
    /// Only this key, by its ARN, or this Vault namespace.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}
