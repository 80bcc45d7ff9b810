use super::*;
use bouncer_custody::{Generation, Issue, IssueOf, KeyId, LogicalPath, Provider};
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// A backend whose answers the test scripts, and which answers only when it is let.
struct Scripted {
    calls: AtomicUsize,
    gate: Semaphore,
    answer: Mutex<Answer>,
}

#[derive(Clone)]
enum Answer {
    Good(String),
    /// Of a backend that has versions, and says how long this one is fresh.
    Versioned(String, &'static str, Duration),
    Bad(Reason),
    Panic,
}

impl Unwrap for Scripted {
    fn unwrap<'a>(&'a self, _: &'a Envelope) -> BoxFuture<'a, Result<Unwrapped, UnwrapError>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            let answer = self.answer.lock().unwrap().clone();
            match answer {
                Answer::Good(pem) => Ok(Unwrapped::fixed(Zeroizing::new(pem.into_bytes()), Some("id".into()))),
                Answer::Versioned(pem, version, fresh_for) => Ok(Unwrapped {
                    version: Some(version.to_owned()),
                    fresh_for: Some(fresh_for),
                    ..Unwrapped::fixed(Zeroizing::new(pem.into_bytes()), None)
                }),
                Answer::Bad(reason) => Err(reason.into()),
                Answer::Panic => panic!("planted"),
            }
        })
    }
}

fn pem() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["client.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    format!("{}{}", key.serialize_pem(), certificate.pem())
}

fn good() -> Answer {
    Answer::Good(pem())
}

fn envelope(path: &str) -> Arc<Envelope> {
    let path: LogicalPath = path.parse().unwrap();
    let key_id = KeyId::parse(Provider::KmsEnvelope, "arn:aws:kms:eu-west-1:123456789012:key/k").unwrap();
    let ciphertext_ref = "AQ==".parse().unwrap();
    let of = IssueOf {
        path: &path,
        generation: Generation::FIRST,
        key_id: &key_id,
        ciphertext_ref: &ciphertext_ref,
        aad: None,
        certificate_chain: "",
        activation: 0,
        ended: 0,
    };
    let content = Issue::digest(&of);
    let tag = Tag::new(path.clone(), Generation::FIRST, content);
    let generation = Generation::FIRST;
    Arc::new(Envelope {
        path,
        generation,
        key_id,
        ciphertext_ref,
        vault: None,
        aad: None,
        certificate_chain: String::new(),
        tag,
        activation: 0,
        revoked_through: 0,
        content,
    })
}

