//! The sandbox, tried from inside: a child process puts itself into it by the resolver's own function, and then tries what
//! it must not. The same child without it is the control: there, every attempt is let through.
//!
//! What this kernel does not have is printed as "not checked", never passed over in silence.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use bouncer_resolver::config::{Config, Sandbox};
use bouncer_resolver::harden::{self, Level};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::{DumpableBehavior, Resource, set_dumpable_behavior};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::Command;

/// In the child's environment: its folder. Its presence makes a child of it.
const FOLDER: &str = "SANDBOX_TEST_FOLDER";
/// "yes", "no" or "twice".
const CONFINED: &str = "SANDBOX_TEST_CONFINED";
/// A server's port that the configuration names, and one that it does not.
const PORTS: &str = "SANDBOX_TEST_PORTS";

/// System calls that the resolver has no use for, by their names. With these arguments each fails in a kernel that has
/// it, for another reason than being unknown, and does nothing.
const CALLS: &[(&str, libc::c_long)] = &[
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("fsopen", libc::SYS_fsopen),
    ("move_mount", libc::SYS_move_mount),
    ("open_tree", libc::SYS_open_tree),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("kexec_load", libc::SYS_kexec_load),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("setuid", libc::SYS_setuid),
    ("setgid", libc::SYS_setgid),
    ("setresuid", libc::SYS_setresuid),
    ("setresgid", libc::SYS_setresgid),
    ("setgroups", libc::SYS_setgroups),
    ("capset", libc::SYS_capset),
    ("swapon", libc::SYS_swapon),
    ("reboot", libc::SYS_reboot),
    ("memfd_create", libc::SYS_memfd_create),
    ("kill", libc::SYS_kill),
    ("seccomp", libc::SYS_seccomp),
    ("acct", libc::SYS_acct),
    ("quotactl", libc::SYS_quotactl),
];

/// The other attempts that the filter of system calls refuses; Landlock refuses the rest.
const BY_SECCOMP: [&str; 4] =
    ["run a program", "be dumped again", "change its limits", "have memory both writable and executable"];

/// The error of a system call all of whose arguments are -1: no address, descriptor, flag or id that exists.
fn errno_of(call: libc::c_long) -> i32 {
    #[expect(
        unsafe_code,
        reason = "system calls that no safe interface offers; -1 is no valid address, so that none is followed"
    )]
    // SAFETY: the kernel checks every argument, and takes -1 for none of its own or ours.
    let result = unsafe { libc::syscall(call, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64) };
    if result == -1 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

fn writable_and_executable() -> io::Result<()> {
    let rights = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
    #[expect(unsafe_code, reason = "mapping memory has no safe interface")]
    // SAFETY: a fresh private mapping at an address of the kernel's choice, which nothing uses.
    let mapped = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, rights, MapFlags::PRIVATE) };
    Ok(mapped.map(drop)?)
}

/// "yes", "no" where the sandbox refused, or how else it failed.
fn tried<T>(result: io::Result<T>) -> String {
    match result.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) => "yes".to_owned(),
        Err((Some(libc::EACCES | libc::ENOSYS), _)) => "no".to_owned(),
        Err((_, error)) => error.to_string(),
    }
}

/// What the child says: each attempt and its outcome, one a line.
fn attempts(folder: &Path) -> String {
    let ports = std::env::var(PORTS).unwrap();
    let (named, other) = ports.split_once(' ').unwrap();
    let (state, outside) = (folder.join("state"), folder.join("outside"));
    let mut said = String::new();
    let mut say = |what: &str, outcome: String| writeln!(said, "{what}={outcome}").unwrap();
    say("may write its state", tried(fs::write(state.join("new"), "x")));
    say("may replace its state", tried(fs::rename(state.join("new"), state.join("old"))));
    say("may remove its state", tried(fs::remove_file(state.join("old"))));
    say("may listen in a socket's folder", tried(std::os::unix::net::UnixListener::bind(folder.join("run/s"))));
    say("may read resolv.conf's folder", tried(fs::read_dir("/etc")));
    say("may resolve a name", tried(("localhost", 443).to_socket_addrs()));
    say("may reach a server that is configured", tried(TcpStream::connect(format!("127.0.0.1:{named}"))));
    say("may start a thread", tried(std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().is_ok())));
    say("read a file elsewhere", tried(fs::read(outside.join("file"))));
    say("list a folder elsewhere", tried(fs::read_dir(&outside)));
    say("write a file elsewhere", tried(fs::write(outside.join("new"), "x")));
    say("read other processes", tried(fs::read_dir("/proc")));
    say("read a file in a socket's folder", tried(fs::read(folder.join("run/file"))));
    say("reach another port", tried(TcpStream::connect(format!("127.0.0.1:{other}"))));
    say("listen on another port", tried(TcpListener::bind("127.0.0.1:0")));
    say("run a program", tried(Command::new("/bin/true").status()));
    say("be dumped again", tried(set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(io::Error::from)));
    let files = rustix::process::getrlimit(Resource::Nofile);
    say("change its limits", tried(rustix::process::setrlimit(Resource::Nofile, files).map_err(io::Error::from)));
    say("have memory both writable and executable", tried(writable_and_executable()));
    for (name, call) in CALLS {
        say(name, if errno_of(*call) == libc::ENOSYS { "no".to_owned() } else { "yes".to_owned() });
    }
    said
}

