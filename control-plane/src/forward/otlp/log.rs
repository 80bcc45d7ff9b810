//! Records as OpenTelemetry's log records, in the JSON that OTLP maps its protobuf messages to: names in
//! lowerCamelCase, 64-bit integers as text.
//!
//! The body is the line of an export, as it is: with chain, sequence and head in it. The attributes say the same field
//! by field, under `bouncer.` and the field's name, for whoever searches.

use super::super::record::Record;
use serde::Serialize;
use serde_json::Value;

/// What surrounds the records of a request: who speaks.
const HEAD: &str = concat!(
    r#"{"resourceLogs":[{"resource":{"attributes":["#,
    r#"{"key":"service.name","value":{"stringValue":"bouncer-control-plane"}},"#,
    r#"{"key":"service.version","value":{"stringValue":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}}]},"scopeLogs":[{"scope":{"name":"bouncer","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""},"logRecords":["#,
);
const TAIL: &str = "]}]}]}";

/// An `ExportLogsServiceRequest` of these records.
pub(super) fn request(records: &[Vec<u8>]) -> Vec<u8> {
    [HEAD.as_bytes(), &records.join(&b','), TAIL.as_bytes()].concat()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogRecord<'a> {
    time_unix_nano: String,
    observed_time_unix_nano: String,
    severity_number: u8,
    severity_text: &'static str,
    event_name: String,
    body: AnyValue<'a>,
    attributes: Vec<KeyValue<'a>>,
}

#[derive(Serialize)]
enum AnyValue<'a> {
    #[serde(rename = "stringValue")]
    Text(&'a str),
    #[serde(rename = "intValue")]
    Integer(String),
    #[serde(rename = "boolValue")]
    Flag(bool),
    #[serde(rename = "kvlistValue")]
    Fields(KeyValueList<'a>),
}

#[derive(Serialize)]
struct KeyValueList<'a> {
    values: Vec<KeyValue<'a>>,
}

#[derive(Serialize)]
struct KeyValue<'a> {
    key: String,
    value: AnyValue<'a>,
}

/// A record.
///
/// # Errors
/// If it can't be written as JSON.
pub(in crate::forward) fn log_record(record: &Record) -> serde_json::Result<Vec<u8>> {
    let line = serde_json::to_value(&record.line)?;
    let body = serde_json::to_string(&record.line)?;
    // As OpenTelemetry maps syslog's severities (Logs Data Model, appendix B).
    let (severity_number, severity_text) = if record.warning { (13, "WARNING") } else { (10, "NOTICE") };
    serde_json::to_vec(&LogRecord {
        time_unix_nano: nanoseconds(record.at),
        observed_time_unix_nano: nanoseconds(record.observed),
        severity_number,
        severity_text,
        event_name: format!("bouncer.{}", record.kind.as_str()),
        body: AnyValue::Text(&body),
        attributes: pairs("bouncer.", &line),
    })
}

/// Since 1970; 0, which is none, for a time that can't be written so.
fn nanoseconds(at: jiff::Timestamp) -> String {
    u64::try_from(at.as_nanosecond()).unwrap_or_default().to_string()
}

fn pairs<'a>(prefix: &str, object: &'a Value) -> Vec<KeyValue<'a>> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter_map(|(key, value)| Some(KeyValue { key: format!("{prefix}{key}"), value: any(value)? })).collect()
}

/// A line has no lists and no fractions.
fn any(value: &Value) -> Option<AnyValue<'_>> {
    Some(match value {
        Value::String(text) => AnyValue::Text(text),
        Value::Number(number) => AnyValue::Integer(number.to_string()),
        Value::Bool(flag) => AnyValue::Flag(*flag),
        Value::Object(_) => AnyValue::Fields(KeyValueList { values: pairs("", value) }),
        Value::Null | Value::Array(_) => return None,
    })
}
