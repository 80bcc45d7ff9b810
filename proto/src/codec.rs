//! Protobuf over gRPC, with small buffers. tonic's own are as large as a connection's busiest moments want them, and each
//! stream keeps its two for as long as it lives: which is days, and ten thousand of them on one control plane.

use prost::Message;
use std::marker::PhantomData;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes that a buffer begins with: most messages are smaller. It grows with those that are not.
const BEGIN: usize = 512;
/// Bytes that are gathered before they are sent on, as tonic has it.
const GATHERED: usize = 32 * 1_024;

/// Names this codec to the generated services.
#[derive(Debug, Clone)]
pub(crate) struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BEGIN, GATHERED))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BEGIN, GATHERED))
    }
}
