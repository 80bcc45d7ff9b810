//! The peer of a warm decision: a tonic server that appends the same bytes to a file before it answers, and does
//! nothing else. The same service and the same answer, so that the wire is the same too.

use bouncer_proto::intercept::v1::decide_reply::Outcome;
use bouncer_proto::intercept::v1::intercept_server::{Intercept, InterceptServer};
use bouncer_proto::intercept::v1::{
    DecideReply, DecideRequest, Inject, ReportUsesReply, ReportUsesRequest, WatchEvent, WatchRequest,
};
use bouncer_tests::process::Process;
use bouncer_tests::scratch::Scratch;
use bouncer_tests::{Result, fault::Doing as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// What it appends, and where it listens.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Args {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    line: PathBuf,
    #[arg(long)]
    to: PathBuf,
    #[arg(long)]
    tag: String,
}

/// Starts one that appends `line`.
///
/// # Errors
/// If it does not listen.
pub(crate) async fn start(scratch: &Scratch, line: &[u8], tag: &str) -> Result<(Process, PathBuf)> {
    let socket = scratch.file("append.sock");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("append").arg("--socket").arg(&socket).arg("--line").arg(scratch.write("line", line)?);
    command.arg("--to").arg(scratch.file("appended")).arg("--tag").arg(tag);
    let process = Process::spawn("append", scratch, command)?;
    let up = || async { tokio::net::UnixStream::connect(&socket).await.ok().map(drop) };
    process.until("listens", Duration::from_secs(10), up).await?;
    Ok((process, socket))
}

/// Serves until it is ended.
///
/// # Errors
/// If a file can't be used.
pub(crate) async fn serve(args: &Args) -> Result<()> {
    let open = |path: &Path| OpenOptions::new().append(true).create(true).open(path);
    let appender = Appender {
        line: std::fs::read(&args.line).doing(args.line.display())?,
        to: Mutex::new(open(&args.to).doing(args.to.display())?),
        tag: args.tag.clone(),
    };
    let incoming = UnixListenerStream::new(UnixListener::bind(&args.socket)?);
    let server = tonic::transport::Server::builder().add_service(InterceptServer::new(appender));
    Ok(server.serve_with_incoming(incoming).await?)
}

struct Appender {
    line: Vec<u8>,
    to: Mutex<File>,
    tag: String,
}

#[tonic::async_trait]
impl Intercept for Appender {
    async fn decide(&self, _: Request<DecideRequest>) -> Result<Response<DecideReply>, Status> {
        let written = self.to.lock().unwrap_or_else(PoisonError::into_inner).write_all(&self.line);
        written.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(DecideReply {
            boot: "00000000-0000-0000-0000-000000000000".to_owned(),
            epoch: 1,
            decision_id: "00000000-0000-0000-0000-000000000000".to_owned(),
            outcome: Some(Outcome::Inject(Inject { tag: self.tag.clone(), ttl_ms: 30_000 })),
        }))
    }

    type WatchStream = futures::stream::Empty<Result<WatchEvent, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("this one only decides"))
    }

    async fn report_uses(&self, _: Request<ReportUsesRequest>) -> Result<Response<ReportUsesReply>, Status> {
        Err(Status::unimplemented("this one only decides"))
    }
}
