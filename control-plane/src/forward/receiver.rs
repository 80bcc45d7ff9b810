//! Who is told, and the way there: one of two protocols.

use super::otlp::{self, HeadersFault};
use super::record::Record;
use super::syslog::{self, connection::Connection};
use crate::metrics::ForwardFailure;
use jiff::Timestamp;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

/// How long a connection may take, and a batch.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// For so long a receiver that refuses is left alone.
const REFUSED: Duration = Duration::from_secs(60);
/// The longest that one that is busy may ask to be left alone.
const BUSY: Duration = Duration::from_secs(300);

/// Who is told.
#[derive(Debug, Clone)]
pub enum Receiver {
    /// By syslog.
    Syslog(syslog::Receiver),
    /// By OpenTelemetry's protocol.
    Otlp(otlp::Receiver),
}

/// Why somebody can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverFault {
    /// The URL has not the form.
    #[error(
        "must be syslog+tls://HOST:PORT or https://HOST[:PORT][/PATH]; for a receiver on this machine also \
         syslog+tcp://127.0.0.1:PORT or http://127.0.0.1:PORT"
    )]
    Form,
    /// It leaves the machine unprotected.
    #[error("goes in the clear beyond this machine; use syslog+tls or https")]
    Clear,
    /// Nobody says whom to trust.
    #[error("needs ca_file: the PEM certificates under which the receiver's is issued")]
    NoAuthority,
    /// The certificates can't be read.
    #[error("needs a ca_file that holds readable PEM certificates")]
    Authority,
    /// No HTTP client can be made.
    #[error("cannot be asked: the HTTP client for it cannot be set up, for want of the system's certificates")]
    Client,
    /// Syslog has no headers.
    #[error("belongs to a receiver by https")]
    NoHeaders,
    /// The headers can't be used.
    #[error(transparent)]
    Headers(#[from] HeadersFault),
}

impl Receiver {
    /// The receiver at a URL, issued under the authorities in a file, who wants the headers in another.
    ///
    /// # Errors
    /// [`ReceiverFault`].
    pub fn parse(url: &str, ca_file: Option<&Path>, headers_file: Option<&Path>) -> Result<Self, ReceiverFault> {
        if url.starts_with("http") {
            return otlp::Receiver::parse(url, ca_file, headers_file).map(Self::Otlp);
        }
        let syslog = syslog::Receiver::parse(url, ca_file)?;
        if headers_file.is_some() { Err(ReceiverFault::NoHeaders) } else { Ok(Self::Syslog(syslog)) }
    }

    /// A record as this receiver is told it.
    pub(super) fn write(&self, record: &Record) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Syslog(_) => syslog::message(record),
            Self::Otlp(_) => otlp::log_record(record),
        }
    }

    pub(super) async fn open(&self) -> Result<Line, LineFault> {
        Ok(match self {
            Self::Syslog(receiver) => Line::Syslog(Connection::open(receiver).await?),
            Self::Otlp(receiver) => Line::Otlp(receiver.clone()),
        })
    }

    /// What changes when that by which the receiver refused may have been put right.
    pub(super) fn stamp(&self) -> crate::tls::Stamp {
        match self {
            Self::Syslog(_) => None,
            Self::Otlp(receiver) => receiver.stamp(),
        }
    }
}

/// What is known of a batch that was told.
pub(super) enum Told {
    /// It was written.
    Written,
    /// The receiver has it, but for so many records that it will never take.
    Received {
        /// How many.
        rejected: u64,
    },
}

/// Why a receiver is not told.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineFault {
    #[error("the receiver cannot be reached: {}", root(.0.as_ref()))]
    Reach(Box<dyn Error + Send + Sync>),
    #[error("the receiver is not trusted, or does not speak TLS: {}", root(.0.as_ref()))]
    Tls(Box<dyn Error + Send + Sync>),
    #[error("the receiver took longer than 20 s")]
    Slow,
    #[error("the connection to the receiver broke: {}", root(.0.as_ref()))]
    Broken(Box<dyn Error + Send + Sync>),
    #[error("the receiver is busy: it answered {status}")]
    Busy { status: u16, after: Option<Duration> },
    #[error("the receiver refuses: it answered {0}")]
    Refused(u16),
    #[error("the receiver refuses: its answer is not that of an OTLP receiver")]
    Answer,
    #[error("headers_file {0}")]
    Headers(#[from] HeadersFault),
}

/// What it comes from; the errors around it only say which layer passed it on.
fn root<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

impl LineFault {
    pub(super) const fn failure(&self) -> ForwardFailure {
        match self {
            Self::Reach(_) | Self::Slow | Self::Broken(_) => ForwardFailure::Unreachable,
            Self::Tls(_) => ForwardFailure::Untrusted,
            Self::Busy { .. } => ForwardFailure::Busy,
            Self::Refused(_) | Self::Answer => ForwardFailure::Refused,
            Self::Headers(_) => ForwardFailure::Headers,
        }
    }

    /// For how long the receiver's own answer says to leave it alone.
    pub(super) fn respite(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => after.map(|after| after.min(BUSY)),
            Self::Refused(_) | Self::Answer => Some(REFUSED),
            _ => None,
        }
    }
}

/// An open way to a receiver.
pub(super) enum Line {
    Syslog(Connection),
    Otlp(otlp::Receiver),
}

impl Line {
    pub(super) async fn tell(&mut self, records: &[Vec<u8>], now: Timestamp) -> Result<Told, LineFault> {
        match self {
            Self::Syslog(connection) => connection.write(&records.concat()).await.map(|()| Told::Written),
            Self::Otlp(receiver) => receiver.post(records, now).await.map(|rejected| Told::Received { rejected }),
        }
    }

    /// Whether the receiver is there, as far as can be known before it was told anything.
    pub(super) const fn is_connection(&self) -> bool {
        matches!(self, Self::Syslog(_))
    }

    /// Returns when the receiver has gone.
    pub(super) async fn ended(&mut self) {
        match self {
            Self::Syslog(connection) => connection.ended().await,
            Self::Otlp(_) => std::future::pending().await,
        }
    }

    /// Says goodbye.
    pub(super) async fn close(&mut self) {
        if let Self::Syslog(connection) = self {
            connection.close().await;
        }
    }
}
