//! The harness itself: each part works alone, against the real thing where there is one.

use bouncer_tests::client::{Client, ENVOY_NAME, Protocol};
use bouncer_tests::envoy::{Bootstrap, Envoy, Rendered, Values, Version, at};
use bouncer_tests::kms::Kms;
use bouncer_tests::kms_proxy::Behaviour as KmsBehaviour;
use bouncer_tests::leak::Needles;
use bouncer_tests::pki::{Ca, Identity, Leaf};
use bouncer_tests::scratch::Scratch;
use bouncer_tests::spire::{Entry, Selector, Spire};
use bouncer_tests::upstream::{ClientAuth, Upstream};
use bouncer_tests::workload_api::{Behaviour, TrustDomain, WorkloadApi};
use bouncer_tests::{Fault, Result, tools};
use spiffe::WorkloadApiClient;
use std::path::Path;
use std::time::Duration;

const BOUNCER: &str = "spiffe://example.org/bouncer/payments-east";
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn kms_decrypts_under_the_same_pairs_only_and_its_proxy_counts_and_fails_calls() -> Result<()> {
    let scratch = Scratch::new("kms")?;
    let kms = Kms::start(&scratch).await?;
    let (key, other) = (kms.create_key().await?, kms.create_key().await?);
    let blob = kms.encrypt(&key, "env=production,bouncer=a", b"plaintext").await?;
    assert_eq!(kms.decrypt(&key, "bouncer=a,env=production", &blob).await?, b"plaintext");
    assert!(kms.decrypt(&key, "env=production", &blob).await.is_err());
    assert!(kms.decrypt(&other, "env=production,bouncer=a", &blob).await.is_err());
    let http = reqwest::Client::builder().no_proxy().build()?;
    let generate = || {
        let body = format!(r#"{{"KeyId":"{key}","NumberOfBytes":32}}"#);
        let request = http.post(kms.endpoint()).header("x-amz-target", "TrentService.GenerateRandom").body(body);
        async move { Ok::<_, Fault>(request.send().await?.text().await?) }
    };
    kms.disable_key(&key).await?;
    assert!(generate().await?.contains("DisabledException"));
    kms.enable_key(&key).await?;
    assert!(!generate().await?.contains("DisabledException"));

    let call = || http.post(kms.endpoint()).header("x-amz-target", "TrentService.ListKeys").body("{}").send();
    assert_eq!(call().await?.status(), 200);
    kms.proxy().behave("ListKeys", KmsBehaviour::Fail(400, "ThrottlingException"));
    let failed = call().await?;
    assert_eq!(failed.status(), 400);
    assert!(failed.text().await?.contains("ThrottlingException"));
    kms.proxy().behave("ListKeys", KmsBehaviour::Refuse);
    assert!(call().await.is_err());
    kms.proxy().behave("ListKeys", KmsBehaviour::Hold);
    let held = tokio::spawn(call());
    scratch
        .until("the held call's arrival", SOON, || async { (kms.proxy().count("ListKeys") == 4).then_some(()) })
        .await?;
    assert!(!held.is_finished());
    kms.proxy().behave("ListKeys", KmsBehaviour::Forward);
    assert_eq!(held.await??.status(), 200);
    Ok(())
}

#[tokio::test]
async fn our_workload_api_serves_the_spiffe_client_and_rotates_and_fails_on_demand() -> Result<()> {
    let scratch = Scratch::new("workload")?;
    let domain = TrustDomain::new()?;
    let api = WorkloadApi::start(&domain, &scratch.file("wl.sock"), BOUNCER)?;
    let client = WorkloadApiClient::connect_to(api.address()).await?;
    let svid = client.fetch_x509_svid().await?;
    assert_eq!(svid.spiffe_id().to_string(), BOUNCER);
    let token = client.fetch_jwt_token(["sts.amazonaws.com"], None).await?;
    assert_eq!(token.split('.').count(), 3);
    assert_eq!(client.fetch_jwt_bundles().await?.len(), 1);

    let source = spiffe::X509Source::builder().endpoint(api.address()).build().await?;
    let before = source.svid()?.leaf().as_bytes().to_vec();
    api.rotate(Duration::from_mins(1))?;
    scratch
        .until("the source's rotation", SOON, || async {
            (source.svid().ok()?.leaf().as_bytes() != before).then_some(())
        })
        .await?;
    api.behave(Behaviour::Refusing);
    assert!(client.fetch_x509_svid().await.is_err());
    api.behave(Behaviour::Silent);
    assert!(tokio::time::timeout(Duration::from_millis(300), client.fetch_x509_svid()).await.is_err());
    api.behave(Behaviour::Answering);
    client.fetch_x509_svid().await?;
    Ok(())
}

#[tokio::test]
async fn real_spire_tells_programs_apart_by_their_path() -> Result<()> {
    let scratch = Scratch::new("spire")?;
    let own = std::env::current_exe()?;
    let elsewhere = tools::tool("spire-server")?;
    let entries = [
        Entry { spiffe_id: BOUNCER, known_by: Selector::Path(&own) },
        Entry { spiffe_id: "spiffe://example.org/bouncer/other", known_by: Selector::Path(&elsewhere) },
    ];
    let spire = Spire::start(&scratch, &entries).await?;
    let client = WorkloadApiClient::connect_to(spire.address()).await?;
    let svids = scratch
        .until("an identity from SPIRE", Duration::from_secs(20), || async { client.fetch_all_x509_svids().await.ok() })
        .await?;
    let ids: Vec<_> = svids.iter().map(|svid| svid.spiffe_id().to_string()).collect();
    assert_eq!(ids, [BOUNCER]);
    client.fetch_jwt_token(["sts.amazonaws.com"], None).await?;
    let minted = spire.mint("spiffe://example.org/ns/shop/sa/cart")?;
    assert!(minted.private_scalar().is_ok());
    assert!(spire.bundle()?.contains("BEGIN CERTIFICATE"));
    Ok(())
}

#[tokio::test]
async fn the_upstream_sees_who_calls_and_refuses_bad_certificates() -> Result<()> {
    let (servers, customer) = (Ca::new("servers")?, Ca::new("customer")?);
    let server = servers.issue(&Leaf::server(ENVOY_NAME)?)?;
    let upstream = Upstream::start(&server, &ClientAuth::Required(customer.roots()?)).await?;
    let good = customer.issue(&Leaf::new("alice").serial(7).uri("urn:customer:alice")?)?;
    let connect =
        |identity: Option<&Identity>, protocol| Client::new(upstream.address(), servers.pem(), identity, protocol);

    for (protocol, name) in [(Protocol::Http1, "HTTP/1.1"), (Protocol::Http2, "HTTP/2.0")] {
        let client = connect(Some(&good), protocol)?;
        let first = client.get_with("/a?b=c", &[("x-test", "1")]).await?.seen()?;
        let second = client.get("/status/418").await?;
        assert_eq!(second.status, 418);
        assert_eq!(first.connection, second.seen()?.connection, "connections are kept");
        assert_eq!((first.protocol.as_str(), first.path.as_str()), (name, "/a?b=c"));
        assert_eq!(first.headers["x-test"], "1");
        let peer = first.peer.ok_or_else(|| Fault::new("no peer"))?;
        assert_eq!((peer.common_name.as_str(), peer.serial), ("alice", 7));
        assert_eq!(peer.uris, ["urn:customer:alice"]);
    }
    let once = connect(Some(&good), Protocol::Http1Once)?;
    assert_ne!(once.get("/").await?.seen()?.connection, once.get("/").await?.seen()?.connection);

    let seen = upstream.requests().len();
    assert!(connect(None, Protocol::Http1)?.get("/").await.is_err());
    for bad in [
        customer.issue(&Leaf::new("alice").expired())?,
        customer.issue(&Leaf::new("alice").not_yet_valid())?,
        servers.issue(&Leaf::new("alice"))?,
    ] {
        assert!(connect(Some(&bad), Protocol::Http1)?.get("/").await.is_err());
    }
    // rustls itself refuses a key that isn't the certificate's.
    assert!(connect(Some(&good.with_key_of(&customer.issue(&Leaf::new("bob"))?)), Protocol::Http1).is_err());
    assert_eq!(upstream.requests().len(), seen);
    assert_eq!(upstream.handshakes().iter().filter(|handshake| handshake.error.is_some()).count(), 4);
    Ok(())
}

#[tokio::test]
async fn a_leak_is_found_in_every_shape_and_every_place() -> Result<()> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let scratch = Scratch::new("leak")?;
    let identity = Ca::new("customer")?.issue(&Leaf::new("canary"))?;
    let secret = identity.private_scalar()?;
    let needles = Needles::of(&secret)?;
    let shapes = |bytes: &[u8]| needles.search(bytes, "here").iter().map(|hit| hit.shape).collect::<Vec<_>>();

    assert_eq!(shapes(&identity.key_der), ["raw"]);
    assert_eq!(shapes(identity.key_pem.replace('\n', "").as_bytes()), ["base64"]);
    assert_eq!(shapes(&secret[9..25]), ["raw"], "16 bytes are enough");
    assert_eq!(shapes(&secret[9..24]), Vec::<&str>::new());
    for shift in 0..3 {
        let shifted = [&b"xyz"[..shift], &secret[..]].concat();
        assert!(!shapes(STANDARD.encode(shifted).as_bytes()).is_empty(), "{shift}");
    }
    assert!(shapes(identity.cert_pem.as_bytes()).is_empty());

    scratch.write("sub/clean.log", "nothing here")?;
    assert!(needles.search_files(scratch.path())?.is_empty());
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    scratch.write("sub/dirty.log", format!("key={hex}"))?;
    assert_eq!(needles.search_files(scratch.path())?.len(), 1);

    // Written anew all the time, as state files are: it is always there, under one name or the other.
    let (new, file) = (scratch.file("sub/dirty.log.new"), scratch.file("sub/dirty.log"));
    let content = std::fs::read(&file)?;
    std::thread::scope(|scope| -> Result<()> {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let writer = scope.spawn(move || -> std::io::Result<u32> {
            let mut renames = 0;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                std::fs::write(&new, &content)?;
                std::fs::rename(&new, &file)?;
                renames += 1;
            }
            Ok(renames)
        });
        let searched = (0..500).try_for_each(|_| {
            let hits = needles.search_files(scratch.path())?;
            if hits.is_empty() { Err(Fault::new("not found while it took another name")) } else { Ok(()) }
        });
        drop(stop);
        assert!(writer.join().expect("the writer does not panic")? > 0);
        searched
    })?;

    // A process that holds the file's content, and one that does not.
    let marker = "marker-of-this-scenario";
    let hold = |name: &str, file: &Path| {
        let script =
            r#"read -r held < "$1"; marker=$2; echo ready; exec 3<>"$3"; read -r end <&3; echo "$held$marker""#;
        let pipe = scratch.file(&format!("{name}.pipe"));
        let mut command = std::process::Command::new("bash");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        command.args(["-c", script, "bash"]).arg(file).arg(marker).arg(pipe);
        made?;
        bouncer_tests::process::Process::spawn(name, &scratch, command)
    };
    let (clean, dirty) =
        (hold("clean", &scratch.file("sub/clean.log"))?, hold("dirty", &scratch.file("sub/dirty.log"))?);
    clean.logs("ready", SOON).await?;
    dirty.logs("ready", SOON).await?;
    assert!(needles.search_memory(clean.pid())?.is_empty());
    assert!(needles.search_memory(dirty.pid())?.iter().any(|hit| hit.shape == "hex"));
    assert!(needles.search_memory_with(clean.pid(), marker.as_bytes())?.is_empty());
    assert!(!needles.search_memory_with(dirty.pid(), marker.as_bytes())?.is_empty());
    assert!(needles.search_memory_with(clean.pid(), b"no such marker in any process").is_err());
    Ok(())
}

