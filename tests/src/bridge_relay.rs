//! Stands between a resolver and the control plane with the identities of both, as nobody else can: says to each what the
//! other says, and changes what comes down if the scenario wants that.

use crate::Result;
use crate::bridge::{ANY_PORT, connect, serve};
use crate::pki::{self, Identity};
use crate::stack::{BOUNCER_ID, CONTROL_PLANE_ID, Identities};
use bouncer_proto::bridge::v1 as wire;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use wire::control_message::Body;
use wire::policy_bridge_client::PolicyBridgeClient;
use wire::policy_bridge_server::PolicyBridge;

/// What becomes of a message on its way down.
type Change = fn(&mut Body);

/// A running relay. Dropping it ends it with its connections.
pub struct BridgeRelay {
    address: SocketAddr,
    change: Arc<Mutex<Change>>,
    task: JoinHandle<()>,
}

struct Server {
    home: SocketAddr,
    svid: Identity,
    change: Arc<Mutex<Change>>,
}

impl BridgeRelay {
    /// Starts an honest one in front of the control plane's bridge.
    ///
    /// # Errors
    /// If the identities can't be had or no port is free.
    pub async fn start(identities: &Identities, home: SocketAddr) -> Result<Self> {
        let honest: Change = |_| {};
        let change = Arc::new(Mutex::new(honest));
        let server = Server { home, svid: identities.mint(BOUNCER_ID)?, change: Arc::clone(&change) };
        let clients = pki::roots(&identities.roots_pem()?)?;
        let (address, task) = serve(ANY_PORT, &identities.mint(CONTROL_PLANE_ID)?, clients, server).await?;
        Ok(Self { address, change, task })
    }

    /// Where resolvers reach it.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what comes down from now on.
    pub fn change(&self, change: Change) {
        *self.change.lock().unwrap_or_else(PoisonError::into_inner) = change;
    }
}

impl Drop for BridgeRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl PolicyBridge for Server {
    type SyncStream = Pin<Box<dyn Stream<Item = std::result::Result<wire::ControlMessage, Status>> + Send>>;

    async fn sync(
        &self,
        request: Request<Streaming<wire::ResolverMessage>>,
    ) -> std::result::Result<Response<Self::SyncStream>, Status> {
        let channel = connect(self.home, &self.svid).await.map_err(|fault| Status::unavailable(fault.to_string()))?;
        let up = request.into_inner().map_while(std::result::Result::ok);
        let down = PolicyBridgeClient::new(channel).sync(up).await?.into_inner();
        let change = Arc::clone(&self.change);
        let down = down.map(move |message| {
            let mut message = message?;
            let change = *change.lock().unwrap_or_else(PoisonError::into_inner);
            message.body.iter_mut().for_each(change);
            Ok(message)
        });
        Ok(Response::new(Box::pin(down)))
    }
}
