//! OpenTelemetry logs to a collector: OTLP/HTTP with JSON, `POST …/v1/logs` (OpenTelemetry Protocol Specification 1.x).
//!
//! Over TLS, or over HTTP to this very machine; no redirect is followed. Nothing that the receiver says but its status
//! and the number of records that it rejected is looked at or repeated: it may repeat what it was sent, and so the
//! headers that it knows us by.

mod headers;
mod log;

use super::receiver::{LineFault, PATIENCE, ReceiverFault};
use crate::http_client;
use crate::tls::{Stamp, stamp};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::{Client, Url};
use serde_json::Value;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use headers::HeadersFault;
pub(super) use log::log_record;

/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1_024;

/// Who is told.
#[derive(Clone)]
pub struct Receiver {
    logs: Url,
    http: Client,
    headers_file: Option<PathBuf>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({})", self.logs)
    }
}

impl Receiver {
    /// The receiver below a URL, issued under the authorities in a file or the system's.
    ///
    /// # Errors
    /// [`ReceiverFault`].
    pub fn parse(url: &str, ca_file: Option<&Path>, headers_file: Option<&Path>) -> Result<Self, ReceiverFault> {
        let bare = |url: &Url| {
            url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none()
        };
        let mut logs = Url::parse(url).ok().filter(bare).ok_or(ReceiverFault::Form)?;
        let host = logs.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let here = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let builder = http_client::builder(ca_file).ok_or(ReceiverFault::Authority)?.timeout(PATIENCE);
        let builder = match logs.scheme() {
            "https" => builder.https_only(true),
            // A proxy would be another machine.
            "http" if here => builder.no_proxy(),
            "http" => return Err(ReceiverFault::Clear),
            _ => return Err(ReceiverFault::Form),
        };
        if let Some(file) = headers_file {
            headers::read(file)?;
        }
        logs.set_path(&format!("{}/v1/logs", logs.path().trim_end_matches('/')));
        let http = builder.build().map_err(|_| ReceiverFault::Client)?;
        Ok(Self { logs, http, headers_file: headers_file.map(Path::to_owned) })
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.headers_file.as_deref().and_then(stamp)
    }

    /// Tells a batch. Returns how many of its records the receiver rejected for good.
    pub(super) async fn post(&self, records: &[Vec<u8>], now: Timestamp) -> Result<u64, LineFault> {
        // Read each time: they may have been renewed.
        let mut headers = self.headers_file.as_deref().map_or_else(|| Ok(HeaderMap::new()), headers::read)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = self.http.post(self.logs.clone()).headers(headers).body(log::request(records));
        let mut response = request.send().await.map_err(fault)?;
        let status = response.status().as_u16();
        match status {
            200..=299 => {}
            429 | 502..=504 => {
                let after =
                    response.headers().get(RETRY_AFTER).and_then(|after| retry_after(after.to_str().ok()?, now));
                return Err(LineFault::Busy { status, after });
            }
            _ => return Err(LineFault::Refused(status)),
        }
        let answer = http_client::body(&mut response, ANSWER_LIMIT).await.map_err(fault)?;
        let rejected = answer.as_deref().and_then(rejected).ok_or(LineFault::Answer)?;
        Ok(rejected.min(records.len() as u64))
    }
}

/// How many records an answer says are rejected. `None` if it is no answer of this protocol: whoever gave it has not
/// taken anything. No answer at all says that nothing is wrong.
fn rejected(answer: &[u8]) -> Option<u64> {
    if answer.is_empty() {
        return Some(0);
    }
    let answer = serde_json::from_slice::<Value>(answer).ok()?;
    match answer.as_object()?.get("partialSuccess").and_then(|partial| partial.get("rejectedLogRecords")) {
        None | Some(Value::Null) => Some(0),
        // The JSON of protobuf writes 64 bits as text, and takes a number too.
        Some(Value::String(text)) => text.parse().ok(),
        Some(number) => number.as_u64(),
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

fn fault(error: reqwest::Error) -> LineFault {
    if error.is_timeout() {
        return LineFault::Slow;
    }
    let untrusted = std::iter::successors(error.source(), |error| (*error).source()).any(is_tls);
    match (untrusted, error.is_connect()) {
        (true, _) => LineFault::Tls(error.into()),
        (false, true) => LineFault::Reach(error.into()),
        (false, false) => LineFault::Broken(error.into()),
    }
}

/// An I/O error does not name the one in it as its source, and TLS comes in two of them.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_tls(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_the_protocol_says_what_was_taken() {
        let said = |answer: &str| rejected(answer.as_bytes());
        for all in ["", "{}", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":{"errorMessage":"x"}}"#] {
            assert_eq!(said(all), Some(0), "{all}");
        }
        for three in ["\"3\"", "3"] {
            let answer = format!(r#"{{"partialSuccess":{{"rejectedLogRecords":{three},"errorMessage":"x"}},"new":1}}"#);
            assert_eq!(said(&answer), Some(3), "{three}");
        }
        for other in ["<!doctype html>", "ok", "[]", "\"\"", r#"{"partialSuccess":{"rejectedLogRecords":"-1"}}"#] {
            assert_eq!(said(other), None, "{other}");
        }
    }

    #[test]
    fn a_busy_receiver_says_when_in_seconds_or_by_a_date() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
