//! Ports for servers of a test.
//!
//! The suites of the control plane and the resolver have this file as their own, too; so it needs nothing but the standard
//! library.

use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A port of the loopback address that nobody uses, from below the range that the kernel takes for outgoing
/// connections, so that none of those can take it before a server does.
///
/// # Errors
/// If none is free.
pub fn free_port() -> Result<u16> {
    // Only spreads the search: two test processes begin at different places, two threads never try the same.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    let start = std::process::id().wrapping_mul(97) % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = (start + NEXT.fetch_add(1, Ordering::Relaxed) % u32::from(COUNT)) % u32::from(COUNT);
        let port = FIRST + u16::try_from(step).unwrap_or_default();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::new(ErrorKind::AddrInUse, "no free port on 127.0.0.1"))
}
