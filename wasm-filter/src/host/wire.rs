//! The two byte formats in which Envoy takes arguments: a serialized `GrpcService`, and a list of header pairs.

use bouncer_custody::ClusterName;

/// `envoy.config.core.v3.GrpcService { envoy_grpc { cluster_name } }`.
///
/// Envoy also takes a bare cluster name, but only one that happens not to parse as such a message.
#[must_use]
pub fn grpc_service(cluster: &ClusterName) -> Vec<u8> {
    const ENVOY_GRPC: u8 = 0x0a;
    const CLUSTER_NAME: u8 = 0x0a;
    let name = cluster.as_str().as_bytes();
    let mut inner = vec![CLUSTER_NAME];
    length(&mut inner, name.len());
    inner.extend_from_slice(name);
    let mut service = vec![ENVOY_GRPC];
    length(&mut service, inner.len());
    service.extend_from_slice(&inner);
    service
}

/// Protobuf's variable-length integer.
fn length(into: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        into.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
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
    fn a_service_names_its_cluster_also_a_long_one() {
        let name: ClusterName = "resolver".parse().unwrap();
        assert_eq!(grpc_service(&name), b"\x0a\x0a\x0a\x08resolver");
        let long = "x".repeat(255);
        let service = grpc_service(&long.parse().unwrap());
        assert_eq!(service[..6], [0x0a, 0x82, 0x02, 0x0a, 0xff, 0x01]);
        assert_eq!(&service[6..], long.as_bytes());
    }

    #[test]
    fn pairs_are_counted_measured_and_ended() {
        assert_eq!(pairs(&[]), [0; 4]);
        assert_eq!(pairs(&[("a", "bc")]), b"\x01\0\0\0\x01\0\0\0\x02\0\0\0a\0bc\0");
    }
}
