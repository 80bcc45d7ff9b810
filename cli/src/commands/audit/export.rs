//! `audit export`: the audit with its evidence, into a file that is whole or not there.

use super::EvidenceError;
use crate::args::{AuditExport, ExportFormat};
use crate::control_plane::ControlPlane;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::progress::Tally;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

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
    let mut file = Unfinished::create(&options.out)?;
    let mut tally = Tally::new(output.is_json());
    fetch(api, &query, &mut tally, |bytes| Ok(file.write(bytes)?)).await?;
    let (lines, bytes) = tally.so_far();
    drop(tally);
    file.finish()?;
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

/// A file under another name until it is whole; readable by its owner only, as the audit says who calls whom.
struct Unfinished {
    file: File,
    part: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    fn create(path: &Path) -> Result<Self, EvidenceError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let unwritable = |source| EvidenceError::Unwritable { path: path.to_owned(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        Ok(Self { file: file.map_err(unwritable)?, part, path: path.to_owned(), finished: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), EvidenceError> {
        self.file.write_all(bytes).map_err(|source| EvidenceError::Unwritable { path: self.path.clone(), source })
    }

    fn finish(mut self) -> Result<(), EvidenceError> {
        let done = self.file.sync_all().and_then(|()| fs::rename(&self.part, &self.path));
        done.map_err(|source| EvidenceError::Unwritable { path: self.path.clone(), source })?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // There is nothing left to do about a file that can't be removed.
            let _left = fs::remove_file(&self.part);
        }
    }
}
