//! Mode `named`: one credential for a cluster, withheld until the first allowed stream, on the oldest supported Envoy and
//! on the current one.

use bouncer_custody::Reason;
use bouncer_tests::client::Protocol;
use bouncer_tests::envoy::Version;
use bouncer_tests::stack::{BILLING, CART, Cluster, Credential, STRANGER, Stack, Wants};
use bouncer_tests::{Fault, Result};

async fn the_first_allowed_stream_brings_the_credential(version: Version) -> Result<()> {
    let payments = Cluster { wants_certificate: Wants::Required, ..Cluster::new("payments") };
    let stack = Stack::builder("named").named(version).cluster(payments).start().await?;
    let denied = stack.client(STRANGER, Protocol::Http1)?.get("/").await?;
    assert_eq!(denied.reason(), Some(Reason::CallerNotAllowed.code()));
    assert_eq!(stack.kms.proxy().count("Decrypt"), 0, "withheld until a stream was allowed");
    assert_eq!(stack.upstream("payments")?.connections(), 0);

    let client = stack.client(CART, Protocol::Http1)?;
    let first = client.get("/").await?;
    let peer = first.seen()?.peer.ok_or_else(|| Fault::new("no client certificate"))?;
    assert_eq!(peer.common_name, "payments-api", "with the very first request");
    for _ in 0..5 {
        assert_eq!(client.get("/").await?.status, 200);
    }
    // Now that Envoy holds it, it is still for allowed callers only.
    let denied = stack.client(STRANGER, Protocol::Http1)?.get("/").await?;
    assert_eq!(denied.reason(), Some(Reason::CallerNotAllowed.code()));
    assert_eq!(stack.upstream("payments")?.requests().len(), 6);
    assert_eq!(stack.kms.proxy().count("Decrypt"), 1);
    assert!(stack.upstream("payments")?.handshakes().iter().all(|handshake| handshake.error.is_none()));
    stack.audited("the injection", |event| event["outcome"] == "inject" && event["caller"] == CART).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_oldest_supported_envoy() -> Result<()> {
    the_first_allowed_stream_brings_the_credential(Version::Oldest).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_current_envoy() -> Result<()> {
    the_first_allowed_stream_brings_the_credential(Version::Current).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_sds_key_is_given_nothing() -> Result<()> {
    let stack = Stack::builder("named-key")
        .named(Version::Current)
        .bootstrap(|bootstrap| {
            let path = "transport_socket.typed_config.common_tls_context.tls_certificate_sds_secret_configs.0.sds_config\
                        .api_config_source.grpc_services.0.initial_metadata.1.value";
            *bouncer_tests::envoy::at(bootstrap.cluster("payments")?, path)? = "0".repeat(64).into();
            Ok(())
        })
        .start()
        .await?;
    let reply = stack.client(CART, Protocol::Http1)?.get("/").await?;
    assert_eq!(reply.reason(), Some(Reason::SdsNotAcknowledged.code()), "{} {}", reply.status, reply.body);
    assert_eq!(stack.upstream("payments")?.connections(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_credentials_on_one_cluster_are_refused_since_envoy_would_mix_them_up() -> Result<()> {
    let stack = Stack::builder("named-two")
        .named(Version::Current)
        .credential(Credential::new("for-cart", "payments").callers(&[CART]))
        .credential(Credential::new("for-billing", "payments").callers(&[BILLING]))
        .start()
        .await?;
    for caller in [CART, BILLING] {
        let reply = stack.client(caller, Protocol::Http1)?.get("/").await?;
        assert_eq!(reply.reason(), Some(Reason::ResourceAmbiguous.code()), "{caller}");
    }
    assert_eq!(stack.upstream("payments")?.connections(), 0);
    Ok(())
}
