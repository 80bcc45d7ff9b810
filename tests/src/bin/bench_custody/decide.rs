//! Decisions, as the filter asks for them.

use crate::fleet::Secret;
use crate::sds;
use bouncer_proto::intercept::v1::DecideRequest;
use bouncer_proto::intercept::v1::decide_reply::Outcome;
use bouncer_proto::intercept::v1::intercept_client::InterceptClient;
use bouncer_tests::stack::UPSTREAM_NAME;
use bouncer_tests::{Fault, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::path::Path;
use tonic::transport::Channel;

/// Cold decisions at a time, where it is not they that are measured.
const COLD: usize = 8;

/// Whoever answers decisions on a socket.
#[derive(Clone)]
pub(crate) struct Decider(InterceptClient<Channel>);

impl Decider {
    /// # Errors
    /// If nobody listens.
    pub(crate) async fn at(socket: &Path) -> Result<Self> {
        Ok(Self(InterceptClient::new(sds::connect(socket).await?)))
    }

    /// The tag of the credential that this caller may use.
    ///
    /// # Errors
    /// If it may not.
    pub(crate) async fn decide(&mut self, caller: &str) -> Result<String> {
        let ask = DecideRequest {
            cluster: "payments".to_owned(),
            authority: UPSTREAM_NAME.to_owned(),
            caller: caller.to_owned(),
            listener: "8443".to_owned(),
            protocol: "HTTP/2".to_owned(),
        };
        match self.0.decide(ask).await?.into_inner().outcome {
            Some(Outcome::Inject(inject)) => Ok(inject.tag),
            other => Err(Fault::new(format!("{caller} was answered {other:?}"))),
        }
    }

    /// The tags of many, in their order.
    ///
    /// # Errors
    /// If one may not use its own.
    pub(crate) async fn decide_all(&self, secrets: &[Secret]) -> Result<Vec<String>> {
        let decide = |secret: &'_ Secret| {
            let (mut own, caller) = (self.clone(), secret.caller.clone());
            async move { own.decide(&caller).await }
        };
        stream::iter(secrets.iter().map(decide)).buffered(COLD).try_collect().await
    }
}
