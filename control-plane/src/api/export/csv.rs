//! Rows for spreadsheets (RFC 4180). A cell that a spreadsheet would take for a formula is made text by an apostrophe.

use serde_json::Value;

const COLUMNS: [&str; 32] = [
    "type",
    "time",
    "bouncer",
    "outcome",
    "reason",
    "caller",
    "resource",
    "logical_path",
    "generation",
    "key_id",
    "aad_sha256",
    "cluster",
    "destination",
    "authority",
    "backend_request_id",
    "decision_id",
    "count",
    "dev",
    "received_at",
    "actor",
    "action",
    "subject",
    "detail",
    "kind",
    "id",
    "owner",
    "chain",
    "sequence",
    "head",
    "number",
    "algorithm",
    "signature",
];

/// The columns' names.
pub(super) fn head(into: &mut Vec<u8>) {
    into.extend_from_slice(COLUMNS.join(",").as_bytes());
    into.extend_from_slice(b"\r\n");
}

/// One line of the export. Certificates and commitments are left out: what is to be verified is exported as JSON lines.
pub(super) fn row(line: &Value, into: &mut Vec<u8>) {
    for (i, column) in COLUMNS.iter().enumerate() {
        if i > 0 {
            into.push(b',');
        }
        match line.get(column) {
            Some(Value::String(text)) => cell(text, into),
            None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => {}
            Some(other) => into.extend_from_slice(other.to_string().as_bytes()),
        }
    }
    into.extend_from_slice(b"\r\n");
}

fn cell(text: &str, into: &mut Vec<u8>) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let quoted = text.contains([',', '"', '\r', '\n', ';', '\t']) || text.starts_with(' ') || text.ends_with(' ');
    if quoted {
        into.push(b'"');
    }
    if formula {
        into.push(b'\'');
    }
    for byte in text.bytes() {
        if byte == b'"' {
            into.push(byte);
        }
        into.push(byte);
    }
    if quoted {
        into.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut bytes = Vec::new();
        cell(text, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn cells_are_quoted_and_are_no_formulas() {
        assert_eq!(written("plain"), "plain");
        assert_eq!(written("a,b"), "\"a,b\"");
        assert_eq!(written("say \"so\""), "\"say \"\"so\"\"\"");
        assert_eq!(written("a\r\nb"), "\"a\r\nb\"");
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"] {
            assert!(written(formula).trim_start_matches('"').starts_with('\''), "{formula}");
        }
        assert_eq!(written("=HYPERLINK(\"http://x\",\"y\")"), "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"");
        assert_eq!(written("a=b"), "a=b");
    }

    #[test]
    fn a_row_has_every_column() {
        let mut bytes = Vec::new();
        head(&mut bytes);
        row(&serde_json::json!({"type": "event", "count": 3, "dev": false, "certificates": ["x"]}), &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let [names, cells] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!(names.split(',').count(), cells.split(',').count());
        let at = names.split(',').position(|name| name == "count").unwrap();
        assert_eq!(cells.split(',').nth(at), Some("3"));
    }
}
