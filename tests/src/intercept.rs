//! The filter's side of decisions, in a scenario's own hands.

use crate::sds;
use crate::stack::UPSTREAM_NAME;
use crate::{Fault, Result};
use bouncer_proto::intercept::v1::decide_reply::Outcome;
use bouncer_proto::intercept::v1::intercept_client::InterceptClient;
use bouncer_proto::intercept::v1::{DecideReply, DecideRequest};
use std::path::Path;
use tonic::transport::Channel;

/// A client of whoever answers decisions on a socket.
#[derive(Clone)]
pub struct Decider(InterceptClient<Channel>);

impl Decider {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn at(socket: &Path) -> Result<Self> {
        Ok(Self(InterceptClient::new(sds::connect(socket).await?)))
    }

    /// The tag of the credential that this caller may use on the cluster `payments`.
    ///
    /// # Errors
    /// If it may not.
    pub async fn decide(&mut self, caller: &str) -> Result<String> {
        match self.decision(caller).await?.outcome {
            Some(Outcome::Inject(inject)) => Ok(inject.tag),
            other => Err(Fault::new(format!("{caller} was answered {other:?}"))),
        }
    }

    /// The id of a decision about this caller on the cluster `payments`, if that gave a credential.
    ///
    /// # Errors
    /// If there is no decision.
    pub async fn released(&mut self, caller: &str) -> Result<Option<String>> {
        let DecideReply { outcome, decision_id, .. } = self.decision(caller).await?;
        Ok(matches!(outcome, Some(Outcome::Inject(_))).then_some(decision_id))
    }

    async fn decision(&mut self, caller: &str) -> Result<DecideReply> {
        Ok(self.0.decide(question(caller)).await?.into_inner())
    }

    /// What the server says to any question.
    ///
    /// # Errors
    /// The server's status.
    pub async fn ask(&mut self, question: DecideRequest) -> Result<Option<Outcome>, tonic::Status> {
        Ok(self.0.decide(question).await?.into_inner().outcome)
    }
}

/// As the filter asks for a caller of the cluster `payments`.
#[must_use]
pub fn question(caller: &str) -> DecideRequest {
    DecideRequest {
        cluster: "payments".to_owned(),
        authority: UPSTREAM_NAME.to_owned(),
        caller: caller.to_owned(),
        listener: "8443".to_owned(),
        protocol: "HTTP/2".to_owned(),
    }
}
