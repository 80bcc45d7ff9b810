//! Key containers by their bytes: DER and BER structures, key files with a magic number.

/// Whether a key container begins anywhere in `bytes`.
pub(super) fn holds_key(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| is_key(&bytes[at..]))
}

/// OpenSSH's format; Java's key stores JKS and JCEKS, in the versions that there are.
const MAGIC: [&[u8]; 5] = [
    b"openssh-key-v1\0",
    b"\xfe\xed\xfe\xed\0\0\0\x01",
    b"\xfe\xed\xfe\xed\0\0\0\x02",
    b"\xce\xce\xce\xce\0\0\0\x01",
    b"\xce\xce\xce\xce\0\0\0\x02",
];

/// The contents of a SEQUENCE, as far as they are there, and what follows it.
fn sequence(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *tag != 0x30 {
        return None;
    }
    let octets = match first {
        0..=0x7f => return Some(rest.split_at_checked(usize::from(*first)).unwrap_or((rest, &[]))),
        // Of no stated length (BER)
        0x80 => return Some((rest, &[])),
        0x81..=0x84 => usize::from(first & 0x0f),
        _ => return None,
    };
    let (length, rest) = rest.split_at_checked(octets)?;
    let length = length.iter().fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
    Some(rest.split_at_checked(length).unwrap_or((rest, &[])))
}

fn is_key(bytes: &[u8]) -> bool {
    if bytes.first() != Some(&0x30) {
        return MAGIC.iter().any(|magic| bytes.starts_with(magic));
    }
    let Some((body, _)) = sequence(bytes) else { return false };
    // Encrypted PKCS#8 (RFC 5958): an algorithm of PKCS#5 or PKCS#12, then an OCTET STRING
    if let Some((algorithm, rest)) = sequence(body) {
        const PKCS_5: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x05";
        const PKCS_12: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c";
        let oid = algorithm.strip_prefix(b"\x06").and_then(|rest| rest.get(1..)).unwrap_or_default();
        return (oid.starts_with(PKCS_5) || oid.starts_with(PKCS_12)) && matches!(rest, [] | [0x04, ..]);
    }
    match body {
        // PKCS#8 (RFC 5958): version 0 or 1, an AlgorithmIdentifier, then an OCTET STRING. The last is not to be left
        // out: a KMS blob holds a CMS EncryptedData, which begins in the same way and ends where the key would stand.
        [0x02, 0x01, 0x00 | 0x01, rest @ ..] if rest.first() == Some(&0x30) => sequence(rest)
            .is_some_and(|(algorithm, key)| algorithm.first() == Some(&0x06) && key.first() == Some(&0x04)),
        // PKCS#1 (RFC 8017) and OpenSSL's DSA: version 0, then a modulus of at least 512 bits
        [0x02, 0x01, 0x00, 0x02, 0x40..=0x84, ..] => true,
        // SEC1 (RFC 5915): version 1, then the octets of a scalar
        [0x02, 0x01, 0x01, 0x04, 0x14..=0x48, ..] => true,
        // PKCS#12 (RFC 7292): version 3, then a ContentInfo of PKCS#7
        [0x02, 0x01, 0x03, rest @ ..] => {
            const PKCS_7: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07";
            sequence(rest).is_some_and(|(content, _)| content.starts_with(PKCS_7))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_data_of_cms_is_no_key_and_a_cut_off_key_is_one() {
        let cms = b"\x30\x6d\x02\x01\x00\x30\x68\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\x30\x1e";
        assert!(!holds_key(cms));
        let ed25519 = b"..\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        assert!(holds_key(ed25519) && holds_key(&ed25519[..15]));
        assert!(!holds_key(&ed25519[..14]));
    }
}
