//! The byte formats in which Envoy and the resolver talk: header pairs, and gRPC's messages in an HTTP body.

/// One message as gRPC sends it: not compressed, its length, then itself (gRPC over HTTP/2, "Length-Prefixed-Message").
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.len() + 5);
    body.push(0);
    body.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(message);
    body
}

/// The messages of a body, in their order. `None` for one that is cut short or compressed, after which nothing follows.
pub fn frames(mut body: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let message = split(body);
        body = message.map_or(&[], |(_, rest)| rest);
        Some(message.map(|(message, _)| message))
    })
}

fn split(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = body.split_first_chunk::<5>()?;
    let [0, length @ ..] = *head else { return None };
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(length)).ok()?)
}

/// Header pairs as the proxy-wasm ABI has them: the number of pairs, all lengths, then all texts, each ended by a zero.
#[must_use]
pub fn pairs(headers: &[(&str, &str)]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = number(headers.len()).to_vec();
    for (name, value) in headers {
        bytes.extend_from_slice(&number(name.len()));
        bytes.extend_from_slice(&number(value.len()));
    }
    for (name, value) in headers {
        for text in [name, value] {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_in_order_and_a_broken_one_ends_them() {
        let body = [frame(b"one"), frame(b""), frame(b"three")].concat();
        assert_eq!(frames(&body).collect::<Vec<_>>(), [Some(&b"one"[..]), Some(b""), Some(b"three")]);
        assert_eq!(frames(b"").count(), 0);
        let cut = &body[..body.len() - 1];
        assert_eq!(frames(cut).collect::<Vec<_>>(), [Some(&b"one"[..]), Some(b""), None]);
        assert_eq!(frames(b"\x01\0\0\0\x01x").collect::<Vec<_>>(), [None], "compressed");
        assert_eq!(frames(b"\0\xff\xff\xff\xff").collect::<Vec<_>>(), [None], "longer than anything");
    }

    #[test]
    fn pairs_are_counted_measured_and_ended() {
        assert_eq!(pairs(&[]), [0; 4]);
        assert_eq!(pairs(&[("a", "bc")]), b"\x01\0\0\0\x01\0\0\0\x02\0\0\0a\0bc\0");
    }
}