#[tokio::test]
async fn a_process_ends_with_its_owner_and_a_failed_wait_shows_its_log() -> Result<()> {
    let scratch = Scratch::new("process")?;
    let mut command = std::process::Command::new("bash");
    command.args(["-c", "sleep 300 & echo child $!; wait"]);
    let process = bouncer_tests::process::Process::spawn("parent", &scratch, command)?;
    process.logs("child", SOON).await?;
    let late = process.logs("never said", Duration::from_millis(100)).await.unwrap_err().to_string();
    assert!(late.contains("never said") && late.contains("child "), "{late}");
    let child = process.log().trim().rsplit(' ').next().unwrap_or_default().to_owned();
    drop(process);
    // A killed child may stay a zombie until it is reaped.
    let gone = || async {
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    };
    scratch.until("the child's end", SOON, gone).await
}

#[test]
fn a_documented_value_that_is_gone_from_the_bootstrap_fails_loudly() -> Result<()> {
    let mut bootstrap = Bootstrap::on_demand()?;
    bootstrap.replace("/run/bouncer/sds.sock", "/elsewhere")?;
    assert!(bootstrap.replace("/run/bouncer/sds.sock", "/elsewhere").is_err());
    assert!(bootstrap.http_filter("no such filter").is_err());
    Ok(())
}

