//! Which system calls stay in reach (seccomp(2)). [`super::confine`] calls it.
//!
//! A list of what is allowed, found by tracing every scenario and kept a little wider for other kernels and C libraries. What
//! is not on it answers `ENOSYS`, as on a kernel that is too old: C libraries try newer calls first and fall back on that
//! answer alone. So no program can be run, no process started, traced or read, nothing mounted, loaded or made writable
//! and executable, no identity changed; a call that a future library adds fails softly.

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Allowed with any arguments.
const ALWAYS: &[c_long] = &[
    // Files that are open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_getdents64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_pipe2,
    // Paths, as far as Landlock and the file's own mode allow.
    libc::SYS_openat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_getcwd,
    // Sockets that are open, and waiting.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    // Threads, and their end.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // Signals to itself; see `when` for sending them.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time, randomness, and what the process is.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
];

/// The same under names that not every architecture has.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_access,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_renameat,
    libc::SYS_mkdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
/// `renameat`, which libc has no name for on this architecture, and rename(3) uses.
#[cfg(target_arch = "aarch64")]
const OLD: &[c_long] = &[38];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OLD: &[c_long] = &[];

/// Sets the filter for all threads.
pub(super) fn restrict() -> Result<(), Error> {
    seccompiler::apply_filter_all_threads(&program()?)
}

fn program() -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = when()?.into_iter().collect();
    rules.extend(ALWAYS.iter().chain(OLD).map(|call| (*call, vec![])));
    let refused = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?.try_into()
}

/// Allowed with some arguments only: for each call, ways to call it.
fn when() -> Result<Vec<(i64, Vec<SeccompRule>)>, BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq};
    /// Every flag of clone(2) that makes a namespace.
    const NAMESPACES: i32 = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    /// The type of a socket without its flags (socket(2)).
    const KIND: u64 = 0xf;
    let number = |value: i32| u64::from(value.unsigned_abs());
    let is = |index: u8, value: u64| (index, SeccompCmpArgLen::Dword, Eq, value);
    let masked = |index: u8, mask: u64, value: u64| (index, SeccompCmpArgLen::Dword, MaskedEq(mask), value);
    let (thread, exec, write) = (number(libc::CLONE_THREAD), number(libc::PROT_EXEC), number(libc::PROT_WRITE));
    let (stream, datagram) = (number(libc::SOCK_STREAM), number(libc::SOCK_DGRAM));
    let (inet, inet6) = (number(libc::AF_INET), number(libc::AF_INET6));
    let own = u64::from(std::process::id());
    let ways = [
        // Threads and no processes. clone3 hides its flags from a filter; C libraries then take clone.
        (libc::SYS_clone, vec![vec![masked(0, thread | number(NAMESPACES), thread)]]),
        // Unix sockets, TCP, UDP, and the routes that name resolution asks for; none that is raw.
        (
            libc::SYS_socket,
            vec![
                vec![is(0, number(libc::AF_UNIX))],
                vec![is(0, inet), masked(1, KIND, stream)],
                vec![is(0, inet), masked(1, KIND, datagram)],
                vec![is(0, inet6), masked(1, KIND, stream)],
                vec![is(0, inet6), masked(1, KIND, datagram)],
                vec![is(0, number(libc::AF_NETLINK)), is(2, number(libc::NETLINK_ROUTE))],
            ],
        ),
        // Never writable and executable at once; libraries (of name resolution) may still be loaded.
        (libc::SYS_mmap, vec![vec![masked(2, exec, 0)], vec![masked(2, write, 0)]]),
        (libc::SYS_mprotect, vec![vec![masked(2, exec, 0)]]),
        // A thread's name. Not its dumpability.
        (libc::SYS_prctl, vec![vec![is(0, number(libc::PR_SET_NAME))]]),
        // To read limits, not to set them.
        (libc::SYS_prlimit64, vec![vec![(2, SeccompCmpArgLen::Qword, Eq, 0)]]),
        // To abort.
        (libc::SYS_tgkill, vec![vec![is(0, own)]]),
        (
            libc::SYS_ioctl,
            [libc::FIONBIO, libc::FIONREAD, libc::TCGETS, libc::TIOCGWINSZ]
                .map(|request| vec![is(1, u64::from(request as u32))])
                .to_vec(),
        ),
    ];
    let rule = |conditions: Vec<(u8, SeccompCmpArgLen, SeccompCmpOp, u64)>| {
        let conditions: Result<Vec<_>, _> = conditions
            .into_iter()
            .map(|(index, length, operation, value)| SeccompCondition::new(index, length, operation, value))
            .collect();
        SeccompRule::new(conditions?)
    };
    ways.into_iter().map(|(call, ways)| Ok((call, ways.into_iter().map(rule).collect::<Result<_, _>>()?))).collect()
}
