//! A cold intercept, from the question to the secret in hand, against a bare client's call to the same backend.

use crate::fleet::Secret;
use crate::progress;
use bouncer_tests::intercept::Decider;
use bouncer_tests::kms::REGION;
use bouncer_tests::sds::{self, Delta};
use bouncer_tests::stack::Stack;
use bouncer_tests::stats::Spread;
use bouncer_tests::{Fault, Result};
use serde::Serialize;
use serde_json::json;
use std::time::{Duration, Instant};

/// What was measured, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Cold {
    /// Pairs.
    pub pairs: usize,
    /// The decision and the secret, never seen before.
    pub intercept_ms: Spread,
    /// The bare call.
    pub bare_ms: Spread,
    /// How much longer the intercept took than the bare call beside it.
    pub added_ms: Spread,
}

/// One after the other, so that neither waits behind the other at the backend, and each first in turn.
///
/// # Errors
/// If something is not answered.
pub(crate) async fn measure(stack: &Stack, secrets: &[Secret]) -> Result<Cold> {
    let setup = stack.resolver()?.setup();
    let mut decider = Decider::at(&setup.intercept_socket).await?;
    let channel = sds::connect(&setup.sds_socket).await?;
    let bare = Bare { http: reqwest::Client::builder().no_proxy().build()?, stack };
    let mut held = vec![];
    let (mut ours, mut theirs) = (vec![], vec![]);
    let Some((warm_up, secrets)) = secrets.split_first() else { return Err(Fault::new("no secrets")) };
    decider.decide(&warm_up.caller).await?;
    bare.call(warm_up).await?;
    for (number, secret) in secrets.iter().enumerate() {
        if number % 2 == 0 {
            theirs.push(bare.call(secret).await?);
        }
        let start = Instant::now();
        let tag = decider.decide(&secret.caller).await?;
        let (stream, _) = Delta::fetch(&channel, "payments", &setup.sds_key, &tag).await?;
        ours.push(start.elapsed());
        held.push(stream);
        if number % 2 == 1 {
            theirs.push(bare.call(secret).await?);
        }
    }
    progress(format_args!("{} cold intercepts, each beside a bare call", ours.len()));
    let ms = |time: &Duration| time.as_secs_f64() * 1e3;
    Ok(Cold {
        pairs: ours.len(),
        intercept_ms: Spread::of(ours.iter().map(ms)),
        bare_ms: Spread::of(theirs.iter().map(ms)),
        added_ms: Spread::of(ours.iter().zip(&theirs).map(|(ours, theirs)| ms(ours) - ms(theirs))),
    })
}

/// A client with a connection to the backend, and nothing else to do.
struct Bare<'a> {
    http: reqwest::Client,
    stack: &'a Stack,
}

impl Bare<'_> {
    async fn call(&self, secret: &Secret) -> Result<Duration> {
        let body = json!({
            "KeyId": self.stack.key_arn, "CiphertextBlob": secret.ciphertext,
            "EncryptionContext": {"env": "production", "bouncer": "payments-east"},
        });
        let start = Instant::now();
        let scope = format!("AWS4-HMAC-SHA256 Credential=bare/20260101/{REGION}/kms/aws4_request");
        let request = self
            .http
            .post(self.stack.kms.endpoint())
            .header("authorization", format!("{scope}, SignedHeaders=host, Signature=0"))
            .header("x-amz-target", "TrentService.Decrypt")
            .header("content-type", "application/x-amz-json-1.1")
            .body(body.to_string());
        let answer = request.send().await?.error_for_status()?;
        answer.bytes().await?;
        Ok(start.elapsed())
    }
}