fn cache(answer: Answer, recheck: Duration, hard_cap: Duration, max_secrets: usize) -> (Arc<Cache>, Arc<Scripted>) {
    let backend =
        Arc::new(Scripted { calls: AtomicUsize::new(0), gate: Semaphore::new(0), answer: Mutex::new(answer) });
    let limits = Limits {
        decide_deadline: Duration::from_secs(1),
        decision_ttl: Duration::from_secs(1),
        recheck,
        hard_cap,
        max_secrets,
        max_decisions: 1,
        spool_bytes: 1,
        spool_fsync: false,
    };
    (Cache::new(Arc::clone(&backend) as Arc<dyn Unwrap>, Arena::new(), &limits, Arc::default()), backend)
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_thousand_who_wait_make_one_call() {
    let (cache, backend) = cache(good(), HOUR, HOUR, 10);
    let envelope = envelope("a");
    let waiting: Vec<_> = (0..1_000)
        .map(|_| {
            let (cache, envelope) = (Arc::clone(&cache), Arc::clone(&envelope));
            tokio::spawn(async move { cache.get(&envelope).await.is_ok() })
        })
        .collect();
    waiting[0].abort();
    backend.gate.add_permits(1);
    for (i, waiting) in waiting.into_iter().enumerate() {
        assert!(i == 0 || waiting.await.unwrap());
    }
    assert_eq!(backend.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn after_a_panic_another_takes_over() {
    let (cache, backend) = cache(Answer::Panic, HOUR, HOUR, 10);
    let envelope = envelope("a");
    let waiting = tokio::spawn({
        let (cache, envelope) = (Arc::clone(&cache), Arc::clone(&envelope));
        async move { cache.get(&envelope).await.is_ok() }
    });
    while backend.calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    backend.gate.add_permits(1);
    while backend.calls.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    *backend.answer.lock().unwrap() = good();
    backend.gate.add_permits(1);
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn a_no_is_asked_once_and_evicts() {
    let (cache, backend) = cache(good(), Duration::ZERO, HOUR, 10);
    let envelope = envelope("a");
    backend.gate.add_permits(10);
    cache.get(&envelope).await.unwrap();
    assert_eq!(cache.len(), 1);
    *backend.answer.lock().unwrap() = Answer::Bad(Reason::KmsKeyDisabled);
    for _ in 0..5 {
        assert_eq!(cache.get(&envelope).await.unwrap_err().reason, Reason::KmsKeyDisabled);
    }
    assert_eq!(backend.calls.load(Ordering::SeqCst), 2);
    assert!(cache.is_empty() && cache.arena.stats().used == 0, "the bytes are wiped with the eviction");
}

#[tokio::test]
async fn a_transient_fault_serves_the_last_good_one_within_the_cap() {
    let (cache, backend) = cache(good(), Duration::ZERO, HOUR, 10);
    let envelope = envelope("a");
    backend.gate.add_permits(10);
    cache.get(&envelope).await.unwrap();
    *backend.answer.lock().unwrap() = Answer::Bad(Reason::KmsUnavailable);
    assert!(cache.get(&envelope).await.is_ok());
    assert!(cache.peek(&envelope.tag).is_some());

    let (capped, backend) = super::tests::cache(good(), Duration::ZERO, Duration::ZERO, 10);
    backend.gate.add_permits(10);
    capped.get(&envelope).await.unwrap();
    *backend.answer.lock().unwrap() = Answer::Bad(Reason::KmsUnavailable);
    assert_eq!(capped.get(&envelope).await.unwrap_err().reason, Reason::KmsUnavailable);
    assert!(capped.peek(&envelope.tag).is_none());
}

#[tokio::test]
async fn the_number_is_bounded_and_what_is_revoked_in_flight_is_not_served() {
    let (cache, backend) = cache(good(), HOUR, HOUR, 2);
    backend.gate.add_permits(3);
    for path in ["a", "b", "c"] {
        cache.get(&envelope(path)).await.unwrap();
    }
    assert_eq!(cache.len(), 2);
    assert!(cache.peek(&envelope("a").tag).is_none() && cache.peek(&envelope("c").tag).is_some());

    let late = envelope("late");
    let waiting = tokio::spawn({
        let (cache, late) = (Arc::clone(&cache), Arc::clone(&late));
        async move { cache.get(&late).await }
    });
    while backend.calls.load(Ordering::SeqCst) < 4 {
        tokio::task::yield_now().await;
    }
    cache.evict(&late.tag);
    backend.gate.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap_err().reason, Reason::DecisionStale);
    assert!(cache.peek(&late.tag).is_none());
}

#[tokio::test]
async fn another_version_is_another_tag_and_the_former_stays_for_decisions_in_use() {
    let first = Answer::Versioned(pem(), "1", Duration::ZERO);
    let (cache, backend) = cache(first, Duration::ZERO, HOUR, 10);
    let envelope = envelope("a");
    backend.gate.add_permits(10);
    let one = cache.get(&envelope).await.unwrap().tag;
    assert_eq!(cache.get(&envelope).await.unwrap().tag, one, "the same version has the same name");
    *backend.answer.lock().unwrap() = Answer::Versioned(pem(), "2", Duration::ZERO);
    let two = cache.get(&envelope).await.unwrap().tag;
    assert!(one != two && one.is_of(&envelope.tag) && two.is_of(&envelope.tag));
    assert!(cache.peek(&one).is_some() && cache.peek(&two).is_some());
    assert!(cache.peek(&envelope.tag).is_none(), "a name without version is nobody's");
    *backend.answer.lock().unwrap() = Answer::Bad(Reason::VaultDenied);
    assert!(cache.get(&envelope).await.is_err());
    assert!(cache.peek(&one).is_none() && cache.peek(&two).is_none(), "an authoritative no evicts both");
}

#[tokio::test]
async fn what_is_made_to_last_is_not_asked_for_again_while_it_is_fresh() {
    let (cache, backend) = cache(Answer::Versioned(pem(), "", HOUR), Duration::ZERO, Duration::ZERO, 10);
    let envelope = envelope("a");
    backend.gate.add_permits(10);
    let tag = cache.get(&envelope).await.unwrap().tag;
    assert_eq!(cache.get(&envelope).await.unwrap().tag, tag);
    assert!(cache.peek(&tag).is_some());
    assert_eq!(backend.calls.load(Ordering::SeqCst), 1);
}
