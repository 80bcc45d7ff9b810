//! The resolver as it runs at a customer's: a user of its own without any privilege, whom SPIRE attests, and whose memory
//! no other process of that user can read or have dumped.

use bouncer_tests::client::Protocol;
use bouncer_tests::process::Process;
use bouncer_tests::resolver::NOBODY;
use bouncer_tests::stack::{CART, Stack};
use bouncer_tests::{Fault, Result, fault::Doing as _};
use rustix::process::{Signal, getuid};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

/// Whether the process can be dumped, and looked into by others of its user: else its files in `/proc` are root's.
fn can_be_dumped(process: &Process) -> Result<bool> {
    let file = format!("/proc/{}/mem", process.pid());
    Ok(std::fs::metadata(&file).doing(&file)?.uid() != 0)
}

/// A field of the process's status, as the kernel has it.
fn status(process: &Process, field: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.ok_or_else(|| Fault::new(format!("no {field}")))?.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unprivileged_resolver_has_its_identity_by_spire_and_can_be_neither_dumped_nor_read() -> Result<()> {
    let mut builder = Stack::builder("unprivileged").unprivileged();
    if getuid().is_root() {
        // SPIRE's agent sees whose a process is; of a user's own it would have to read what the resolver keeps closed.
        builder = builder.spire();
    }
    let stack = builder.start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let peer = client.get("/").await?.seen()?.peer;
    assert_eq!(peer.map(|peer| peer.common_name).as_deref(), Some("payments-api"));
    // Both kinds of SVID: one opens the bridge, the other buys AWS credentials.
    stack.audited("the injection", |event| event["outcome"] == "inject").await?;
    assert_eq!(stack.kms.proxy().count("AssumeRoleWithWebIdentity"), 1);

    let resolver = stack.resolver()?.process();
    let user = if getuid().is_root() { NOBODY } else { getuid().as_raw() };
    assert_eq!(status(resolver, "Uid")?, [user; 4].map(|uid| uid.to_string()).join("\t"));
    assert_eq!((status(resolver, "CapEff")?.trim_start_matches('0'), &*status(resolver, "NoNewPrivs")?), ("", "1"));
    assert!(!can_be_dumped(resolver)?);
    // The control: a process of the same user that did not close itself.
    let mut command = Command::new("sleep");
    command.arg("60");
    if getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let control = Process::spawn("control", &stack.scratch, command)?;
    assert!(can_be_dumped(&control)? || user == 0);

    // A crash leaves no core, in whatever way cores are kept on this machine.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", resolver.pid()))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["1", "1", "bytes"], "{core}");
    resolver.signal(Signal::ABORT)?;
    let ended = stack.until("the crash", Duration::from_secs(10), || async { resolver.exited() }).await?;
    let core_dumped = std::os::unix::process::ExitStatusExt::core_dumped(&ended);
    assert!(!core_dumped, "{ended}");
    Ok(())
}
