//! The peer of a change that reaches all: a tonic server with the same TLS that sends the same bytes to every stream when
//! it is told to, and does nothing else.

use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::pki::{self, Identity};
use bouncer_tests::process::Process;
use bouncer_tests::scratch::{Scratch, free_port};
use bouncer_tests::workload_api::TrustDomain;
use bouncer_tests::{Result, bridge, scratch};
use prost::Message as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use wire::policy_bridge_server::PolicyBridge;
use wire::resolver_message;

/// An acknowledgement of this epoch asks for the next broadcast.
pub(crate) const TELL: u64 = u64::MAX;

/// What it sends, and where it listens.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    message: PathBuf,
    #[arg(long)]
    certificate: PathBuf,
    #[arg(long)]
    key: PathBuf,
    #[arg(long)]
    clients: PathBuf,
}

/// Starts one that sends this message.
///
/// # Errors
/// If it does not listen.
pub(crate) async fn start(
    scratch: &Scratch,
    domain: &TrustDomain,
    message: &wire::ControlMessage,
) -> Result<(Process, SocketAddr)> {
    let svid = domain.svid("spiffe://example.org/control-plane")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("broadcast").arg("--listen").arg(address.to_string());
    command.arg("--message").arg(scratch.write("message", message.encode_to_vec())?);
    command.arg("--certificate").arg(scratch.write("broadcast.pem", &svid.cert_pem)?);
    command.arg("--key").arg(scratch.write("broadcast.key", &svid.key_pem)?);
    command.arg("--clients").arg(scratch.write("clients.pem", domain.ca().pem())?);
    let process = Process::spawn("broadcast", scratch, command)?;
    let up = || async { scratch::listens(address).await.then_some(()) };
    process.until("listens", Duration::from_secs(10), up).await?;
    Ok((process, address))
}

/// Serves until it is ended.
///
/// # Errors
/// If a file can't be used.
pub(crate) async fn serve(args: &Args) -> Result<()> {
    let read = |path: &PathBuf| std::fs::read_to_string(path);
    let svid = Identity::from_pem(&read(&args.certificate)?, &read(&args.key)?)?;
    let message = wire::ControlMessage::decode(&*std::fs::read(&args.message)?)?;
    let server = Server { message: Arc::new(message), all: broadcast::Sender::new(16) };
    let (_, task) = bridge::serve(args.listen, &svid, pki::roots(&read(&args.clients)?)?, server).await?;
    Ok(task.await?)
}

#[derive(Clone)]
struct Server {
    message: Arc<wire::ControlMessage>,
    all: broadcast::Sender<wire::ControlMessage>,
}

impl Server {
    fn tell(&self) {
        // Nobody there is nobody told.
        let _ = self.all.send(wire::ControlMessage::clone(&self.message));
    }
}

#[tonic::async_trait]
impl PolicyBridge for Server {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<wire::ControlMessage, Status>> + Send>>;

    async fn sync(
        &self,
        request: Request<Streaming<wire::ResolverMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (mut said, server) = (request.into_inner(), self.clone());
        tokio::spawn(async move {
            while let Ok(Some(message)) = said.message().await {
                if matches!(message.body, Some(resolver_message::Body::Ack(ack)) if ack.epoch == TELL) {
                    server.tell();
                }
            }
        });
        let all = BroadcastStream::new(self.all.subscribe());
        let all = all.map(|message| message.map_err(|_| Status::resource_exhausted("too slow")));
        Ok(Response::new(Box::pin(all)))
    }
}