#[test]
fn both_bootstraps_give_the_sandbox_the_same_least_capabilities() -> Result<()> {
    let capabilities = |bootstrap: Result<Bootstrap>| -> Result<Vec<String>> {
        let path = "typed_config.config.capability_restriction_config.allowed_capabilities";
        let mut bootstrap = bootstrap?;
        let allowed = at(bootstrap.http_filter("bouncer")?, path)?;
        let allowed = allowed.as_mapping().ok_or_else(|| Fault::new("no capabilities: unrestricted"))?;
        Ok(allowed.keys().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    };
    let allowed = capabilities(Bootstrap::on_demand())?;
    assert_eq!(allowed, capabilities(Bootstrap::named())?);
    assert!(!allowed.is_empty(), "an empty list restricts nothing");
    // What reads back the name of the secret, runs when it is there to be read, or leaves the sandbox otherwise.
    for forbidden in [
        "proxy_get_property",
        "proxy_on_log",
        "proxy_on_response_headers",
        "proxy_on_response_body",
        "proxy_on_response_trailers",
        "proxy_on_request_body",
        "proxy_on_request_trailers",
        "proxy_call_foreign_function",
        "proxy_grpc_call",
        "proxy_grpc_stream",
        "proxy_get_shared_data",
        "proxy_set_shared_data",
        "proxy_get_header_map_pairs",
    ] {
        assert!(!allowed.iter().any(|name| name == forbidden), "{forbidden}");
    }
    Ok(())
}

/// A wasm module that exports what Envoy asks for, and does nothing.
fn empty_module() -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let mut section = |id: u8, body: &[u8]| {
        module.extend([id, u8::try_from(body.len()).unwrap_or(u8::MAX)]);
        module.extend(body);
    };
    // Types: ()->() and (i32)->i32; two functions; one page of memory.
    section(1, b"\x02\x60\0\0\x60\x01\x7f\x01\x7f");
    section(3, b"\x02\0\x01");
    section(5, b"\x01\0\x01");
    section(7, b"\x03\x06memory\x02\0\x17proxy_abi_version_0_2_1\0\0\x06malloc\0\x01");
    section(10, b"\x02\x02\0\x0b\x05\0\x41\x80\x08\x0b");
    module
}

