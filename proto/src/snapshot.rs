//! A snapshot on its way, in parts.

use crate::bridge::v1::Snapshot;
use crate::parts::{Allotment, Parted};
use prost::Message as _;

impl Parted for Snapshot {
    fn more(&self) -> bool {
        self.more
    }

    fn goes_on_with(&self, part: &Self) -> bool {
        self.epoch == part.epoch
    }

    fn absorb(&mut self, part: Self) {
        self.more = part.more;
        self.resources.extend(part.resources);
        self.envelopes.extend(part.envelopes);
    }

    fn into_parts(mut self, bytes: usize) -> Vec<Self> {
        let mut allotment = Allotment::new(bytes);
        let resources = allotment.of(std::mem::take(&mut self.resources), |one| one.encoded_len());
        let envelopes = allotment.of(std::mem::take(&mut self.envelopes), |one| one.encoded_len());
        let head = Self { more: true, ..self };
        let mut parts = vec![head; allotment.count()];
        resources.into_iter().for_each(|(part, one)| parts[part].resources.push(one));
        envelopes.into_iter().for_each(|(part, one)| parts[part].envelopes.push(one));
        parts[allotment.count() - 1].more = false;
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::v1::{Envelope, ProtectedResource};

    fn snapshot(count: usize) -> Snapshot {
        let name = |number: usize| format!("{number:0>100}");
        let resource = |number| ProtectedResource { name: name(number), ..ProtectedResource::default() };
        let envelope = |number| Envelope { logical_path: name(number), ..Envelope::default() };
        Snapshot {
            epoch: 7,
            bouncer: "east".to_owned(),
            intercept_enabled: true,
            resources: (0..count).map(resource).collect(),
            envelopes: (0..count).map(envelope).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn parts_make_the_whole_again() {
        for count in [0, 1, 2, 50] {
            for bytes in [1, 250, 1_000, 1 << 20] {
                let mut parts = snapshot(count).into_parts(bytes).into_iter();
                let longest = parts.as_slice().iter().map(prost::Message::encoded_len).max().unwrap();
                assert!(longest < bytes + 130, "{count} in {bytes}: {longest}");
                let mut whole = parts.next().unwrap();
                for part in parts {
                    assert!(whole.more);
                    whole.absorb(part);
                }
                assert_eq!(whole, snapshot(count), "{count} in {bytes}");
            }
        }
    }
}
