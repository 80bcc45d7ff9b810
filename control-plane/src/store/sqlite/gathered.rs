//! What many callers ask for at the same time, done as one. A change wakes every session at once, and each wants to know
//! what its bouncer may know now; one transaction for each would keep the last of ten thousand waiting for seconds.

use crate::store::{Result, StoreError};
use futures::future::BoxFuture;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Most that is done at once, so that nobody waits long and memory stays bounded.
const MOST: usize = 256;

/// Answers several questions, each with one answer.
pub(super) type All<C, Q, A> = for<'a> fn(&'a C, &'a [Q]) -> BoxFuture<'a, Result<Vec<A>>>;

/// Questions that wait for whoever is next to take them along.
pub(super) struct Gathered<Q, A> {
    waiting: Mutex<Vec<Waiting<Q, A>>>,
    turn: tokio::sync::Mutex<()>,
}

struct Waiting<Q, A> {
    question: Q,
    reply: oneshot::Sender<Result<A>>,
}

impl<Q, A> Default for Gathered<Q, A> {
    fn default() -> Self {
        Self { waiting: Mutex::new(Vec::new()), turn: tokio::sync::Mutex::new(()) }
    }
}

impl<Q: Clone, A> Gathered<Q, A> {
    /// The answer to a question. `all` answers several, one answer for each, and is called by whoever is first. If it
    /// fails, it has failed for each of them.
    pub(super) async fn ask<C>(&self, context: &C, question: Q, all: All<C, Q, A>) -> Result<A> {
        loop {
            let (reply, mut answer) = oneshot::channel();
            self.waiting().push(Waiting { question: question.clone(), reply });
            let answered = loop {
                tokio::select! {
                    biased;
                    answered = &mut answer => break answered,
                    _turn = self.turn.lock() => self.answer(context, all).await,
                }
            };
            // Whoever took it along was cut off. Then it is asked again.
            if let Ok(answered) = answered {
                return answered;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting<Q, A>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers those that have waited longest.
    async fn answer<C>(&self, context: &C, all: All<C, Q, A>) {
        let some: Vec<_> = {
            let mut waiting = self.waiting();
            let count = waiting.len().min(MOST);
            waiting.drain(..count).collect()
        };
        // Whoever has gone meanwhile wants no answer.
        let some = some.into_iter().filter(|one| !one.reply.is_closed());
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
    const NEVER: All<AtomicUsize, usize, usize> = |_, _| std::future::pending().boxed();
    const BROKEN: All<AtomicUsize, usize, usize> = |_, _| async { Err(StoreError::OutOfRange) }.boxed();

    #[tokio::test]
    async fn many_are_answered_at_once_and_each_gets_its_own() {
        let (gathered, calls) = (Gathered::default(), AtomicUsize::new(0));
        let answers = futures::future::join_all((0..1_000).map(|number| gathered.ask(&calls, number, DOUBLE))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (0..1_000).map(|number| number * 2).collect::<Vec<_>>());
        assert!(calls.load(Ordering::Relaxed) <= 5, "{calls:?} calls");
    }

    #[tokio::test]
    async fn one_that_is_cut_off_takes_nobody_along_and_a_failure_is_everybodys() {
        let (gathered, calls) = (Gathered::default(), AtomicUsize::new(0));
        let mut first = Box::pin(gathered.ask(&calls, 1, NEVER));
        let mut second = Box::pin(gathered.ask(&calls, 2, NEVER));
        let mut third = Box::pin(gathered.ask(&calls, 3, DOUBLE));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending() && futures::poll!(&mut third).is_pending());
        drop(first);
        // Now the second takes the third along.
        assert!(futures::poll!(&mut second).is_pending());
        drop(second);
        assert_eq!(third.await.unwrap(), 6);

        let both = tokio::join!(gathered.ask(&calls, 3, BROKEN), gathered.ask(&calls, 4, BROKEN));
        assert!(both.0.is_err() && both.1.is_err());
    }
}
