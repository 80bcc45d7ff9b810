//! Peers that hold a connection without using it, and those that use it for long.

use super::*;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures::StreamExt as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_util::sync::DropGuard;

/// Nothing here takes longer unless it is broken.
const DEADLINE: Duration = Duration::from_secs(30);
const PATIENCE: Patience = Patience { opening: Duration::from_secs(1), quiet: Duration::from_secs(1) };
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NO_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// An initial window of nothing (RFC 9113, section 6.5.2).
const NO_WINDOW: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

struct Server {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Server {
    async fn start(tls: Option<ServerConfig>, connections: u32, per_address: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let slow = async || {
            // A piece each one and a half times as long as a peer may be quiet.
            let pieces = futures::stream::iter(["a", "b", "c"]).then(async |piece| {
                tokio::time::sleep(PATIENCE.quiet * 3 / 2).await;
                Ok::<_, std::io::Error>(piece)
            });
            Body::from_stream(pieces)
        };
        let endless = async || {
            let piece = Bytes::from(vec![b'x'; 64 * 1_024]);
            Body::from_stream(futures::stream::repeat(piece).map(Ok::<_, std::io::Error>))
        };
        let router =
            Router::new().route("/", get(async || "good")).route("/slow", get(slow)).route("/endless", get(endless));
        let bounds = Bounds { connections, per_address, patience: PATIENCE };
        tokio::spawn(serve(listener, tls, router, bounds, stop.clone()));
        Self { address, _stop: stop.drop_guard() }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection whose peer has sent this.
    async fn sent(&self, bytes: &[u8]) -> TcpStream {
        let mut tcp = self.connect().await;
        tcp.write_all(bytes).await.unwrap();
        tcp
    }

    async fn connect_from(&self, address: IpAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }
}

/// What comes until the connection ends.
async fn rest(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A connection that is dropped with something unread ends by a reset.
    let _ = tokio::time::timeout(DEADLINE, io.read_to_end(&mut bytes)).await.expect("the connection was not ended");
    bytes
}

async fn is_served(mut tcp: TcpStream) -> bool {
    tcp.write_all(GET).await.is_ok() && rest(&mut tcp).await.ends_with(b"good")
}

/// The next frame's type, flags and content; none at the end.
async fn next(tcp: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    tcp.read_exact(&mut head).await.ok()?;
    let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    tcp.read_exact(&mut body).await.ok()?;
    Some((head[3], head[4], body))
}

/// The next frame that is for a stream, or says goodbye; settings and pings before it are acknowledged. None at the end.
async fn frame(tcp: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    loop {
        let (kind, flags, body) = next(tcp).await?;
        if !matches!(kind, SETTINGS | PING) {
            return Some((kind, flags, body));
        }
        if flags == 0 {
            let length = if kind == PING { 8 } else { 0 };
            let mut answer = vec![0, 0, length, kind, 1, 0, 0, 0, 0];
            answer.extend_from_slice(&body[..usize::from(length)]);
            // It may be over by now.
            let _ = tcp.write_all(&answer).await;
        }
    }
}

/// A GET of this path, as the first stream: method and scheme from the static table, the others as literals (RFC 7541).
fn get_by_http2(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x01, 1, b'x']);
    // It ends its headers and the stream.
    [&[0, 0, u8::try_from(block.len()).unwrap(), HEADERS, 0x05, 0, 0, 0, 1][..], &block].concat()
}

fn tls() -> (ServerConfig, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["here".to_owned()]).unwrap();
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    (server, TlsConnector::from(Arc::new(client.with_root_certificates(roots).with_no_client_auth())))
}

#[tokio::test]
async fn peers_that_send_nothing_or_half_a_head_do_not_keep_others_out() {
    for what in [&b""[..], b"G", b"GET / HTTP/1.1\r\nHo", &PREFACE[..9], PREFACE] {
        let server = Server::start(None, 4, 4).await;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(server.sent(what).await);
        }
        let shown = String::from_utf8_lossy(what);
        assert!(!is_served(server.connect().await).await, "the control: {shown:?} holds every connection");
        for tcp in &mut held {
            rest(tcp).await;
        }
        assert!(is_served(server.connect().await).await, "after {shown:?}");
    }
}

