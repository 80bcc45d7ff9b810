//! Many credentials of one bouncer, each for a caller of its own.

use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::pki::Leaf;
use bouncer_tests::stack::{AAD, Stack, caller};
use bouncer_tests::{Fault, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::time::Duration;

/// Calls to KMS at a time while credentials are wrapped.
const WRAPPING: usize = 8;
const START: Duration = Duration::from_secs(60);

/// One credential.
pub(crate) struct Secret {
    /// Who may use it.
    pub caller: String,
    /// As it is registered.
    pub ciphertext: String,
}

/// Wraps so many credentials.
///
/// # Errors
/// If KMS says no.
pub(crate) async fn wrap(stack: &Stack, count: usize) -> Result<Vec<Secret>> {
    let wrap = |number: usize| async move {
        let name = format!("agent-{number}");
        let bundle = stack.customer_ca.issue(&Leaf::new(&name))?.bundle();
        let ciphertext = stack.kms.encrypt(&stack.key_arn, AAD, bundle.as_bytes()).await?;
        Ok::<_, Fault>(Secret { caller: caller(&name), ciphertext })
    };
    stream::iter(0..count).map(wrap).buffered(WRAPPING).try_collect().await
}

/// Tells the resolver of these and no others, and waits until it has taken them up.
///
/// # Errors
/// If it refuses them.
pub(crate) async fn push(stack: &Stack, secrets: &[Secret]) -> Result<()> {
    let path = |number: usize| format!("protected-resources/agent-{number}/upstream-tls");
    let resource = |(number, secret): (usize, &Secret)| wire::ProtectedResource {
        name: format!("agent-{number}"),
        cluster: "payments".to_owned(),
        upstream: String::new(),
        protocol: "mtls".to_owned(),
        logical_path: path(number),
        callers: vec![secret.caller.clone()],
        enabled: true,
    };
    let envelope = |(number, secret): (usize, &Secret)| wire::Envelope {
        logical_path: path(number),
        generation: 1,
        provider: "kms_envelope".to_owned(),
        key_id: stack.key_arn.clone(),
        ciphertext_ref: secret.ciphertext.clone(),
        aad: Some(AAD.to_owned()),
        ..wire::Envelope::default()
    };
    stack.bridge()?.push(|snapshot| {
        snapshot.resources = secrets.iter().enumerate().map(resource).collect();
        snapshot.envelopes = secrets.iter().enumerate().map(envelope).collect();
    });
    let taken = || async {
        stack.bridge().and_then(|bridge| bridge.acknowledged()).map(|taken| taken.then_some(())).transpose()
    };
    stack.until("the snapshot to be taken", START, taken).await?
}
