//! The answers of one SDS stream, as the body of its HTTP response.
//!
//! Not through tonic's encoder, which keeps every message in a buffer for as long as the stream lives, and a stream lives as
//! long as its secret is in use. Here a message is written into the arena, handed to the connection as it lies there, and
//! wiped when the connection has written it. HTTP/2 copies only small pieces into the connection's own buffer: less
//! than 256 bytes, where the socket takes vectored writes (which [`crate::socket::Admitted`] therefore does). A message
//! with a certificate is longer; of one that needs several frames, only the last is short, and the key is in the first.

use super::codec::DeltaResponse;
use crate::arena::Arena;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt as _};
use http::HeaderMap;
use http_body::{Body, Frame};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;

pub(super) struct Answers {
    arena: Arc<Arena>,
    /// `None` once the stream has ended.
    answers: Option<BoxStream<'static, Result<DeltaResponse, Status>>>,
}

impl Answers {
    pub(super) fn new(
        arena: Arc<Arena>,
        answers: impl Stream<Item = Result<DeltaResponse, Status>> + Send + 'static,
    ) -> Self {
        Self { arena, answers: Some(answers.boxed()) }
    }

    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.answers = None;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl Body for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(answers) = &mut self.answers else { return Poll::Ready(None) };
        Poll::Ready(Some(match ready!(answers.poll_next_unpin(cx)) {
            Some(Ok(answer)) => match answer.message(&self.arena) {
                Ok(message) => Ok(Frame::data(message)),
                Err(error) => {
                    tracing::error!(%error, "a credential could not be sent to Envoy");
                    self.end(&Status::resource_exhausted("no memory for the credential"))
                }
            },
            Some(Err(status)) => self.end(&status),
            None => self.end(&Status::ok("")),
        }))
    }
}
