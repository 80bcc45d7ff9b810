//! Whose turn it is on a connection: ours, or its peer's. Used by [`super::speak`], which ends a connection that has waited
//! for its peer for too long.
//!
//! It is ours while a handler works, and while an answer has nothing to give yet: so an export and a session may last. It is
//! the peer's while no request is there, and while an answer waits to be taken, whatever pings it acknowledges.

use super::Patience;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use futures::future::BoxFuture;
use http::Request;
use http_body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tower::{BoxError, Service};

/// Shared by all that happens on one connection.
#[derive(Clone)]
pub(super) struct Turn(Arc<Mutex<State>>);

struct State {
    /// How much of our own is under way.
    ours: usize,
    /// Whether there was a request.
    asked: bool,
    /// When something happened last.
    since: Instant,
}

/// Something of our own that is under way, until it is dropped.
struct Ours(Turn);

impl Default for Turn {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { ours: 0, asked: false, since: Instant::now() })))
    }
}

impl Turn {
    /// Waits until the connection has waited for its peer for too long.
    pub(super) async fn waited(&self, patience: Patience) {
        loop {
            let left = self.left(patience);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    /// How long it will take at least.
    fn left(&self, patience: Patience) -> Duration {
        let state = self.lock();
        let whole = if state.asked { patience.quiet } else { patience.opening };
        if state.ours > 0 { whole } else { whole.saturating_sub(state.since.elapsed()) }
    }

    /// The peer's time begins anew.
    pub(super) fn pass(&self) {
        self.lock().since = Instant::now();
    }

    fn take(&self) -> Ours {
        let mut state = self.lock();
        state.ours += 1;
        state.asked = true;
        Ours(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ours -= 1;
        state.since = Instant::now();
    }
}

/// The calls on one connection: what is served there, to whom.
#[derive(Clone)]
pub(super) struct Calls<P> {
    pub(super) router: Router,
    pub(super) peer: P,
    pub(super) turn: Turn,
}

impl<P, B> Service<Request<B>> for Calls<P>
where
    P: Clone + Send + Sync + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        let (ours, turn) = (self.turn.take(), self.turn.clone());
        let answer = self.router.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(ours);
            answer.map(|answer| answer.map(|body| Body::new(Answer { body, ours: None, turn })))
        })
    }
}

/// An answer's body. It is asked for more once the peer has taken what there was.
struct Answer {
    body: Body,
    ours: Option<Ours>,
    turn: Turn,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.ours = None;
            self.turn.pass();
        } else if self.ours.is_none() {
            self.ours = Some(self.turn.take());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
