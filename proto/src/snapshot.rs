//! A snapshot on its way, in parts: small messages need small buffers, which connections keep.

use crate::bridge::v1::Snapshot;
use prost::Message as _;

impl Snapshot {
    /// The snapshot in parts of about so many bytes, to be sent in this order.
    #[must_use]
    pub fn into_parts(mut self, bytes: usize) -> Vec<Self> {
        let (resources, envelopes) = (std::mem::take(&mut self.resources), std::mem::take(&mut self.envelopes));
        let head = self;
        let (mut parts, mut size) = (vec![head.clone()], 0);
        let mut last = |length: usize| {
            if size > 0 && size + length > bytes {
                parts.push(head.clone());
                size = 0;
            }
            size += length;
            parts.len() - 1
        };
        let resources: Vec<_> = resources.into_iter().map(|one| (last(one.encoded_len()), one)).collect();
        let envelopes: Vec<_> = envelopes.into_iter().map(|one| (last(one.encoded_len()), one)).collect();
        for (part, resource) in resources {
            parts[part].resources.push(resource);
        }
        for (part, envelope) in envelopes {
            parts[part].envelopes.push(envelope);
        }
        let whole = parts.len() - 1;
        parts[..whole].iter_mut().for_each(|part| part.more = true);
        parts
    }

    /// Adds the part that follows.
    pub fn absorb(&mut self, part: Self) {
        self.more = part.more;
        self.resources.extend(part.resources);
        self.envelopes.extend(part.envelopes);
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
