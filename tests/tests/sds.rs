//! The resolver's two sockets, by a client that is no Envoy: what SDS sends and what not, and whoever speaks nonsense.

use bouncer_proto::intercept::v1::DecideRequest;
use bouncer_tests::intercept::{Decider, question};
use bouncer_tests::sds::{self, Delta};
use bouncer_tests::stack::{CART, Stack};
use bouncer_tests::{Fault, Result};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// An answer comes within milliseconds. None within this time is none.
const QUIET: Duration = Duration::from_millis(1_500);
const SOON: Duration = Duration::from_secs(10);

async fn told(stream: &mut Delta) -> Result<sds::Told> {
    stream.next_within(SOON).await?.ok_or_else(|| Fault::new("no answer"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_sent_once_whatever_envoy_says_to_it() -> Result<()> {
    let stack = Stack::builder("sds").without_envoy().start().await?;
    let setup = stack.resolver()?.setup();
    let tag = Decider::at(&setup.intercept_socket).await?.decide(CART).await?;
    let (channel, name) = (sds::connect(&setup.sds_socket).await?, format!("{}/{tag}", setup.sds_key));

    // Refused: it is not sent again.
    let mut refusing = Delta::open(&channel, "payments", &name, None).await?;
    let first = told(&mut refusing).await?;
    assert_eq!(first.version, tag);
    refusing.nack(&first).await?;
    assert_eq!(refusing.next_within(QUIET).await?, None, "a refusal makes no loop");
    assert_eq!(stack.resolver()?.metric("bouncer_resolver_sds_nacks_total").await?, Some(1));

    // Reset, and back with what it has: nothing. The control: back with another version.
    drop(refusing);
    let mut back = Delta::open(&channel, "payments", &name, Some(&tag)).await?;
    assert_eq!(back.next_within(QUIET).await?, None, "what is held is not sent again");
    let mut other = Delta::open(&channel, "payments", &name, Some("another")).await?;
    assert_eq!(told(&mut other).await?.version, tag);

    // Each of them is told when it ends, once.
    stack.api()?.enable_envelope(stack.envelopes.values().next().map_or("", String::as_str), false).await?;
    for stream in [&mut back, &mut other] {
        assert_eq!(told(stream).await?.version, "", "removed");
        assert_eq!(stream.next_within(QUIET).await?, None);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_is_answered_and_only_the_right_one_with_a_secret() -> Result<()> {
    let stack = Stack::builder("sds-names").without_envoy().start().await?;
    let setup = stack.resolver()?.setup();
    let tag = Decider::at(&setup.intercept_socket).await?.decide(CART).await?;
    let channel = sds::connect(&setup.sds_socket).await?;
    let right = format!("{}/{tag}", setup.sds_key);
    let wrong_key = format!("{}/{tag}", "0".repeat(64));
    let long = format!("{right}{}", "x".repeat(100_000));
    for (cluster, name) in [
        ("payments", &*wrong_key),
        ("payments", &tag),
        ("payments", &long),
        ("payments", "named/payments"),
        ("payments", "ca/elsewhere"),
        ("payments", "../x"),
        ("elsewhere", &right),
    ] {
        let mut stream = Delta::open(&channel, cluster, name, None).await?;
        assert_eq!(told(&mut stream).await?.version, "", "{cluster} {name:.80}");
    }
    let mut stream = Delta::open(&channel, "payments", &right, None).await?;
    assert_eq!(told(&mut stream).await?.version, tag, "the control");
    Ok(())
}

/// Until the other side closes.
async fn closed(mut stream: UnixStream) -> Result<()> {
    let mut rest = vec![];
    match tokio::time::timeout(2 * SOON, stream.read_to_end(&mut rest)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Fault::new("the connection is still open")),
    }
}

async fn connection(socket: &Path, first: &[u8]) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(first).await?;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_nonsense_is_turned_away_and_harms_nobody() -> Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let stack = Stack::builder("sds-nonsense").without_envoy().start().await?;
    let setup = stack.resolver()?.setup();
    let mut decider = Decider::at(&setup.intercept_socket).await?;
    let mut slow = vec![];
    for socket in [&setup.intercept_socket, &setup.sds_socket] {
        let junk: Vec<u8> = (0..4_096_u32).map(|number| (number * 31 % 251) as u8).collect();
        // A frame of 16 MiB, and one of an unknown kind on a stream that nobody opened.
        let long = [PREFACE, b"\xff\xff\xff\x04\x00\x00\x00\x00\x00"].concat();
        let odd = [PREFACE, b"\x00\x00\x01\x00\x00\x00\x00\x00\x07x"].concat();
        for first in [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(), &junk, &long, &odd] {
            closed(connection(socket, first).await?).await?;
        }
        // Silent, or in the middle of the greeting: closed within a deadline.
        slow.push(closed(connection(socket, b"").await?));
        slow.push(closed(connection(socket, &PREFACE[..10]).await?));
        decider.decide(CART).await?;
    }
    futures::future::try_join_all(slow).await?;
    let oversized = DecideRequest { caller: "x".repeat(2 << 20), ..question(CART) };
    assert_eq!(decider.ask(oversized).await.map_err(|status| status.code()), Err(tonic::Code::OutOfRange));
    for odd in [
        DecideRequest { caller: "x".repeat(5_000), ..question(CART) },
        DecideRequest { authority: "two words".to_owned(), ..question(CART) },
        DecideRequest { cluster: String::new(), ..question(CART) },
        DecideRequest { protocol: "\u{0}".to_owned(), ..question(CART) },
    ] {
        let answer = decider.ask(odd).await.map_err(|status| status.code());
        assert_eq!(answer, Err(tonic::Code::InvalidArgument));
    }
    decider.decide(CART).await.map(drop)
}