/// Not a test of its own: the other side of those below, which run it in a process of its own.
#[test]
#[ignore = "run by the tests of this file, in a process of its own"]
fn child() {
    let folder = std::env::var_os(FOLDER).expect("run by the tests of this file");
    let folder = Path::new(&folder);
    let mut said = String::new();
    if std::env::var(CONFINED).unwrap() != "no" {
        let mut config = Config::load(&folder.join("resolver.toml"), true).unwrap();
        harden::close_to_others();
        let confinement = harden::confine(&config).unwrap();
        writeln!(
            said,
            "the layer landlock={}\nthe layer seccomp={}",
            confinement.landlock.code(),
            confinement.seccomp.code()
        )
        .unwrap();
        if std::env::var(CONFINED).unwrap() == "twice" {
            let without = harden::confine(&config).unwrap();
            config.sandbox = Sandbox::Enforce;
            let refused = harden::confine(&config).unwrap_err().to_string().replace('=', ":");
            writeln!(said, "without={} {}", without.landlock.code(), without.seccomp.code()).unwrap();
            writeln!(said, "refused={refused}").unwrap();
        }
    }
    said.push_str(&attempts(folder));
    print!("\n{said}");
}

/// Runs the child; what it said, by attempt.
fn run(folder: &Path, confined: &str, ports: &str) -> BTreeMap<String, String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(CONFINED, confined)
        .env(PORTS, ports)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter_map(|line| line.split_once('=')).map(|(what, how)| (what.to_owned(), how.to_owned())).collect()
}

/// Shown whether or not the test's output is.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Lays out a resolver's folders beside one that is none of its business.
fn lay_out(folder: &Path, kms_port: u16) {
    for name in ["state", "run", "outside"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    fs::write(folder.join("outside/file"), "x").unwrap();
    fs::write(folder.join("run/file"), "x").unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::new(vec!["ca.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    fs::write(folder.join("sds.key"), "ab".repeat(32)).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    let text = include_str!("../resolver.example.toml")
        .replace("/etc/bouncer/payments-ca.pem", &at("ca.pem"))
        .replace("/run/bouncer/", &format!("{}/", at("run")))
        .replace(&at("run/sds.key"), &at("sds.key"))
        .replace("/var/lib/bouncer", &at("state"))
        .replace("https://kms.ca-central-1.amazonaws.com", &format!("http://127.0.0.1:{kms_port}"));
    fs::write(folder.join("resolver.toml"), text).unwrap();
}

#[test]
fn what_the_resolver_has_no_use_for_is_out_of_reach() {
    let folder = tempfile::tempdir().unwrap();
    let (named, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    lay_out(folder.path(), port(&named));
    let ports = format!("{} {}", port(&named), port(&other));
    let control = run(folder.path(), "no", &ports);
    let _ = fs::remove_file(folder.path().join("run/s"));
    let confined = run(folder.path(), "yes", &ports);
    let level = |layer: &str| confined[&format!("the layer {layer}")].as_str();

    let mut checked = 0;
    for (what, outcome) in &control {
        let is_call = CALLS.iter().any(|(name, _)| name == what);
        let layer = if is_call || BY_SECCOMP.contains(&what.as_str()) { "seccomp" } else { "landlock" };
        if is_call && outcome == "no" {
            note(&format!("not checked: this kernel has no {what}"));
            continue;
        }
        assert_eq!(outcome, "yes", "without the sandbox: {what}");
        if what.starts_with("may ") {
            assert_eq!(confined[what], "yes", "within the sandbox: {what}");
        } else if level(layer) == Level::Enforced.code() {
            assert_eq!(confined[what], "no", "within the sandbox: {what}");
            checked += 1;
        } else {
            note(&format!("not checked: {what}, since {layer} is {} on this kernel", level(layer)));
        }
    }
    note(&format!("{checked} attempts were refused; landlock {}, seccomp {}", level("landlock"), level("seccomp")));
}

/// Within the sandbox no other can be made: the kernel answers as one that has neither layer.
#[test]
fn on_a_kernel_without_a_sandbox_best_effort_says_so_and_enforce_refuses() {
    let folder = tempfile::tempdir().unwrap();
    lay_out(folder.path(), 1);
    let said = run(folder.path(), "twice", "1 2");
    if said["the layer seccomp"] != Level::Enforced.code() {
        return note("not checked: a kernel without a sandbox, since this one has no filter of system calls to act it");
    }
    assert_eq!(said["without"], "unavailable unavailable");
    let refused = &said["refused"];
    assert!(refused.contains("Landlock is unavailable") && refused.contains("Linux 6.12"), "{refused}");
}