#[tokio::test]
async fn envoy_takes_the_shipped_bootstraps_and_its_admin_answers_only_what_it_must() -> Result<()> {
    let scratch = Scratch::new("bootstraps")?;
    let ca = Ca::new("any")?;
    let server = ca.issue(&Leaf::server(ENVOY_NAME)?)?;
    let [cert, key] = [scratch.write("s.pem", &server.cert_pem)?, scratch.write("s.key", &server.key_pem)?];
    let clients = scratch.write("clients.pem", ca.pem())?;
    let filter = scratch.write("empty.wasm", empty_module())?;
    let (intercept, sds) = (scratch.file("intercept.sock"), scratch.file("sds.sock"));
    let values = Values {
        tls: [&cert, &key, &clients],
        filter: &filter,
        intercept_socket: &intercept,
        sds_socket: &sds,
        sds_key: &"0".repeat(64),
    };
    let on_demand = Rendered::new(Bootstrap::on_demand()?, &values, &scratch)?;
    let named = Rendered::new(Bootstrap::named()?, &values, &scratch)?;
    Envoy::validate(&scratch, Version::Current, &on_demand.bootstrap)?;
    Envoy::validate(&scratch, Version::Current, &named.bootstrap)?;
    Envoy::validate(&scratch, Version::Oldest, &named.bootstrap)?;
    assert!(Envoy::validate(&scratch, Version::Oldest, &on_demand.bootstrap).is_err(), "1.36 has no selector");

    // Without SDS the clusters never warm; the admin interface needs none.
    let mut alone = on_demand;
    alone.bootstrap.at("static_resources.clusters")?.as_sequence_mut().map(Vec::clear);
    alone.bootstrap.at("static_resources.listeners")?.as_sequence_mut().map(Vec::clear);
    let config = scratch.write("alone.yaml", alone.bootstrap.to_yaml()?)?;
    let mut command = std::process::Command::new(Version::Current.program()?);
    command.arg("-c").arg(config).arg("--disable-hot-restart");
    let process = bouncer_tests::process::Process::spawn("alone", &scratch, command)?;
    process.logs("starting main dispatch loop", SOON).await?;
    let admin = alone.admin_url().ok_or_else(|| Fault::new("no admin URL"))?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    for (path, status) in [
        ("/ready", 200),
        ("/stats?filter=server.live", 200),
        ("/stats/prometheus", 200),
        ("/config_dump", 403),
        ("/certs", 403),
        ("/help", 403),
        ("/stats/recentlookups", 403),
    ] {
        assert_eq!(http.get(format!("{admin}{path}")).send().await?.status(), status, "{path}");
    }
    for path in ["/quitquitquit", "/logging?level=trace", "/heap_dump"] {
        assert_eq!(http.post(format!("{admin}{path}")).send().await?.status(), 403, "{path}");
    }
    Ok(())
}
