//! A malicious filter under the shipped configuration, which knows every tag and every cluster, tries every host call in
//! every callback, and finds neither the customer's private key nor the key of SDS names.
//!
//! Whether it would have found them is shown by the controls: the same search, with one thing that guards them taken
//! away.

mod support;

use bouncer_tests::client::ENVOY_NAME;
use bouncer_tests::envoy::{Bootstrap, Version, at};
use bouncer_tests::leak::Needles;
use bouncer_tests::pki::{Ca, Identity, Leaf};
use bouncer_tests::stack::{BILLING, CART, Cluster, Credential, Stack};
use bouncer_tests::upstream::{ClientAuth, Upstream};
use bouncer_tests::{Result, tools};
use serde_json::json;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use support::Raw;

/// What guards the secret: everything that is shipped, but for what a control takes away.
#[derive(Default, Clone, Copy)]
struct World {
    /// Mode `named`.
    named: bool,
    /// The spy is told the SDS key: as if it were not in the name.
    key_is_known: bool,
    /// No capability list: every host call and every callback.
    no_list: bool,
    /// gRPC calls are on the list.
    grpc_calls: bool,
}

/// One report of the spy's.
struct Told {
    place: String,
    what: String,
    status: u32,
    bytes: Vec<u8>,
}

/// What came of it.
#[derive(Default)]
struct Found {
    told: Vec<Told>,
    /// Where pieces of the customer's private keys turned up.
    private_key: Vec<String>,
    /// Where pieces of the SDS key turned up.
    sds_key: Vec<String>,
    /// Requests that upstreams saw and no client sent.
    own_requests: Vec<String>,
    /// How often it looked while a stream was open.
    rounds: usize,
}

impl Found {
    /// The callbacks and moments in which it looked.
    fn places(&self) -> BTreeSet<&str> {
        self.told.iter().map(|told| told.place.as_str()).collect()
    }

    /// The statuses that a kind of attempt met with.
    fn statuses(&self, what: &str) -> BTreeSet<u32> {
        self.told.iter().filter(|told| told.what.starts_with(what)).map(|told| told.status).collect()
    }

    /// Whether SDS answered its guesses, of which the key of zeros is one.
    fn was_answered(&self) -> bool {
        let guess = "0".repeat(64);
        let holds = |told: &&Told| told.bytes.windows(guess.len()).any(|window| window == guess.as_bytes());
        self.told.iter().filter(|told| told.what == "message").any(|told| holds(&told))
    }

    /// Whether it looked when its stream had ended.
    fn looked_at_the_end(&self) -> bool {
        self.places().contains("delete")
    }

    /// Whether it looked from everywhere that it can, while its stream is open, under the shipped list, and asked SDS.
    fn looked_everywhere(&self) -> bool {
        let places = self.places();
        self.rounds > 10 && self.was_answered() && PLACES.iter().all(|place| places.contains(place))
    }
}

/// Where the spy looks under the shipped list.
const PLACES: [&str; 8] = [
    "configure",
    "request headers",
    "http answer",
    "before the resume",
    "at the resume",
    "answer after the resume",
    "tick",
    "tick on a live stream",
];

/// What the host says to a call that is not on the list.
const REFUSED: u32 = 10;

/// And to one of WASI's.
const NOT_CAPABLE: u32 = 76;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A report in a line of Envoy's log.
fn told(line: &str) -> Option<Told> {
    let mut fields = line.split_once("SPY|")?.1.trim_end().split('|');
    Some(Told {
        place: fields.next()?.to_owned(),
        what: fields.next()?.to_owned(),
        status: fields.next()?.parse().ok()?,
        bytes: unhex(fields.next()?),
    })
}

