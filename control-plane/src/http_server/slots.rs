//! Who may have a connection: so many at once, and of these so many of one address. Used by the listeners.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often it is said that there was no slot.
const SAY: Duration = Duration::from_secs(60);

/// Whom an address stands for. Of IPv6 one machine has a whole /64 network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// The slots of a listener.
pub(crate) struct Slots {
    listener: &'static str,
    most: u32,
    of_one: u32,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: u32,
    by: HashMap<IpAddr, u32>,
    said: Option<Instant>,
}

/// One slot, until it is dropped.
pub(crate) struct Slot {
    address: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Slots {
    /// So many for the listener of this key, and so many of them for one [`network`].
    pub(crate) fn new(listener: &'static str, most: u32, of_one: u32) -> Self {
        Self { listener, most, of_one, taken: Arc::default() }
    }

    /// A slot, if there is one.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Slot> {
        let mut taken = lock(&self.taken);
        let all = taken.all;
        let of_one = taken.by.get(&address).copied().unwrap_or_default();
        if all >= self.most || of_one >= self.of_one {
            if taken.said.is_none_or(|said| said.elapsed() >= SAY) {
                taken.said = Some(Instant::now());
                tracing::warn!(
                    listener = self.listener, connections = all, %address, of_this_address = of_one,
                    "no more connections are taken, in all or of this address"
                );
            }
            return None;
        }
        taken.all += 1;
        taken.by.insert(address, of_one + 1);
        Some(Slot { address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(of_one) = taken.by.get_mut(&self.address) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.by.remove(&self.address);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_slots_for_others() {
        let slots = Slots::new("here", 5, 2);
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let first: Vec<_> = (0..3).filter_map(|_| slots.take(address(1))).collect();
        assert_eq!(first.len(), 2);
        let others: Vec<_> = (2..9).filter_map(|last| slots.take(address(last))).collect();
        assert_eq!(others.len(), 3, "five in all");
        drop(first);
        assert!(slots.take(address(1)).is_some());
        drop(others);
        let taken = lock(&slots.taken);
        assert!(taken.all == 0 && taken.by.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn an_address_of_ipv6_stands_for_its_network() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
