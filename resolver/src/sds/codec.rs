//! The wire of delta SDS: requests as far as they matter here, and answers encoded straight from the arena.

use crate::arena::{Arena, ArenaError};
use crate::config::ServerName;
use crate::credential::ClientCertificate;
use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::collections::HashMap;
use std::sync::Arc;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use zeroize::Zeroizing;

/// The type of every resource here.
pub(super) const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`, the fields that matter.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DeltaRequest {
    #[prost(string, tag = "2")]
    pub(super) type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(super) unsubscribe: Vec<String>,
    #[prost(map = "string, string", tag = "5")]
    pub(super) initial_versions: HashMap<String, String>,
    #[prost(string, tag = "6")]
    pub(super) nonce: String,
    #[prost(message, optional, tag = "7")]
    pub(super) error: Option<RpcStatus>,
}

/// `google.rpc.Status`, its code only: the message is Envoy's free text.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
}

/// One `DeltaDiscoveryResponse`, with one thing in it.
pub(super) struct DeltaResponse {
    pub(super) nonce: String,
    /// The name as Envoy asked for it, which may carry the SDS key.
    pub(super) name: Zeroizing<String>,
    pub(super) content: Content,
}

/// What an answer holds.
#[derive(Clone)]
pub(super) enum Content {
    Certificate { version: String, credential: Arc<ClientCertificate> },
    Trust { version: String, ca: Arc<[u8]>, names: Arc<[ServerName]> },
    Removed,
}

/// A protobuf message as a tree of borrowed parts: lengths first, then bytes, no copy in between.
enum Part<'a> {
    Bytes(u32, &'a [u8]),
    Number(u32, u64),
    Message(u32, Vec<Part<'a>>),
}

impl Part<'_> {
    fn content_len(&self) -> usize {
        match self {
            Self::Bytes(_, bytes) => bytes.len(),
            Self::Number(_, number) => encoded_len_varint(*number),
            Self::Message(_, parts) => parts.iter().map(Part::len).sum(),
        }
    }

    fn len(&self) -> usize {
        let content = self.content_len();
        match self {
            Self::Bytes(tag, _) | Self::Message(tag, _) => key_len(*tag) + encoded_len_varint(content as u64) + content,
            Self::Number(tag, _) => key_len(*tag) + content,
        }
    }

    fn put(&self, to: &mut impl BufMut) {
        match self {
            Self::Number(tag, number) => {
                encode_key(*tag, WireType::Varint, to);
                encode_varint(*number, to);
            }
            Self::Bytes(tag, bytes) => {
                encode_key(*tag, WireType::LengthDelimited, to);
                encode_varint(bytes.len() as u64, to);
                to.put_slice(bytes);
            }
            Self::Message(tag, parts) => {
                encode_key(*tag, WireType::LengthDelimited, to);
                encode_varint(self.content_len() as u64, to);
                parts.iter().for_each(|part| part.put(to));
            }
        }
    }
}

/// `DeltaDiscoveryResponse.resources` with one `Resource` that holds one `Secret`.
fn resource<'a>(name: &'a str, version: &'a str, secret: Part<'a>) -> Part<'a> {
    let secret = Part::Message(2, vec![Part::Bytes(1, name.as_bytes()), secret]);
    let any = Part::Message(2, vec![Part::Bytes(1, SECRET.as_bytes()), secret]);
    Part::Message(2, vec![Part::Bytes(1, version.as_bytes()), any, Part::Bytes(3, name.as_bytes())])
}

/// `DataSource.inline_bytes`.
fn inline(tag: u32, bytes: &[u8]) -> Part<'_> {
    Part::Message(tag, vec![Part::Bytes(2, bytes)])
}

/// `CertificateValidationContext`: the CA, and the names of which the upstream's certificate must carry one.
fn trust<'a>(ca: &'a [u8], names: &'a [ServerName]) -> Part<'a> {
    let matcher = |name: &'a ServerName| {
        let (san_type, exact) = match name {
            ServerName::Dns(name) => (2, name.as_str()),
            ServerName::Spiffe(id) => (3, id.as_str()),
        };
        Part::Message(15, vec![Part::Number(1, san_type), Part::Message(2, vec![Part::Bytes(1, exact.as_bytes())])])
    };
    let ca = std::iter::once(inline(1, ca));
    Part::Message(4, ca.chain(names.iter().map(matcher)).collect())
}

impl DeltaResponse {
    /// The answer as one gRPC message with its prefix (PROTOCOL-HTTP2.md of gRPC, "Length-Prefixed-Message"). One that
    /// holds a key is in the arena, and never elsewhere.
    ///
    /// # Errors
    /// [`ArenaError`], for a key.
    pub(super) fn message(&self, arena: &Arc<Arena>) -> Result<Bytes, ArenaError> {
        match &self.content {
            Content::Certificate { version, credential } => credential.key.expose(|key| {
                // The key before its chain: see `super::answers`.
                let certificate = Part::Message(2, vec![inline(2, key), inline(1, &credential.chain)]);
                let (len, write) = self.written(resource(&self.name, version, certificate));
                Ok(arena.fill(len, write)?.lend())
            }),
            Content::Trust { version, ca, names } => Ok(self.ordinary(resource(&self.name, version, trust(ca, names)))),
            Content::Removed => Ok(self.ordinary(Part::Bytes(6, self.name.as_bytes()))),
        }
    }

    fn ordinary(&self, content: Part<'_>) -> Bytes {
        let (len, write) = self.written(content);
        let mut bytes = vec![0; len];
        write(&mut bytes);
        bytes.into()
    }

    /// The message's length, and what writes it.
    fn written<'a>(&'a self, content: Part<'a>) -> (usize, impl FnOnce(&mut [u8]) + 'a) {
        const UNCOMPRESSED: u8 = 0;
        let parts = [content, Part::Bytes(4, SECRET.as_bytes()), Part::Bytes(5, self.nonce.as_bytes())];
        let len: usize = parts.iter().map(Part::len).sum();
        let write = move |mut to: &mut [u8]| {
            to.put_u8(UNCOMPRESSED);
            to.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
            parts.iter().for_each(|part| part.put(&mut to));
        };
        (1 + 4 + len, write)
    }
}

/// Decodes requests with prost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RequestDecoder;

impl Decoder for RequestDecoder {
    type Item = DeltaRequest;
    type Error = Status;

    /// Kept for as long as the stream lives, and then hardly used: Envoy says something when its secret changes.
    fn buffer_settings(&self) -> BufferSettings {
        const YIELD: usize = 32 * 1_024;
        BufferSettings::new(256, YIELD)
    }

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DeltaRequest>, Status> {
        let request = prost::Message::decode(from).map_err(|_| Status::invalid_argument("no DeltaDiscoveryRequest"))?;
        Ok(Some(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use prost::Message as _;

    // The answer as a stranger would read it, by Envoy's own field numbers.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Answer {
        #[prost(message, repeated, tag = "2")]
        resources: Vec<Resource>,
        #[prost(string, tag = "4")]
        type_url: String,
        #[prost(string, tag = "5")]
        nonce: String,
        #[prost(string, repeated, tag = "6")]
        removed: Vec<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Resource {
        #[prost(string, tag = "1")]
        version: String,
        #[prost(message, optional, tag = "2")]
        resource: Option<Any>,
        #[prost(string, tag = "3")]
        name: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(message, optional, tag = "2")]
        value: Option<Secret>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Secret {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "2")]
        certificate: Option<Certificate>,
        #[prost(message, optional, tag = "4")]
        trust: Option<Trust>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Certificate {
        #[prost(message, optional, tag = "1")]
        chain: Option<Source>,
        #[prost(message, optional, tag = "2")]
        key: Option<Source>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Trust {
        #[prost(message, optional, tag = "1")]
        ca: Option<Source>,
        #[prost(message, repeated, tag = "15")]
        names: Vec<Matcher>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Matcher {
        #[prost(int32, tag = "1")]
        san_type: i32,
        #[prost(message, optional, tag = "2")]
        matcher: Option<Exact>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Exact {
        #[prost(string, tag = "1")]
        exact: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Source {
        #[prost(bytes = "vec", tag = "2")]
        inline: Vec<u8>,
    }

    fn read(content: Content) -> Answer {
        let answer = DeltaResponse { nonce: "7".into(), name: Zeroizing::new("name".into()), content };
        let message = answer.message(&Arena::new()).unwrap();
        let (prefix, message) = message.split_at(5);
        assert_eq!((prefix[0], u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize), (0, message.len()));
        Answer::decode(message).unwrap()
    }

    fn only_secret(answer: &Answer) -> &Secret {
        assert_eq!((answer.resources.len(), answer.nonce.as_str(), answer.type_url.as_str()), (1, "7", SECRET));
        assert_eq!((answer.resources[0].name.as_str(), answer.resources[0].version.as_str()), ("name", "v"));
        let any = answer.resources[0].resource.as_ref().unwrap();
        assert_eq!(any.type_url, SECRET);
        assert_eq!(any.value.as_ref().unwrap().name, "name");
        any.value.as_ref().unwrap()
    }

    #[test]
    fn a_certificate_reads_back() {
        let key = Arena::new().store(&[b'k'; 3_000]).unwrap();
        let credential = Arc::new(ClientCertificate { chain: Box::from(*b"chain"), key, not_after: 0 });
        let answer = read(Content::Certificate { version: "v".into(), credential });
        let certificate = only_secret(&answer).certificate.as_ref().unwrap();
        assert_eq!(certificate.chain.as_ref().unwrap().inline, b"chain");
        assert_eq!(certificate.key.as_ref().unwrap().inline, [b'k'; 3_000]);
    }

    #[test]
    fn a_validation_context_reads_back() {
        let names = vec![ServerName::Dns("a.test".into()), ServerName::Spiffe("spiffe://a.test/b".parse().unwrap())];
        let answer = read(Content::Trust { version: "v".into(), ca: Arc::from(*b"ca"), names: names.into() });
        let trust = only_secret(&answer).trust.as_ref().unwrap();
        assert_eq!(trust.ca.as_ref().unwrap().inline, b"ca");
        let names: Vec<_> =
            trust.names.iter().map(|n| (n.san_type, n.matcher.as_ref().unwrap().exact.as_str())).collect();
        assert_eq!(names, [(2, "a.test"), (3, "spiffe://a.test/b")]);
    }

    #[test]
    fn a_removal_reads_back() {
        let answer = read(Content::Removed);
        assert_eq!((answer.resources.len(), answer.removed), (0, vec!["name".to_owned()]));
    }
}
