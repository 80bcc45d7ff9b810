//! What many callers ask for at the same time, done as one. A change wakes every session at once, and each wants to know
//! what its bouncer may know now; one transaction for each would keep the last of ten thousand waiting for seconds.

use crate::store::{Result, StoreError};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Most that is done at once, so that nobody waits long and memory stays bounded.
const MOST: usize = 256;

/// So many groups are under way: one is read while the other is put together.
const TASKS: usize = 2;

/// Answers several questions, each with one answer.
pub(super) type All<C, Q, A> = for<'a> fn(&'a C, &'a [Q]) -> BoxFuture<'a, Result<Vec<A>>>;

/// Questions that wait for the task that answers them: those that have waited longest, as many at once as there are. It
/// ends with this.
pub(super) struct Gathered<Q, A> {
    // Without a bound of its own: whoever asks waits for the answer.
    waiting: mpsc::UnboundedSender<Waiting<Q, A>>,
}

struct Waiting<Q, A> {
    question: Q,
    reply: oneshot::Sender<Result<A>>,
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Gathered<Q, A> {
    /// Has questions answered by `all`, one answer for each. If it fails, it has failed for each of them.
    pub(super) fn new<C: Send + Sync + 'static>(context: Arc<C>, all: All<C, Q, A>) -> Self {
        let (waiting, questions) = mpsc::unbounded_channel();
        let questions = Arc::new(Mutex::new(questions));
        for _ in 0..TASKS {
            let (context, questions) = (Arc::clone(&context), Arc::clone(&questions));
            tokio::spawn(async move {
                let mut some = Vec::with_capacity(MOST);
                while questions.lock().await.recv_many(&mut some, MOST).await > 0 {
                    answer(&*context, some.drain(..), all).await;
                }
            });
        }
        Self { waiting }
    }

    /// The answer to a question.
    pub(super) async fn ask(&self, question: Q) -> Result<A> {
        let (reply, answer) = oneshot::channel();
        // Its end is the runtime's.
        let gone = || StoreError::Unavailable(sqlx::Error::WorkerCrashed);
        self.waiting.send(Waiting { question, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn answer<C, Q, A>(context: &C, some: impl Iterator<Item = Waiting<Q, A>>, all: All<C, Q, A>) {
    // Whoever has gone meanwhile wants no answer.
    let some = some.filter(|one| !one.reply.is_closed());
    let (questions, replies): (Vec<_>, Vec<_>) = some.map(|one| (one.question, one.reply)).unzip();
    if questions.is_empty() {
        return;
    }
    match all(context, &questions).await {
        Ok(answers) => {
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _ = reply.send(Ok(answer));
            }
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            for reply in replies {
                let _ = reply.send(Err(StoreError::Unavailable(sqlx::Error::Protocol(cause.clone()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const DOUBLE: All<AtomicUsize, usize, usize> = |calls, questions| {
        async move {
            calls.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            assert!(questions.len() <= MOST);
            Ok(questions.iter().map(|question| question * 2).collect())
        }
        .boxed()
    };
    const BROKEN: All<AtomicUsize, usize, usize> = |_, _| async { Err(StoreError::OutOfRange) }.boxed();

    #[tokio::test]
    async fn many_are_answered_at_once_and_each_gets_its_own() {
        let calls = Arc::new(AtomicUsize::new(0));
        let gathered = Gathered::new(Arc::clone(&calls), DOUBLE);
        let answers = futures::future::join_all((0..1_000).map(|number| gathered.ask(number))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (0..1_000).map(|number| number * 2).collect::<Vec<_>>());
        assert!(calls.load(Ordering::Relaxed) <= 5, "{calls:?} calls");
    }

    #[tokio::test]
    async fn one_that_goes_takes_nobody_along_and_a_failure_is_everybodys() {
        let calls = Arc::new(AtomicUsize::new(0));
        let gathered = Gathered::new(Arc::clone(&calls), DOUBLE);
        let mut first = Box::pin(gathered.ask(1));
        let second = gathered.ask(2);
        assert!(futures::poll!(&mut first).is_pending());
        drop(first);
        assert_eq!(second.await.unwrap(), 4);

        let broken = Gathered::new(calls, BROKEN);
        let both = tokio::join!(broken.ask(3), broken.ask(4));
        assert!(both.0.is_err() && both.1.is_err());
    }
}