/// Runs the spy in the place of the filter, with one request that stays open until it has seen enough.
async fn spy(scenario: &str, world: World, enough: impl Fn(&Found) -> bool) -> Result<Found> {
    let own_ca = Ca::new("the spy's")?;
    let own = Upstream::start_with(&own_ca.issue(&Leaf::server("spy.example")?)?, &ClientAuth::None, &["h2"]).await?;
    let mut config = json!({
        "clusters": ["payments", "ledger"], "callers": [CART, BILLING],
        "own_server": own.address().to_string(), "own_ca": own_ca.pem(),
    });
    let key_and_socket = Arc::new(Mutex::new(Default::default()));
    let (learn, known) = (Arc::clone(&key_and_socket), Arc::clone(&key_and_socket));
    let mut builder = Stack::builder(scenario).workers(1).own_bridge().filter(tools::wasm("bouncer_spy.wasm")?);
    if world.named {
        builder = builder.named(Version::Current);
    }
    let stack = builder
        .cluster(Cluster::new("payments"))
        .cluster(Cluster::new("ledger"))
        .credential(Credential::new("payments-api", "payments").callers(&[CART, BILLING]))
        .credential(Credential::new("ledger-api", "ledger").callers(&[CART]))
        .resolver(move |setup| {
            let (key, socket) = (setup.sds_key.clone(), setup.sds_socket.clone());
            *learn.lock().unwrap_or_else(PoisonError::into_inner) = (key, socket);
        })
        .bootstrap(move |bootstrap| {
            let (key, socket) = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
            config["files"] = json!([socket.with_file_name("sds.key"), socket.with_file_name("envoy.yaml")]);
            config["sds_socket"] = json!(socket);
            if world.key_is_known {
                config["keys"] = json!([key]);
            }
            take_the_place(bootstrap, &config.to_string(), world)
        })
        .start()
        .await?;

    let client = stack.identities.mint(CART)?;
    let mut request = Raw::open(&stack, &client, ENVOY_NAME).await?;
    request.send("POST /held HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\n1").await?;
    let (sds_key, _) = key_and_socket.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // It waits for its body upstream meanwhile: long after the resume, with the secret in Envoy.
    let judge = RefCell::new(Judge::new(&stack, &own, &sds_key)?);
    let seen = || async { judge.borrow_mut().look().is_ok_and(&enough).then_some(()) };
    stack.until("enough of the spy's looks", Duration::from_secs(20), seen).await?;
    request.send("2").await?;
    let (status, answer) = request.answer().await?;
    assert!(status == 200 || world.key_is_known, "{answer}");
    // From the callback at the stream's end too.
    let ended = || async { judge.borrow_mut().look().is_ok_and(Found::looked_at_the_end).then_some(()) };
    stack.until("the spy's look at the end", Duration::from_secs(20), ended).await?;
    Ok(judge.into_inner().found)
}

fn take_the_place(bootstrap: &mut Bootstrap, config: &str, world: World) -> Result<()> {
    let filter = at(bootstrap.http_filter("bouncer")?, "typed_config.config")?;
    at(filter, "configuration")?["value"] = config.into();
    if let (true, Some(filter)) = (world.no_list, filter.as_mapping_mut()) {
        filter.remove("capability_restriction_config");
    }
    if world.grpc_calls
        && let Some(list) = at(filter, "capability_restriction_config.allowed_capabilities")?.as_mapping_mut()
    {
        for name in ["proxy_grpc_call", "proxy_grpc_stream", "proxy_grpc_send", "proxy_on_grpc_receive"] {
            list.insert(name.into(), serde_norway::from_str("{}")?);
        }
    }
    Ok(())
}

/// Searches everything that the spy said, and everything that reached the server of its own.
struct Judge<'a> {
    stack: &'a Stack,
    own: &'a Upstream,
    private_keys: Vec<Needles>,
    sds_key: Needles,
    /// How much of Envoy's log and of that server's requests has been searched.
    read: (usize, usize),
    found: Found,
}

impl<'a> Judge<'a> {
    fn new(stack: &'a Stack, own: &'a Upstream, sds_key: &str) -> Result<Self> {
        let private_key = |credential: &Identity| Needles::of(&credential.private_scalar()?);
        let private_keys = stack.credentials.values().map(private_key).collect::<Result<_>>()?;
        let sds_key = Needles::of(sds_key.as_bytes())?;
        Ok(Self { stack, own, private_keys, sds_key, read: (0, 0), found: Found::default() })
    }

    fn search(&mut self, place: &str, bytes: &[u8]) {
        if self.private_keys.iter().any(|key| !key.search(bytes, place).is_empty()) {
            self.found.private_key.push(place.to_owned());
        }
        if !self.sds_key.search(bytes, place).is_empty() {
            self.found.sds_key.push(place.to_owned());
        }
    }

