//! `audit export`: the audit with its evidence, into a file that is whole or not there.

use super::EvidenceError;
use crate::args::{AuditExport, ExportFormat};
use crate::control_plane::ControlPlane;
use crate::failure::{Exit, Failure};
use crate::files::Unfinished;
use crate::output::Output;
use crate::progress::Tally;
use serde_json::json;
use std::io::Write as _;
use std::path::Path;

/// Runs the command.
///
/// # Errors
/// [`Failure`]; no file is left behind then.
pub(super) async fn export(options: &AuditExport, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    let format = match options.format {
        ExportFormat::Jsonl => "jsonl",
        ExportFormat::Csv => "csv",
    };
    let mut query = vec![("format", format.to_owned())];
    let optional = [
        ("from", options.from.map(|time| time.to_string())),
        ("to", options.to.map(|time| time.to_string())),
        ("bouncer", options.bouncer.as_ref().map(ToString::to_string)),
    ];
    query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    if options.out == Path::new("-") {
        let mut tally = Tally::new(true);
        fetch(api, &query, &mut tally, |bytes| std::io::stdout().lock().write_all(bytes).map_err(Failure::Output))
            .await?;
        return Ok(Exit::Ok);
    }
    let unwritable = |source| EvidenceError::Unwritable { path: options.out.clone(), source };
    // Readable by its owner only, as the audit says who calls whom.
    let mut file = Unfinished::create(&options.out, 0o600).map_err(unwritable)?;
    let mut tally = Tally::new(output.is_json());
    fetch(api, &query, &mut tally, |bytes| Ok(file.write(bytes).map_err(unwritable)?)).await?;
    let (lines, bytes) = tally.so_far();
    drop(tally);
    file.finish().map_err(unwritable)?;
    let path = options.out.display();
    if output.is_json() {
        output.json(&json!({"file": path.to_string(), "lines": lines, "bytes": bytes}))?;
    } else {
        output.text(&format!("wrote {lines} lines, {bytes} bytes, to {path}"))?;
    }
    Ok(Exit::Ok)
}

async fn fetch(
    api: &ControlPlane,
    query: &[(&str, String)],
    tally: &mut Tally,
    mut sink: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut response = api.open("/v1/audit/export", query).await?;
    while let Some(chunk) = api.chunk(&mut response).await? {
        tally.add(chunk.as_ref());
        sink(chunk.as_ref())?;
    }
    Ok(())
}
