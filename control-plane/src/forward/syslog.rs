//! Records as syslog messages (RFC 5424), framed by their length (RFC 6587, section 3.4.1; RFC 5425, section 4.3).
//!
//! What is said stands in the message as one JSON object, the line of an export: its control characters are escaped, and
//! the length in front says where the message ends. No text in a record can end a message or begin another.

use crate::api::export;
use crate::model::{AdminRecord, AuditRecord};
use jiff::Timestamp;
use std::io::Write as _;

/// The facility for the log's audit.
const FACILITY: u8 = 13;
/// Severities.
const WARNING: u8 = 4;
const NOTICE: u8 = 5;

/// Adds a decision. A denial is a warning.
///
/// # Errors
/// If it can't be written as JSON.
pub fn decision(frames: &mut Vec<u8>, record: AuditRecord) -> serde_json::Result<()> {
    let severity = if record.event.outcome == "deny" { WARNING } else { NOTICE };
    let at = record.event.at;
    frame(frames, severity, at, "decision", &serde_json::to_vec(&export::decision(record))?);
    Ok(())
}

/// Adds an administrative change.
///
/// # Errors
/// If it can't be written as JSON.
pub fn change(frames: &mut Vec<u8>, record: AdminRecord) -> serde_json::Result<()> {
    let at = record.at;
    frame(frames, NOTICE, at, "change", &serde_json::to_vec(&export::change(record))?);
    Ok(())
}

/// No host, no process and no structured data: the receiver knows the connection, and the rest is in the object. The
/// byte-order mark says that it is UTF-8 (section 6.4).
fn frame(frames: &mut Vec<u8>, severity: u8, at: Timestamp, kind: &str, object: &[u8]) {
    let head = format!("<{}>1 {at:.3} - bouncer-control-plane - {kind} - \u{feff}", FACILITY * 8 + severity);
    // Writing to memory does not fail.
    let _ = write!(frames, "{} {head}", head.len() + object.len());
    frames.extend_from_slice(object);
}
