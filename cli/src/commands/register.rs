//! `register`, and `wrap` with or without it.

use super::proposals::waits;
use super::registered::PATH;
use super::view::View;
use crate::args::{Register, Wrap};
use crate::control_plane::{ControlPlane, ControlPlaneError, Expects};
use crate::failure::{Exit, Failure};
use crate::files;
use crate::output::Output;
use crate::wrap::Envelope;
use bouncer_custody::{KeyId, LogicalPath};

/// Wraps a credential, prints the envelope, and registers it where asked to.
///
/// # Errors
/// [`Failure`]. Where only the registration failed, the envelope has been printed all the same.
pub(super) async fn wrap(
    args: &Wrap,
    connect: impl FnOnce() -> Result<ControlPlane, ControlPlaneError>,
    output: &Output,
) -> Result<Exit, Failure> {
    // Before KMS is asked: a missing token must not cost a credential that is then wrapped twice.
    let control_plane = args.register.as_ref().map(|_| connect()).transpose()?;
    let mut envelope = crate::wrap::wrap(args, output).await?;
    let Some((path, control_plane)) = args.register.as_ref().zip(control_plane) else {
        output.json(&envelope)?;
        return Ok(Exit::Ok);
    };
    match control_plane.register(PATH, &envelope.body(path), Expects::Anything).await {
        Ok(answer) => {
            tell(path, View(&answer), output);
            envelope.logical_path = Some(path.clone());
            envelope.registration = Some(answer);
            output.json(&envelope)?;
            Ok(Exit::Ok)
        }
        Err(ControlPlaneError::Waits { proposal }) => {
            output.json(&envelope)?;
            output.note(&format!("The credential is wrapped (see above); its registration {}", waits(&proposal)));
            Ok(Exit::Waits)
        }
        Err(error) => {
            output.json(&envelope)?;
            output.note("The credential is wrapped (see above) and not registered.");
            Err(error.into())
        }
    }
}

/// Registers an envelope.
///
/// # Errors
/// [`Failure`]: an envelope that is none, or what the control plane says against it.
pub(super) async fn register(
    args: &Register,
    connect: impl FnOnce() -> Result<ControlPlane, ControlPlaneError>,
    output: &Output,
) -> Result<Exit, Failure> {
    let envelope = envelope(args)?;
    let mut body = envelope.body(&args.logical_path);
    if let Some(reason) = &args.reason {
        body["reason"] = reason.as_str().into();
    }
    let answer = connect()?.register(PATH, &body, Expects::Anything).await?;
    if output.is_json() {
        output.json(&answer)?;
    } else {
        output.text(&said(&args.logical_path, View(&answer)))?;
    }
    for warning in View(&answer).warnings() {
        output.warning(&warning);
    }
    Ok(Exit::Ok)
}

fn envelope(args: &Register) -> Result<Envelope, Failure> {
    if let Some(path) = &args.from {
        let input = files::read(path, "envelope file")?;
        let envelope: Envelope = serde_json::from_str(&input.text).map_err(|_| Failure::Usage {
            what: "the file of --from is not what `bouncerctl wrap` prints",
            advice: "Give wrap's JSON as it is, or the fields one by one: --key-id, --ciphertext-ref, --aad, --provider.",
        })?;
        return match &envelope.logical_path {
            Some(other) if *other != args.logical_path => Err(Failure::Usage {
                what: "the file of --from was registered under another logical path",
                advice: "Give that path, or wrap the credential anew: one ciphertext under two names is easily mixed up.",
            }),
            _ => Ok(envelope),
        };
    }
    let (Some(key_id), Some(ciphertext_ref)) = (&args.key_id, &args.ciphertext_ref) else {
        return Err(Failure::Usage {
            what: "there is nothing to register",
            advice: "Give --from FILE, or --key-id and --ciphertext-ref.",
        });
    };
    if KeyId::parse(args.provider, key_id).is_err() {
        return Err(Failure::Usage {
            what: "--key-id does not fit --provider",
            advice: "kms_envelope takes a full key ARN (no alias), vault_delegate a namespace.",
        });
    }
    let chain = args.chain.as_deref().map(|path| files::read(path, "chain file")).transpose()?;
    Ok(Envelope {
        key_id: key_id.clone(),
        ciphertext_ref: ciphertext_ref.clone(),
        aad: args.aad.clone(),
        provider: args.provider,
        certificate_chain: chain.map(|input| input.text.to_string()),
        logical_path: None,
        registration: None,
    })
}

fn tell(path: &LogicalPath, answer: View<'_>, output: &Output) {
    output.note(&said(path, answer));
    for warning in answer.warnings() {
        output.warning(&warning);
    }
}

fn said(path: &LogicalPath, answer: View<'_>) -> String {
    format!("registered {path}: id {}, generation {}", answer.cell("id"), answer.cell("generation"))
}
