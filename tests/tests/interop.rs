//! Ciphertexts travel both ways between Bouncer and AWS's own SDK: boto3 against the same KMS, and a second reader of the
//! envelope's format by another library.

use bouncer_tests::client::Protocol;
use bouncer_tests::operator::{self, python};
use bouncer_tests::stack::{AAD, Credential, Stack, caller};
use bouncer_tests::{Fault, Result, tools};
use serde_json::json;
use std::time::Duration;

/// A caller for each way of wrapping.
const WAYS: [&str; 4] = ["by-sdk", "sealed-by-sdk", "by-us", "sealed-by-us"];

fn path(name: &str) -> String {
    format!("protected-resources/{name}/upstream-tls")
}

fn text(bytes: Vec<u8>) -> Result<String> {
    Ok(String::from_utf8(bytes)?.trim().to_owned())
}

#[tokio::test]
async fn the_published_vectors_hold_for_a_second_reader() -> Result<()> {
    let vectors = tools::root().join("custody/vectors/envelope-v1.json");
    let vectors = vectors.to_str().ok_or_else(|| Fault::new("a path that is no text"))?;
    let checked = text(python("envelope.py", &["check", vectors], b"").await?.success()?)?;
    assert!(checked.ends_with(" vectors, 0 wrong"), "{checked}");
    let made: serde_json::Value = serde_json::from_slice(&python("envelope.py", &["make"], b"").await?.success()?)?;
    let published: serde_json::Value = serde_json::from_slice(&std::fs::read(vectors)?)?;
    assert_eq!(made, published, "the file is what its maker makes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_awss_sdk_encrypts_opens_here_and_what_we_wrap_opens_there() -> Result<()> {
    let mut builder = Stack::builder("interop");
    for name in WAYS {
        let mut credential = Credential::new(name, "payments").callers(&[&caller(name)]);
        credential.with_envelope = false;
        builder = builder.credential(credential);
    }
    let stack = builder.start().await?;
    let (endpoint, key) = (stack.kms.endpoint(), stack.key_arn.clone());
    let sdk = async |command: &str, context: &str, input: &[u8]| {
        python("interop.py", &[command, &endpoint, &key, context], input).await
    };

    // What AWS's SDK encrypts.
    for (name, command) in [("by-sdk", "encrypt"), ("sealed-by-sdk", "seal")] {
        let mut bundle = stack.credential(name)?.bundle();
        if command == "seal" {
            // More than KMS itself would encrypt. What stands before the first section of a PEM file is passed over.
            bundle.insert_str(0, &"a note on this credential\n".repeat(400));
        }
        let reference = text(sdk(command, AAD, bundle.as_bytes()).await?.success()?)?;
        let body = json!({
            "logical_path": path(name), "key_id": key, "ciphertext_ref": reference, "aad": AAD,
            "provider": "kms_envelope",
        });
        let registered = stack.api()?.register_envelope(&body).await?;
        assert_eq!(registered["warnings"], json!([]), "{name}");
    }

    // What bouncerctl wraps.
    for (name, form) in [("by-us", "direct"), ("sealed-by-us", "envelope")] {
        let bundle = stack.credential(name)?.bundle();
        let wrapped = operator::wrap(&stack, form, AAD, &path(name), &bundle).await?;
        let reference = wrapped.json()?["ciphertext_ref"].as_str().unwrap_or_default().to_owned();
        wrapped.success()?;
        assert_eq!(reference.starts_with("vEJOQwEB"), form == "envelope");
        let opened = text(sdk("open", AAD, reference.as_bytes()).await?.success()?)?;
        assert!(opened.contains(stack.credential(name)?.key_pem.trim()), "{name}: not the key that was wrapped");
        // The control: the context is what makes it open.
        for wrong in ["env=production,bouncer=payments-west", "env=production"] {
            assert_eq!(sdk("open", wrong, reference.as_bytes()).await?.code, 3, "{name} under {wrong}");
        }
    }

    stack.kms.proxy().reset();
    for name in WAYS {
        let client = stack.client(&caller(name), Protocol::Http1)?;
        let serves = || client.serves();
        stack.until(format!("service with {name}"), Duration::from_secs(15), serves).await?;
    }
    assert_eq!(stack.kms.proxy().count("Decrypt"), WAYS.len(), "one KMS call each, envelope or not");
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}
