//! The decisions of one VM, so that a warm stream is answered without a call.
//!
//! The key is every byte of the facts header; a look-up neither allocates nor parses. The number of entries is bounded
//! (CLOCK: an entry that was used since the hand last passed is spared once), and so is each key. The hash is seeded,
//! since the client chooses part of the key. An entry must never outlive its time, a flush or an invalidation.

use crate::decision::Decision;
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use std::cell::Cell;
use std::hash::{BuildHasher as _, Hasher as _};
use std::rc::Rc;

/// Longer keys are asked for every time.
pub const MAX_KEY_BYTES: usize = 1_024;

/// The cache.
#[derive(Debug)]
pub struct Cache {
    index: HashTable<u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    hand: usize,
    capacity: usize,
    seed: SeedableRandomState,
}

#[derive(Debug)]
struct Slot {
    key: Box<[u8]>,
    hash: u64,
    decision: Rc<Decision>,
    ends_ms: u64,
    used: Cell<bool>,
}

impl Cache {
    /// An empty cache of at most `capacity` entries.
    #[must_use]
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            capacity: capacity.max(1) as usize,
            seed: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
        }
    }

    /// The decision for these facts, if there is one that has not ended.
    #[must_use]
    pub fn get(&self, key: &[u8], now_ms: u64) -> Option<&Rc<Decision>> {
        let index = self.index.find(self.hash(key), |index| self.is(*index, key))?;
        let slot = self.slots.get(*index as usize)?.as_ref()?;
        if slot.ends_ms <= now_ms {
            return None;
        }
        slot.used.set(true);
        Some(&slot.decision)
    }

    /// Keeps a decision until `ends_ms`, in place of an earlier one for the same facts.
    pub fn insert(&mut self, key: &[u8], decision: Rc<Decision>, ends_ms: u64, now_ms: u64) {
        if key.len() > MAX_KEY_BYTES {
            return;
        }
        let hash = self.hash(key);
        let slot = Slot { key: key.into(), hash, decision, ends_ms, used: Cell::new(false) };
        if let Some(index) = self.index.find(hash, |index| self.is(*index, key)).copied() {
            self.slots[index as usize] = Some(slot);
            return;
        }
        if self.len() >= self.capacity {
            self.evict(now_ms);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // At most `capacity` slots exist, and that is a u32.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.slots[index as usize] = Some(slot);
        let slots = &self.slots;
        self.index.insert_unique(hash, index, |index| hash_of(slots, *index));
    }

    /// Drops every entry for which `void` holds.
    pub fn drop_where(&mut self, void: impl Fn(&Decision) -> bool) {
        for index in 0..self.slots.len() {
            if self.slots[index].as_ref().is_some_and(|slot| void(&slot.decision)) {
                self.remove(index);
            }
        }
    }

    /// Drops everything, and hashes with another seed from now on.
    pub fn flush(&mut self, seed: u64) {
        *self = Self::new(u32::try_from(self.capacity).unwrap_or(u32::MAX), seed);
    }

    /// How many entries there are, ended ones among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write(key);
        hasher.finish()
    }

    fn is(&self, index: u32, key: &[u8]) -> bool {
        matches!(self.slots.get(index as usize), Some(Some(slot)) if *slot.key == *key)
    }

    /// Removes one entry: the first that has ended or was not used since the hand last passed it.
    fn evict(&mut self, now_ms: u64) {
        // After one round no entry counts as used, so the second finds one.
        for _ in 0..=self.slots.len() * 2 {
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            match self.slots.get(self.hand) {
                Some(Some(slot)) if slot.ends_ms > now_ms && slot.used.replace(false) => {}
                Some(Some(_)) => return self.remove(self.hand),
                _ => {}
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(slot) = self.slots[index].take() else { return };
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if let Ok(entry) = self.index.find_entry(slot.hash, |other| *other == index) {
            entry.remove();
        }
        self.free.push(index);
    }
}

fn hash_of(slots: &[Option<Slot>], index: u32) -> u64 {
    slots.get(index as usize).and_then(Option::as_ref).map_or(0, |slot| slot.hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Outcome;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn decision(tag: &str) -> Rc<Decision> {
        Rc::new(Decision {
            cluster: "c".into(),
            id: Some("d".into()),
            outcome: Outcome::Inject(tag.into()),
            uses: Cell::new(0),
        })
    }

    fn tag(cache: &Cache, key: &[u8], now_ms: u64) -> Option<String> {
        cache.get(key, now_ms).and_then(|decision| decision.tag()).map(str::to_owned)
    }

    #[test]
    fn an_entry_lives_until_its_end_and_no_longer() {
        let mut cache = Cache::new(16, 1);
        cache.insert(b"k", decision("a"), 100, 0);
        assert_eq!(tag(&cache, b"k", 99).as_deref(), Some("a"));
        assert_eq!(tag(&cache, b"k", 100), None);
        cache.insert(b"k", decision("b"), 200, 100);
        assert_eq!((tag(&cache, b"k", 150).as_deref(), cache.len()), (Some("b"), 1));
    }

    #[test]
    fn the_hand_spares_what_is_used_and_takes_what_is_not() {
        let mut cache = Cache::new(16, 1);
        for n in 0..16_u8 {
            cache.insert(&[n], decision("t"), 100, 0);
        }
        for round in 16..200_u8 {
            assert!(cache.get(&[3], 0).is_some(), "the entry in use was evicted in round {round}");
            cache.insert(&[round], decision("t"), 100, 0);
            assert_eq!(cache.len(), 16);
        }
        assert_eq!(cache.slots.len(), 16);
    }

    #[test]
    fn huge_keys_are_not_kept() {
        let mut cache = Cache::new(16, 1);
        cache.insert(&[0; MAX_KEY_BYTES + 1], decision("t"), 100, 0);
        assert!(cache.is_empty());
    }

    #[test]
    fn a_look_up_shares_the_decision_and_copies_nothing() {
        let mut cache = Cache::new(16, 1);
        let one = decision("t");
        cache.insert(b"k", Rc::clone(&one), 100, 0);
        assert!(Rc::ptr_eq(cache.get(b"k", 0).unwrap(), &one));
        assert_eq!(Rc::strong_count(&one), 2);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u8, u8),
        Get(u8),
        Drop(u8),
        Flush(u64),
        Wait(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..40_u8, 0..4_u8, 1..50_u8).prop_map(|(key, tag, ttl)| Step::Insert(key, tag, ttl)),
            4 => (0..40_u8).prop_map(Step::Get),
            1 => (0..4_u8).prop_map(Step::Drop),
            1 => any::<u64>().prop_map(Step::Flush),
            1 => (0..60_u8).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Against a plain map: what the cache answers is what was last put there and is still valid; it may forget,
        /// but never invent, and never holds more than it may.
        #[test]
        fn it_never_invents(steps in proptest::collection::vec(step(), 0..300)) {
            let mut cache = Cache::new(16, 7);
            let mut truth: HashMap<u8, (u8, u64)> = HashMap::new();
            let mut now = 0_u64;
            for step in steps {
                match step {
                    Step::Insert(key, tag, ttl) => {
                        cache.insert(&[key], decision(&tag.to_string()), now + u64::from(ttl), now);
                        truth.insert(key, (tag, now + u64::from(ttl)));
                    }
                    Step::Get(key) => {
                        if let Some(found) = tag(&cache, &[key], now) {
                            let (tag, ends) = truth.get(&key).copied().expect("was inserted");
                            prop_assert_eq!(found, tag.to_string());
                            prop_assert!(now < ends);
                        }
                    }
                    Step::Drop(tag) => {
                        cache.drop_where(|decision| decision.tag() == Some(&*tag.to_string()));
                        truth.retain(|_, (other, _)| *other != tag);
                    }
                    Step::Flush(seed) => {
                        cache.flush(seed);
                        truth.clear();
                    }
                    Step::Wait(ms) => now += u64::from(ms),
                }
                prop_assert!(cache.len() <= 16 && cache.slots.len() <= 16);
            }
        }
    }
}
