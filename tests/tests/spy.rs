//! A malicious filter under the shipped configuration, which knows every tag and every cluster, tries every host call in
//! every callback, and finds neither the customer's private key nor the key of SDS names.
//!
//! Whether it would have found them is shown by the controls: the same search, with one thing that guards them taken
//! away.

mod support;

use bouncer_tests::client::ENVOY_NAME;
use bouncer_tests::envoy::{Bootstrap, Version, at};
use bouncer_tests::leak::Needles;
use bouncer_tests::pki::{Ca, Leaf};
use bouncer_tests::stack::{BILLING, CART, Cluster, Credential, Stack};
use bouncer_tests::upstream::{ClientAuth, Upstream};
use bouncer_tests::{Result, tools};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use support::Raw;

/// What guards the secret, as shipped but for what a scenario changes.
#[derive(Default, Clone, Copy)]
struct World {
    /// Mode `named`.
    named: bool,
    /// The spy is told the SDS key: as if it were not in the name.
    key_is_known: bool,
    /// No capability list: every host call and every callback.
    no_list: bool,
    /// HTTP calls in place of gRPC.
    http_calls: bool,
    /// The spy has a server of its own that Envoy can reach.
    own_server: bool,
}

/// One report of the spy's.
struct Told {
    place: String,
    what: String,
    status: u32,
    bytes: Vec<u8>,
}

/// What came of it.
struct Found {
    told: Vec<Told>,
    /// Where pieces of the customer's private keys turned up.
    private_key: Vec<String>,
    /// Where pieces of the SDS key turned up.
    sds_key: Vec<String>,
    /// Requests that upstreams saw and no client sent.
    own_requests: Vec<String>,
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

    /// Whether anything it was answered holds this text.
    fn heard(&self, text: &str) -> bool {
        let holds = |told: &&Told| told.bytes.windows(text.len()).any(|window| window == text.as_bytes());
        self.told.iter().filter(|told| told.what == "message").any(|told| holds(&told))
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn told(log: &str) -> Vec<Told> {
    let line = |line: &str| {
        let mut fields = line.split_once("SPY|")?.1.trim_end().split('|');
        Some(Told {
            place: fields.next()?.to_owned(),
            what: fields.next()?.to_owned(),
            status: fields.next()?.parse().ok()?,
            bytes: unhex(fields.next()?),
        })
    };
    log.lines().filter_map(line).collect()
}

/// Runs the spy in the place of the filter, with one request that stays open until it has looked around for long enough.
async fn spy(scenario: &str, world: World) -> Result<Found> {
    let own_ca = Ca::new("the spy's")?;
    let own = Upstream::start_with(&own_ca.issue(&Leaf::server("spy.example")?)?, &ClientAuth::None, &["h2"]).await?;
    let mut config = json!({"clusters": ["payments", "ledger"], "callers": [CART, BILLING]});
    if world.own_server {
        config["own_server"] = own.address().to_string().into();
        config["own_ca"] = own_ca.pem().into();
    }
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
    // It waits for its body upstream: long after the resume, with the secret in Envoy.
    let looked = || async {
        let rounds = stack.envoy().ok()?.process().log().matches("SPIED|").count();
        let up = stack.upstream("payments").ok()?.handshakes().iter().any(|handshake| handshake.peer.is_some());
        (rounds > 20 && up).then_some(())
    };
    stack.until("the spy's rounds over a live stream", Duration::from_secs(20), looked).await?;
    request.send("2").await?;
    let (status, answer) = request.answer().await?;
    assert_eq!(status, 200, "{answer}");
    let gone = || async { stack.envoy().ok()?.process().log().contains("SPY|delete|").then_some(()) };
    stack.until("the spy's last look", Duration::from_secs(5), gone).await?;
    let (sds_key, _) = key_and_socket.lock().unwrap_or_else(PoisonError::into_inner).clone();
    judge(&stack, &own, &sds_key)
}

fn take_the_place(bootstrap: &mut Bootstrap, config: &str, world: World) -> Result<()> {
    let filter = at(bootstrap.http_filter("bouncer")?, "typed_config.config")?;
    at(filter, "configuration")?["value"] = config.into();
    if let (true, Some(filter)) = (world.no_list, filter.as_mapping_mut()) {
        filter.remove("capability_restriction_config");
    }
    if world.http_calls
        && let Some(list) = at(filter, "capability_restriction_config.allowed_capabilities")?.as_mapping_mut()
    {
        list.retain(|name, _| name.as_str().is_some_and(|name| !name.contains("grpc")));
        for name in ["proxy_http_call", "proxy_on_http_call_response"] {
            list.insert(name.into(), serde_norway::from_str("{}")?);
        }
    }
    Ok(())
}

/// Searches everything that the spy said, and everything that reached the server of its own.
fn judge(stack: &Stack, own: &Upstream, sds_key: &str) -> Result<Found> {
    let log = stack.envoy()?.process().log();
    let told = told(&log);
    let mut reports: Vec<(String, Vec<u8>)> =
        told.iter().map(|told| (format!("{}: {}", told.place, told.what), told.bytes.clone())).collect();
    for seen in own.requests() {
        reports.push((format!("its own server: {}", seen.path), serde_json::to_vec(&seen)?));
    }
    reports.push(("Envoy's log".to_owned(), log.into_bytes()));
    let search = |needles: &Needles| {
        let hits = reports.iter().filter(|(place, bytes)| !needles.search(bytes, place).is_empty());
        hits.map(|(place, _)| place.clone()).collect::<Vec<_>>()
    };
    let mut private_key = vec![];
    for credential in stack.credentials.values() {
        private_key.extend(search(&Needles::of(&credential.private_scalar()?)?));
    }
    let sds_key = search(&Needles::of(sds_key.as_bytes())?);
    let mut own_requests = vec![];
    for (cluster, upstream) in &stack.upstreams {
        let foreign = upstream.requests().into_iter().filter(|seen| seen.path != "/held");
        own_requests.extend(foreign.map(|seen| format!("{cluster} {} as {:?}", seen.path, seen.peer)));
    }
    Ok(Found { told, private_key, sds_key, own_requests })
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_all() -> Result<()> {
    for (name, world) in [
        ("list", World::default()),
        ("list+own", World { own_server: true, ..World::default() }),
        ("http", World { own_server: true, http_calls: true, ..World::default() }),
        ("a", World { key_is_known: true, ..World::default() }),
        ("a-http", World { key_is_known: true, http_calls: true, ..World::default() }),
        ("b", World { no_list: true, ..World::default() }),
        ("named", World { named: true, ..World::default() }),
        ("named-http", World { named: true, own_server: true, http_calls: true, ..World::default() }),
        ("named-a", World { named: true, key_is_known: true, ..World::default() }),
        ("named-b", World { named: true, no_list: true, ..World::default() }),
    ] {
        let start = std::time::Instant::now();
        match spy(&format!("spy-{name}"), world).await {
            Ok(found) => {
                println!("=== {name} {:?}\nPLACES {:?}\nPROP {:?} SDS {:?} HTTP {:?}", start.elapsed(), found.places(), found.statuses("property"), found.statuses("DeltaSecrets stream"), found.statuses("DeltaSecrets http"));
                println!("PRIV {:?}\nSDS {:?}\nUSE {:?} heard {}", found.private_key, found.sds_key, found.own_requests, found.heard(&"0".repeat(64)));
            }
            Err(error) => println!("=== {name} {error:?}"),
        }
    }
    Ok(())
}
