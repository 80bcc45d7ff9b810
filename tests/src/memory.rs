//! How much memory a process holds of its own, for the benchmarks.

use crate::{Fault, Result, fault::Doing as _};
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Looks without a change of more than a hundredth, until it counts as settled.
const STILL: usize = 4;
/// No more looks than these.
const LOOKS: usize = 60;

/// Its anonymous memory in bytes, once it no longer changes.
///
/// # Errors
/// If the process has ended.
pub async fn settled(pid: u32) -> Result<u64> {
    let (mut last, mut still) = (anonymous(pid)?, 0);
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = anonymous(pid)?;
        still = if now.abs_diff(last) * 100 <= now { still + 1 } else { 0 };
        last = now;
        if still == STILL {
            break;
        }
    }
    Ok(last)
}

fn anonymous(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).doing("the process's memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1_024).ok_or_else(|| Fault::new("the kernel does not tell RssAnon"))
}
