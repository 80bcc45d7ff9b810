//! What the process gives up: being dumped and traced, new privileges, and, in its sandbox, every file, port and system
//! call that it has no use for.
//!
//! `main` calls [`close_to_others`] and then [`confine`] while it has one thread. Landlock binds the calling thread and
//! those that it starts later; before Linux 7.0 it cannot bind threads that run already. Confined after the start, the
//! runtime's workers would stay free. So what the start itself needs (binding the sockets, reading the CA certificates)
//! is among what is allowed. Nothing here is ever loosened again.

mod landlock;
mod seccomp;

use crate::config::{Config, Sandbox};

/// How far one layer of the sandbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// All that was asked for.
    Enforced,
    /// What this kernel knows of it.
    Partial,
    /// Nothing: this kernel has no such thing, or it is switched off.
    Unavailable,
    /// Not asked for.
    Off,
}

impl Level {
    /// The word for it in metrics, logs and readiness.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Partial => "partial",
            Self::Unavailable => "unavailable",
            Self::Off => "off",
        }
    }
}

/// How the sandbox stands; it does not change while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// Files, TCP ports, signals and abstract sockets.
    pub landlock: Level,
    /// System calls.
    pub seccomp: Level,
}

/// Why the process is not confined as `process.sandbox = "enforce"` wants it.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Landlock holds in part or not at all.
    #[error(
        "process.sandbox is \"enforce\", and Landlock is {}. It needs Linux 6.12 or later with \"landlock\" in the kernel's \
         lsm= list (see /sys/kernel/security/lsm), and a container runtime that lets its calls through. Update the kernel, \
         or set process.sandbox = \"best-effort\"",
        .0.code()
    )]
    Landlock(Level),
    /// The filter of system calls could not be set.
    #[error(
        "process.sandbox is \"enforce\", and the filter of system calls is {}. It needs a kernel with CONFIG_SECCOMP_FILTER \
         on x86_64 or aarch64. Use one, or set process.sandbox = \"best-effort\"",
        .0.code()
    )]
    Seccomp(Level),
}

/// No core dumps, no tracing by other processes of the same user, no new privileges.
pub fn close_to_others() {
    // Looked up once and kept. Before Linux 6.4 that reads a file of /proc, which is out of reach afterwards.
    let _ = rustix::param::page_size();
    // Not 0: Linux does not heed that where cores go to a program, and takes 1 for none in either case (core(5)).
    let no_core = rustix::process::Rlimit { current: Some(1), maximum: Some(1) };
    let core = rustix::process::setrlimit(rustix::process::Resource::Core, no_core);
    let dump = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let privileges = rustix::thread::set_no_new_privs(true);
    for (what, done) in [("core dumps", core), ("dumpability", dump), ("new privileges", privileges)] {
        if let Err(error) = done {
            tracing::warn!(%error, what, "could not be switched off");
        }
    }
}

/// Puts the process into its sandbox, for good. The state folder must be there.
///
/// # Errors
/// [`ConfineError`], only under `process.sandbox = "enforce"`; otherwise what could not be had is logged and returned.
pub fn confine(config: &Config) -> Result<Confinement, ConfineError> {
    if config.sandbox == Sandbox::Off {
        return Ok(Confinement { landlock: Level::Off, seccomp: Level::Off });
    }
    // In this order: the filter leaves no way to Landlock.
    let landlock = landlock::restrict(config).unwrap_or_else(|error| {
        tracing::warn!(%error, "Landlock could not be set up");
        Level::Unavailable
    });
    let seccomp = seccomp::restrict().map_or_else(
        |error| {
            tracing::warn!(%error, "the filter of system calls could not be set up");
            Level::Unavailable
        },
        |()| Level::Enforced,
    );
    if config.sandbox == Sandbox::Enforce {
        if landlock != Level::Enforced {
            return Err(ConfineError::Landlock(landlock));
        }
        if seccomp != Level::Enforced {
            return Err(ConfineError::Seccomp(seccomp));
        }
    }
    if (landlock, seccomp) == (Level::Enforced, Level::Enforced) {
        tracing::info!("the sandbox holds: Landlock and the filter of system calls are enforced");
    } else {
        tracing::warn!(
            landlock = landlock.code(),
            seccomp = seccomp.code(),
            "this kernel gives less than the whole sandbox; process.sandbox = \"enforce\" would refuse to start on it"
        );
    }
    Ok(Confinement { landlock, seccomp })
}