    /// Searches what is new.
    fn look(&mut self) -> Result<&Found> {
        let log = self.stack.envoy()?.process().log();
        let end = log.rfind('\n').map_or(0, |end| end + 1);
        for line in log[self.read.0..end].lines() {
            self.found.rounds += usize::from(line.contains("SPIED|"));
            if let Some(told) = told(line) {
                self.search(&format!("{}: {}", told.place, told.what), &told.bytes);
                self.found.told.push(told);
            } else {
                self.search("Envoy's log", line.as_bytes());
            }
        }
        let sent = self.own.requests();
        for seen in &sent[self.read.1..] {
            self.search(&format!("its own server: {}", seen.path), &serde_json::to_vec(&seen)?);
        }
        self.read = (end, sent.len());
        self.found.own_requests.clear();
        for (cluster, upstream) in &self.stack.upstreams {
            let foreign = upstream.requests().into_iter().filter(|seen| seen.path != "/held");
            let foreign = foreign.map(|seen| format!("{cluster} {} as {:?}", seen.path, seen.peer));
            self.found.own_requests.extend(foreign);
        }
        Ok(&self.found)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sandbox_finds_no_secret() -> Result<()> {
    let found = spy("spy", World::default(), Found::looked_everywhere).await?;
    assert_eq!(found.private_key, Vec::<String>::new());
    assert_eq!(found.sds_key, Vec::<String>::new());
    // Nor does it use what it can't have: its own calls to the upstreams present no certificate, and so do not arrive.
    assert_eq!(found.statuses("http payments"), BTreeSet::from([0]));
    assert_eq!(found.own_requests, Vec::<String>::new());
    assert_eq!(found.statuses("environment"), BTreeSet::from([NOT_CAPABLE]));
    for what in ["property", "create", "headers", "shared", "foreign", "own channel", "sends out"] {
        assert_eq!(found.statuses(what), BTreeSet::from([REFUSED]), "{what}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mode_named_it_finds_none_either() -> Result<()> {
    let found = spy("spy-named", World { named: true, ..World::default() }, Found::looked_everywhere).await?;
    assert_eq!(found.private_key, Vec::<String>::new());
    assert_eq!(found.sds_key, Vec::<String>::new());
    // What this mode cannot keep from it: calls of its own to a cluster whose credential a stream has brought.
    assert!(found.own_requests.iter().all(|seen| seen.contains("payments-api") || seen.contains("ledger-api")));
    Ok(())
}

/// The key in the name is what keeps the sandbox from asking as Envoy does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_a_spy_that_knows_the_sds_key_has_the_private_key() -> Result<()> {
    for named in [false, true] {
        let world = World { named, key_is_known: true, ..World::default() };
        let found = spy("spy-key", world, |found| !found.private_key.is_empty()).await?;
        assert!(found.private_key.iter().any(|place| place == "answer: message"), "{:?}", found.private_key);
    }
    Ok(())
}

/// The list is what keeps it from reading that name, also by a call that answers after the resume.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_a_spy_without_a_capability_list_reads_the_name_and_has_the_private_key() -> Result<()> {
    let late = |place: &String| place.starts_with("answer after the resume: property filter_state[");
    let world = World { no_list: true, ..World::default() };
    let found = spy("spy-free", world, |found| !found.private_key.is_empty() && found.sds_key.iter().any(late)).await?;
    assert!(found.sds_key.iter().any(|place| place.starts_with("response headers: property")), "{:?}", found.sds_key);
    Ok(())
}

/// And it has no gRPC calls, since those name more than a cluster: a channel to anywhere, for which Envoy reads
/// credentials from its environment and its files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_a_spy_with_grpc_calls_has_envoy_send_its_environment_away() -> Result<()> {
    let sent = |place: &String| place.starts_with("its own server");
    let world = World { grpc_calls: true, ..World::default() };
    let found = spy("spy-grpc", world, |found| found.sds_key.iter().any(sent)).await?;
    assert_eq!(found.private_key, Vec::<String>::new(), "with a server that only listens");
    Ok(())
}
