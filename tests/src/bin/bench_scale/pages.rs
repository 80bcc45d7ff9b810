//! Pages of a long list of envelope secrets against the same pages of a short one, through the API.

use crate::database::Databases;
use crate::plane::Plane;
use crate::{Sizes, progress};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bouncer_tests::api::Api;
use bouncer_tests::pki::{Ca, Leaf};
use bouncer_tests::stats::Spread;
use bouncer_tests::{Fault, Result};
use serde::Serialize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Secrets in the short list.
const SHORT: u32 = 1_000;
/// Items of a page: no more than every kind has in the short list.
const LIMIT: usize = 40;

/// One kind of page.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    /// What was asked for.
    pub kind: &'static str,
    /// Items of the page from each list.
    pub items: (usize, usize),
    /// From the short list.
    pub short_ms: Spread,
    /// From the long one.
    pub long_ms: Spread,
    /// The medians' ratio.
    pub ratio: f64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Pages {
    /// Secrets in each list.
    pub secrets: (u32, u32),
    /// Rounds.
    pub rounds: u32,
    /// Every kind.
    pub pages: Vec<Page>,
}

/// A kind of page, and how it is asked for in a list of so many.
type Ask = (&'static str, fn(u32) -> String);

const KINDS: [Ask; 16] = [
    ("first", |_| String::new()),
    ("middle", |_| after("protected-resources/team-25")),
    ("last", |_| after("protected-resources/team-49/service-0")),
    ("with a common text", |_| "q=upstream".to_owned()),
    ("with a text of the last ones", |_| "q=zz-tail".to_owned()),
    ("with a rare text", |_| "q=ZEBRA".to_owned()),
    ("with a text that none has", |_| "q=giraffe".to_owned()),
    ("with two common letters", |_| "q=te".to_owned()),
    ("with two letters of the last ones", |_| "q=zz".to_owned()),
    ("with two letters that none has", |_| "q=qx".to_owned()),
    ("with one whole path", |count| format!("q=team-{:02}%2Fservice-{:06}%2F", (count / 2) % 50, count / 2)),
    ("of a key", |_| "key_id=arn:aws:kms:ca-central-1:123456789012:key/2".to_owned()),
    ("of a provider", |_| "provider=vault_delegate".to_owned()),
    ("expiring", |_| "expires_before=2999-01-01T00:00:00Z".to_owned()),
    ("disabled", |_| "enabled=false".to_owned()),
    ("disabled of a provider, with a text", |_| "enabled=false&provider=vault_delegate&q=service".to_owned()),
];

fn after(path: &str) -> String {
    format!("cursor={}", URL_SAFE_NO_PAD.encode(path))
}

/// Fills two control planes and asks both, each first in turn.
///
/// # Errors
/// If something is not answered.
pub(crate) async fn measure(databases: &Databases, sizes: &Sizes) -> Result<Pages> {
    let short = filled(databases, "short", SHORT).await?;
    let long = filled(databases, "long", sizes.secrets).await?;
    let (short_api, long_api) = (short.control_plane.api()?, long.control_plane.api()?);
    progress(format_args!("asking for {} kinds of pages", KINDS.len()));
    let mut times = vec![(Vec::new(), Vec::new()); KINDS.len()];
    let mut items = vec![(0, 0); KINDS.len()];
    for round in 0..=sizes.page_rounds {
        for (at, (_, ask)) in KINDS.iter().enumerate() {
            let (from_short, from_long) = if round % 2 == 0 {
                let first = get(&short_api, &ask(SHORT)).await?;
                (first, get(&long_api, &ask(sizes.secrets)).await?)
            } else {
                let first = get(&long_api, &ask(sizes.secrets)).await?;
                (get(&short_api, &ask(SHORT)).await?, first)
            };
            items[at] = (from_short.1, from_long.1);
            // The first round fills caches.
            if round > 0 {
                times[at].0.push(from_short.0);
                times[at].1.push(from_long.0);
            }
        }
    }
    let page = |at: usize| {
        let ms = |times: &[Duration]| Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3));
        let (short_ms, long_ms) = (ms(&times[at].0), ms(&times[at].1));
        Page { kind: KINDS[at].0, items: items[at], ratio: long_ms.median / short_ms.median, short_ms, long_ms }
    };
    let pages = (0..KINDS.len()).map(page).collect();
    Ok(Pages { secrets: (SHORT, sizes.secrets), rounds: sizes.page_rounds, pages })
}

async fn filled(databases: &Databases, name: &str, secrets: u32) -> Result<Plane> {
    let plane = Plane::start(name, databases).await?;
    plane.control_plane.api()?.register_bouncer("payments-east", "spiffe://example.org/bouncer/payments-east").await?;
    let chain = Ca::new("bench")?.issue(&Leaf::new("client"))?.cert_pem;
    let end = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_hours(24);
    let mut connection = plane.database().await?;
    let start = Instant::now();
    connection.add_secrets(secrets.try_into()?, &chain, i64::try_from(end.as_millis())?).await?;
    progress(format_args!("{secrets} envelope secrets are registered, in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(plane)
}

async fn get(api: &Api, ask: &str) -> Result<(Duration, usize)> {
    let path = format!("/v1/crypto/envelope-secrets?limit={LIMIT}&{ask}");
    let start = Instant::now();
    let answer = api.get(&path).await?;
    let took = start.elapsed();
    let answer = answer.success()?;
    let items = answer["items"].as_array().ok_or_else(|| Fault::new("a page has no items"))?;
    Ok((took, items.len()))
}