#[tokio::test]
async fn nor_do_those_that_fall_silent_around_a_handshake() {
    let (config, connector) = tls();
    let server = Server::start(Some(config), 2, 2).await;
    let mut before = server.connect().await;
    let after = connector.connect("here".try_into().unwrap(), server.connect().await);
    let mut after = tokio::time::timeout(DEADLINE, after).await.unwrap().unwrap();
    rest(&mut before).await;
    rest(&mut after).await;
    let mut good = connector.connect("here".try_into().unwrap(), server.connect().await).await.unwrap();
    good.write_all(GET).await.unwrap();
    assert!(rest(&mut good).await.ends_with(b"good"));
}

#[tokio::test]
async fn an_http2_peer_that_only_answers_pings_is_let_go() {
    let server = Server::start(None, 2, 2).await;
    let silent = server.sent(&[PREFACE, NO_SETTINGS].concat()).await;
    // And one that has asked before, and one that takes nothing of its answer.
    let asked = server.sent(&[PREFACE, NO_SETTINGS, &get_by_http2("/")].concat()).await;
    for (mut tcp, answered) in [(silent, false), (asked, true)] {
        let mut kinds = Vec::new();
        let end = async {
            while let Some((kind, ..)) = frame(&mut tcp).await {
                kinds.push(kind);
            }
        };
        tokio::time::timeout(DEADLINE, end).await.expect("it was not let go");
        assert_eq!(kinds.contains(&HEADERS), answered, "{kinds:?}");
    }
    let mut stalled = server.sent(&[PREFACE, NO_WINDOW, &get_by_http2("/")].concat()).await;
    let end = async { while frame(&mut stalled).await.is_some() {} };
    tokio::time::timeout(DEADLINE, end).await.expect("it was not let go");
}

#[tokio::test]
async fn a_peer_that_takes_nothing_of_its_answer_is_let_go() {
    let server = Server::start(None, 1, 1).await;
    let _stalled = server.sent(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let freed = async { while !is_served(server.connect().await).await {} };
    tokio::time::timeout(DEADLINE, freed).await.expect("it is still served");
}

#[tokio::test]
async fn an_answer_that_takes_long_is_not_cut_off() {
    let server = Server::start(None, 4, 4).await;
    let mut http1 = server.sent(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let mut http2 = server.sent(&[PREFACE, NO_SETTINGS, &get_by_http2("/slow")].concat()).await;
    let by_http2 = async {
        let mut data = Vec::new();
        while let Some((kind, flags, body)) = frame(&mut http2).await {
            if kind == 0 {
                data.extend_from_slice(&body);
            }
            if flags & 1 == 1 {
                return data;
            }
        }
        panic!("it was cut off after {data:?}");
    };
    let (by_http1, by_http2) = tokio::join!(rest(&mut http1), tokio::time::timeout(DEADLINE, by_http2));
    assert!(by_http1.ends_with(b"1\r\nc\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&by_http1));
    assert_eq!(by_http2.unwrap(), b"abc");
}

#[tokio::test]
async fn one_address_cannot_have_every_connection() {
    let server = Server::start(None, 8, 2).await;
    // These are in use, and so there for as long as they like.
    let slow = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";
    let _held = [server.sent(slow).await, server.sent(slow).await];
    assert!(!is_served(server.connect().await).await);
    let other = server.connect_from(Ipv4Addr::new(127, 0, 0, 2).into()).await;
    assert!(is_served(other).await, "another address has a share of its own");
}

#[tokio::test]
async fn an_http2_peer_is_told_how_much_it_may_ask_for_at_once() {
    let server = Server::start(None, 1, 1).await;
    let mut tcp = server.sent(&[PREFACE, NO_SETTINGS].concat()).await;
    let (kind, _, body) = next(&mut tcp).await.unwrap();
    assert_eq!(kind, SETTINGS);
    let settings: Vec<_> = body.chunks(6).map(|setting| setting.split_at(2)).collect();
    // SETTINGS_MAX_CONCURRENT_STREAMS and SETTINGS_MAX_HEADER_LIST_SIZE.
    for (id, value) in [(3u16, 64u32), (6, 16_384)] {
        assert!(settings.contains(&(&id.to_be_bytes()[..], &value.to_be_bytes()[..])), "{id}: {settings:?}");
    }
}
