//! Which processor core does what, and how much of its time a process used.

use bouncer_tests::{Fault, Result, fault::Doing as _};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fmt;
use std::time::Duration;

/// The core of the proxies, and the others.
pub(crate) struct Cores {
    proxy: Option<usize>,
    total: usize,
}

impl Cores {
    /// Takes the last core for the proxies and moves this thread, and what it starts from now on, to the others. With
    /// one core there is nothing to split.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(crate) fn split() -> Result<Self> {
        let mut own = sched_getaffinity(None)?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| own.is_set(*core)).collect();
        let proxy = if let [_, .., last] = allowed[..] { Some(last) } else { None };
        if let Some(core) = proxy {
            own.unset(core);
            sched_setaffinity(None, &own)?;
        }
        Ok(Self { proxy, total: allowed.len() })
    }

    /// Moves all threads of a process to the core of the proxies.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn give_proxy_core(&self, pid: u32) -> Result<()> {
        let Some(core) = self.proxy else { return Ok(()) };
        let mut set = CpuSet::new();
        set.set(core);
        for thread in threads(pid)? {
            sched_setaffinity(Pid::from_raw(i32::try_from(thread)?), &set)?;
        }
        Ok(())
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proxy {
            Some(core) => write!(f, "{} cores: the proxies on core {core}, the rest elsewhere", self.total),
            None => write!(f, "everything on one core"),
        }
    }
}

fn threads(pid: u32) -> Result<Vec<u32>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).doing("the process's threads")?;
    Ok(tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The processor time that a process has used so far.
///
/// # Errors
/// If it has ended.
pub(crate) fn used(pid: u32) -> Result<Duration> {
    // In nanoseconds, where the kernel counts them; threads of these processes do not end.
    let mut total = 0;
    for thread in threads(pid)? {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).unwrap_or_default();
        total += text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0_u64);
    }
    if total > 0 {
        return Ok(Duration::from_nanos(total));
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).doing("the process's processor time")?;
    // The name, in parentheses, may hold anything; utime and stime are the 14th and 15th field.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    let second = rustix::param::clock_ticks_per_second();
    Duration::from_secs(ticks).checked_div(u32::try_from(second)?).ok_or_else(|| Fault::new("no clock ticks"))
}
