//! Records as syslog messages (RFC 5424), framed by their length (RFC 6587, section 3.4.1; RFC 5425, section 4.3).
//!
//! What is said stands in the message as one JSON object, the line of an export: its control characters are escaped, and
//! the length in front says where the message ends. No text in a record can end a message or begin another.

pub(super) mod connection;

use super::record::Record;

pub(super) use connection::Receiver;

/// The facility for the log's audit.
const FACILITY: u8 = 13;
/// Severities.
const WARNING: u8 = 4;
const NOTICE: u8 = 5;

/// A record, framed. No host, no process and no structured data: the receiver knows the connection, and the rest is in
/// the object. The byte-order mark says that it is UTF-8 (section 6.4).
///
/// # Errors
/// If it can't be written as JSON.
pub(super) fn message(record: &Record) -> serde_json::Result<Vec<u8>> {
    let object = serde_json::to_string(&record.line)?;
    let priority = FACILITY * 8 + if record.warning { WARNING } else { NOTICE };
    let (at, kind) = (record.at, record.kind.as_str());
    let message = format!("<{priority}>1 {at:.3} - bouncer-control-plane - {kind} - \u{feff}{object}");
    Ok(format!("{} {message}", message.len()).into_bytes())
}
