//! How many connections there may be: each takes a file descriptor, and shells and service managers often start a
//! process with 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for the database, the API and the log.
const KEPT: u64 = 512;
/// What is meant to be enough for one control plane.
const MOST: u32 = 16_384;
/// Fewer than these are said.
const FEW: u32 = 4_096;

/// Raises the limit as far as the system lets us, and tells how many connections of bouncers fit below it.
#[must_use]
pub fn raise() -> u32 {
    let limits = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum });
    let limit = if raised.is_ok() { limits.maximum } else { limits.current };
    let connections = connections(limit);
    if connections < FEW {
        tracing::warn!(
            file_descriptors = limit.unwrap_or(u64::MAX),
            connections,
            "few file descriptors: only so many resolvers can be connected at once. Raise the limit (ulimit -n, \
             LimitNOFILE=, the container's ulimits) where there are more"
        );
    }
    connections
}

/// How many fit below a limit; `None` for no limit.
fn connections(limit: Option<u64>) -> u32 {
    let Some(limit) = limit else { return MOST };
    // Of a very low limit half, so that there is something for both.
    let left = limit.saturating_sub(KEPT).max(limit / 2);
    u32::try_from(left).unwrap_or(MOST).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(connections(None), MOST);
        assert_eq!(connections(Some(u64::MAX)), MOST);
        assert_eq!(connections(Some(10_512)), 10_000);
        assert_eq!(connections(Some(256)), 128);
        assert_eq!(connections(Some(0)), 1);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        assert!(raise() >= 1);
        let after = getrlimit(Resource::Nofile);
        assert_eq!((after.current, after.maximum), (before.maximum, before.maximum));
    }
}
