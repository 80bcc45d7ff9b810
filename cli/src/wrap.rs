//! Wrapping: from a credential in the operator's hands to an envelope that is safe in anyone's.
//!
//! Called by the `wrap` command. The plaintext goes to the customer's KMS and nowhere else, and is wiped afterwards.

mod binding;
mod credential;
mod envelope;
mod header;
mod pem;
mod seal;

pub(crate) use credential::CredentialError;
pub(crate) use envelope::Envelope;

use crate::args::Wrap;
use crate::failure::Failure;
use crate::files;
use crate::kms::{self, Kms, KmsError, Under};
use crate::output::Output;
use bouncer_custody::{Provider, Wrapped};
use credential::Credential;

/// Reads, checks and encrypts what the options name. Warnings go to standard error as they are found.
///
/// # Errors
/// [`Failure`]: a file that can't be read, a credential that no bouncer could use, a KMS that says no.
pub(crate) async fn wrap(args: &Wrap, output: &Output) -> Result<Envelope, Failure> {
    // Everything that can be wrong without touching a plaintext comes first.
    let endpoint = args.kms_endpoint.as_deref().map(|url| kms::endpoint(url, args.dev)).transpose()?;
    binding::check(&args.aad)?;
    let chain = args.chain.as_deref().map(|path| files::read(path, "chain file")).transpose()?;

    let bundle = files::read(&args.input, "credential file")?;
    if bundle.exposed {
        output.warning(&format!(
            "{} can be read by others than its owner. chmod 600 it, and delete it once the credential is registered.",
            args.input.display()
        ));
    }
    let now = jiff::Timestamp::now().as_second();
    let beside = chain.as_ref().map(|input| input.text.as_str());
    let credential = Credential::read(&bundle.text, beside, args.form, now)?;
    drop(bundle);
    binding::check_kind(&args.aad, credential.is_header())?;
    for warning in credential.warnings().chain(binding::warnings(&args.aad)) {
        output.warning(&warning);
    }

    let enveloped = credential.is_enveloped();
    let (plaintext, certificate_chain) = credential.into_parts();
    let kms = Kms::connect(args.key_arn.region(), endpoint.as_deref(), args.dev).await;
    let under = Under { key: &args.key_arn, aad: Some(&args.aad) };
    let wrapped = if enveloped {
        Wrapped::Envelope(seal::seal(plaintext, kms.data_key(under).await?, under.aad)?)
    } else {
        Wrapped::direct(kms.encrypt(under, plaintext).await?).map_err(|_| KmsError::UnusableAnswer)?
    };
    let ciphertext_ref = wrapped.to_reference();
    Ok(Envelope {
        key_id: args.key_arn.to_string(),
        ciphertext_ref,
        aad: Some(args.aad.clone()),
        provider: Provider::KmsEnvelope,
        certificate_chain,
        logical_path: None,
        registration: None,
    })
}
