//! A resolver without SPIRE is known by its IAM role: STS vouches for it, on one connection, to one control plane. STS here
//! verifies signatures for real, by code that shares nothing with what signs.

use bouncer_tests::control_plane::{ControlPlane, Setup};
use bouncer_tests::iam::{self, Behaviour, Claim, Credentials, Keyed, Sts};
use bouncer_tests::intercept::Decider;
use bouncer_tests::pki::{Ca, Leaf};
use bouncer_tests::resolver::Resolver;
use bouncer_tests::scratch::{Scratch, free_port};
use bouncer_tests::stack::{BOUNCER, CART, Identities, Stack};
use bouncer_tests::{Fault, Result, tools};
use http::StatusCode;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::Code;

const SOON: Duration = Duration::from_secs(20);
const WEST: &str = "payments-west";
const AUDIENCE: &str = "control-plane.example.org";

/// `[bridge.iam]`, with its files in the folder.
fn section(scratch: &Scratch, ca: &Ca, sts: &Sts, audience: &str, port: u16) -> Result<String> {
    let server = ca.issue(&Leaf::server("localhost")?)?;
    let certificate = scratch.write("iam-server.pem", &server.cert_pem)?;
    let key = scratch.write("iam-server.key", &server.key_pem)?;
    let authority = scratch.write("iam-ca.pem", ca.pem())?;
    Ok(format!(
        "[bridge.iam]\nlisten = \"127.0.0.1:{port}\"\naudience = {audience:?}\ntls_certificate_file = {certificate:?}\n\
         tls_key_file = {key:?}\nsts_endpoints = [\"https://{}\"]\nsts_ca_file = {authority:?}\n",
        sts.host()
    ))
}

/// Waits until the resolver names this link, or none: by its own account of the way to the control plane.
async fn link_is(stack: &Stack, socket: &Path, link: Option<&str>) -> Result<()> {
    let named = || async {
        let mut command = tokio::process::Command::new(tools::binary("bouncerctl").ok()?);
        command.arg("probe").arg("--socket").arg(socket).arg("--json").env_clear();
        let output = command.stdin(Stdio::null()).output().await.ok()?;
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        (answer["link"].as_str() == link && answer["ok"] == link.is_none()).then_some(())
    };
    stack.until(format!("the resolver names {link:?}"), SOON, named).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_without_a_workload_api_gets_its_policy_and_serves_and_another_role_does_not() -> Result<()> {
    let (files, ca, port) = (Scratch::new("iam-files")?, Ca::new("servers")?, free_port()?);
    let east = Credentials::of("bouncer-payments-east");
    let sts = Sts::start(&ca, std::slice::from_ref(&east)).await?;
    let more = section(&files, &ca, &sts, AUDIENCE, port)?;
    let mut stack = Stack::builder("iam").without_envoy().control_plane(&more).start().await?;
    let api = stack.api()?;
    let bouncer = format!("/v1/bouncers/{BOUNCER}");
    api.put(&bouncer, &json!({"iam_role_arn": east.role_arn()})).await?.success()?;

    // On a new node: nothing on disk, no Workload API, the role's credentials.
    stack.kill_resolver();
    std::fs::remove_dir_all(stack.scratch.file("resolver"))?;
    stack.scratch.folder("resolver")?;
    let (authority, host) = (files.file("iam-ca.pem").display().to_string(), sts.host());
    let admin = stack.scratch.file("admin.sock");
    let environment = [
        ("AWS_ACCESS_KEY_ID", &*east.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", &east.secret),
        ("AWS_SESSION_TOKEN", &east.token),
        ("AWS_REGION", iam::REGION),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    stack
        .reconfigure_resolver(|setup| {
            setup.environment.extend(environment);
            setup.config.remove("identity");
            setup.set("admin.socket", admin.display().to_string());
            setup.set("bridge.address", format!("127.0.0.1:{port}"));
            setup.set("bridge.iam.ca_file", authority);
            setup.set("bridge.iam.server_name", "localhost");
            setup.set("bridge.iam.audience", AUDIENCE);
            setup.set("bridge.iam.region", iam::REGION);
            setup.set("bridge.iam.sts_endpoint", format!("https://{host}"));
            setup.set("kms.credentials", "default-chain");
            for (section, key) in [("bridge", "server_id"), ("kms", "role_arn"), ("kms", "audience")] {
                if let Some(table) = setup.config.get_mut(section).and_then(toml::Value::as_table_mut) {
                    table.remove(key);
                }
            }
        })
        .await?;
    let mut decider = Decider::at(&stack.scratch.file("intercept.sock")).await?;
    decider.decide(CART).await?;
    let ready: serde_json::Value = serde_json::from_str(&stack.resolver()?.get("/readyz").await?.1)?;
    assert_eq!(ready["known_by"], "IAM role");
    // It hands its audit over, and nothing of it is signed.
    stack.audited("the decision", |event| event["outcome"] == "inject").await?;
    let seen = api.get(&bouncer).await?.success()?;
    assert_eq!(seen["iam_role_arn"], east.role_arn());
    assert_eq!((&seen["bridge"]["state"], &seen["spiffe_id"]), (&json!("connected"), &json!(null)));
    let metrics = stack.resolver()?.get("/metrics").await?.1;
    let end = metrics.lines().find_map(|line| line.strip_prefix("bouncer_resolver_bridge_enrolment_end_timestamp "));
    assert!(end.and_then(|end| end.parse::<f64>().ok()).is_some_and(|end| end > 1e9), "{end:?}");

    // The registration is the allow-list: for another role, the session ends, and none begins.
    let other = Credentials::of("bouncer-payments-west").role_arn();
    api.put(&bouncer, &json!({"iam_role_arn": other})).await?.success()?;
    let reason = "no bouncer is registered for this IAM role";
    stack.resolver()?.process().logs(reason, SOON).await?;
    stack.control_plane()?.process().logs(&east.role_arn(), SOON).await?;
    let gone = || async {
        let seen = api.get(&bouncer).await.ok()?.success().ok()?;
        (seen["bridge"]["state"] != "connected").then_some(())
    };
    stack.until("the session to be gone", SOON, gone).await?;
    // Both sides name the link, by the identity that it is about.
    link_is(&stack, &admin, Some("authorization")).await?;
    let health = api.get(&bouncer).await?.success()?["bridge"].clone();
    assert_eq!(health["link"], "authorization", "{health}");
    let told = format!("the IAM role {} was refused", east.role_arn());
    assert!(health["detail"].as_str().unwrap_or_default().contains(&told), "{health}");

    // The control: registered again, it comes back by itself.
    api.put(&bouncer, &json!({"iam_role_arn": east.role_arn()})).await?.success()?;
    let back = || async {
        let seen = api.get(&bouncer).await.ok()?.success().ok()?;
        (seen["bridge"]["state"] == "connected").then_some(())
    };
    stack.until("the session to be back", SOON, back).await?;
    link_is(&stack, &admin, None).await?;

    // A server that another authority vouches for, or for another name, is told nothing: no STS is asked by what would prove
    // the role, and the resolver names the link.
    let another = stack.scratch.write("another-ca.pem", Ca::new("another")?.pem())?.display().to_string();
    let honest = stack.resolver()?.setup().clone();
    let enrolments = |stack: &Stack| -> Result<usize> {
        Ok(stack.resolver()?.process().log().matches("enrolled by the IAM role").count())
    };
    for (key, value) in [("bridge.iam.ca_file", another.as_str()), ("bridge.iam.server_name", "elsewhere.example.org")]
    {
        let enrolled = enrolments(&stack)?;
        stack.kill_resolver();
        let asked = sts.calls();
        let mut setup = honest.clone();
        setup.set(key, value);
        stack.resolver = Some(Resolver::spawn(&stack.scratch, setup)?);
        link_is(&stack, &admin, Some("svid")).await?;
        assert_eq!(sts.calls(), asked, "{key}: the proof went out");
        assert_eq!(enrolments(&stack)?, enrolled, "{key}");
    }
    // The control: back at its own, it proves its role again.
    stack.kill_resolver();
    let asked = sts.calls();
    stack.resolver = Some(Resolver::spawn(&stack.scratch, honest)?);
    link_is(&stack, &admin, None).await?;
    assert!(sts.calls() > asked);

    // What signs, and what goes along with it, is in no log and not on disk.
    for (part, log) in
        [("control plane", stack.control_plane()?.process().log()), ("resolver", stack.resolver()?.process().log())]
    {
        for secret in [&east.secret, &east.token] {
            assert!(!log.contains(secret.as_str()), "a credential is in the log of the {part}");
        }
    }
    let database = std::fs::read(stack.scratch.file("control-plane/control-plane.db"))?;
    assert!(!database.windows(east.token.len()).any(|window| window == east.token.as_bytes()));
    Ok(())
}

/// A control plane with one bouncer, by role, and where resolvers enrol.
async fn plane(scratch: &Scratch, ca: &Ca, sts: &Sts, audience: &str, role: &str) -> Result<(ControlPlane, u16)> {
    let identities = Identities::own(scratch)?;
    let port = free_port()?;
    let mut setup = Setup::new(scratch, identities.control_plane())?;
    setup.more = section(scratch, ca, sts, audience, port)?;
    let plane = ControlPlane::start(scratch, setup).await?;
    let body = json!({"name": BOUNCER, "iam_role_arn": role});
    plane.api()?.post("/v1/bouncers", &body).await?.success()?;
    // The Workload API is needed for the listener of SVIDs only.
    drop(identities);
    Ok((plane, port))
}

fn code<T>(answer: std::result::Result<T, tonic::Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolment_is_good_for_one_key_one_control_plane_and_one_role() -> Result<()> {
    let (first, second) = (Scratch::new("iam-first")?, Scratch::new("iam-second")?);
    let ca = Ca::new("servers")?;
    let (east, west, stranger) = (Credentials::of("east"), Credentials::of("west"), Credentials::of("stranger"));
    let sts = Sts::start(&ca, &[east.clone(), west.clone(), stranger.clone()]).await?;
    let (here, port) = plane(&first, &ca, &sts, AUDIENCE, &east.role_arn()).await?;
    let (_there, other_port) = plane(&second, &ca, &sts, "another.example.org", &east.role_arn()).await?;
    let host = sts.host();
    let claim = |key| Claim { credentials: &east, host: &host, audience: AUDIENCE, key };

    // The control: this request, on the connection with the key that it names.
    let mut mine = Keyed::connect(port, &ca).await?;
    assert_eq!(code(mine.sync(BOUNCER).await), Code::Unauthenticated, "before it has enrolled");
    let own = mine.digest().to_owned();
    let captured = claim(&own).sign();
    let reply = mine.enrol(captured.clone()).await?;
    assert_eq!(reply.bouncer, BOUNCER);
    // For a quarter of an hour, by the clock of this machine.
    let life = reply.expires_ms - i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    assert!((14 * 60_000..=15 * 60_000).contains(&life), "{life} ms");
    assert_eq!(mine.sync(BOUNCER).await?, BOUNCER);
    // It is this bouncer and no other, whatever the hello says.
    assert_eq!(code(mine.sync(WEST).await), Code::PermissionDenied);

    // Nor does it become another by another role, though that one is registered and its signature is good.
    here.api()?.post("/v1/bouncers", &json!({"name": WEST, "iam_role_arn": west.role_arn()})).await?.success()?;
    let second = Claim { credentials: &west, ..claim(&own) };
    let refused = mine.enrol(second.sign()).await.err().ok_or_else(|| Fault::new("one connection, two roles"))?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("enrolled for another role"), "{refused}");
    assert_eq!(mine.sync(BOUNCER).await?, BOUNCER, "it is what it was");
    // The control: that role, on a connection of its own.
    let mut theirs = Keyed::connect(port, &ca).await?;
    let key = theirs.digest().to_owned();
    let reply = theirs.enrol(Claim { credentials: &west, ..claim(&key) }.sign()).await?;
    assert_eq!(reply.bouncer, WEST);

    // The same request, captured: under another key, and at another control plane.
    let mut thief = Keyed::connect(port, &ca).await?;
    assert_eq!(code(thief.enrol(captured.clone()).await), Code::Unauthenticated, "another key");
    assert_eq!(code(thief.sync(BOUNCER).await), Code::Unauthenticated, "nothing came of it");
    let mut elsewhere = Keyed::connect(other_port, &ca).await?;
    assert_eq!(code(elsewhere.enrol(captured.clone()).await), Code::Unauthenticated, "another control plane");
    // The control: what is signed for that one is taken there.
    let key = elsewhere.digest().to_owned();
    let there = Claim { audience: "another.example.org", ..claim(&key) };
    assert_eq!(elsewhere.enrol(there.sign()).await?.bouncer, BOUNCER);

    // Signed over nothing of ours, by the wrong secret, or for another control plane, under the right key.
    let key = thief.digest().to_owned();
    assert_eq!(code(thief.enrol(claim(&key).sign_bare()).await), Code::Unauthenticated, "bare");
    let guessed = Credentials { secret: "guessed".to_owned(), ..east.clone() };
    let forged = Claim { credentials: &guessed, ..claim(&key) };
    assert_eq!(code(thief.enrol(forged.sign()).await), Code::Unauthenticated, "another secret");
    let theirs = Claim { audience: "another.example.org", ..claim(&key) };
    assert_eq!(code(thief.enrol(theirs.sign()).await), Code::Unauthenticated, "another audience");
    // Another host is not even asked.
    let asked = sts.calls();
    let other = Claim { host: "localhost:1", ..claim(&key) };
    assert_eq!(code(thief.enrol(other.sign()).await), Code::PermissionDenied, "another STS");
    assert_eq!(sts.calls(), asked);
    // Nobody who has not enrolled sends much.
    let asked = sts.calls();
    let large = iam::oversized(claim(&key).sign());
    assert_eq!(code(thief.enrol(large).await), Code::OutOfRange, "16 KiB");
    assert_eq!(sts.calls(), asked);
    // A role that nobody registered, whose signature is good.
    let unknown = Claim { credentials: &stranger, ..claim(&key) };
    let refused = thief.enrol(unknown.sign()).await.err().ok_or_else(|| Fault::new("a stranger enrolled"))?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("no bouncer is registered for this IAM role"), "{refused}");

    // Each refusal is counted by its reason, and none of them left a signature in the log.
    let metrics = here.api()?.get("/metrics").await?.text;
    for reason in ["StsRefused", "EnrolHost", "Unregistered", "NotEnrolled"] {
        assert!(metrics.contains(&format!("bridge_refusals_total{{reason=\"{reason}\"}}")), "{reason}: {metrics}");
    }
    let log = here.process().log();
    assert!(!log.contains(&captured.signature) && !log.contains(&captured.security_token));
    assert!(log.contains(&stranger.role_arn()), "who was refused stands in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sts_that_redirects_or_says_something_else_vouches_for_nobody() -> Result<()> {
    let (scratch, ca) = (Scratch::new("iam-sts")?, Ca::new("servers")?);
    let east = Credentials::of("east");
    let sts = Sts::start(&ca, std::slice::from_ref(&east)).await?;
    let honest = Sts::start(&ca, std::slice::from_ref(&east)).await?;
    let (_plane, port) = plane(&scratch, &ca, &sts, AUDIENCE, &east.role_arn()).await?;
    let host = sts.host();
    let mut mine = Keyed::connect(port, &ca).await?;
    let key = mine.digest().to_owned();
    let signed = || Claim { credentials: &east, host: &host, audience: AUDIENCE, key: &key }.sign();
    let session = format!("arn:aws:sts::{}:assumed-role/east/scenario", iam::ACCOUNT);
    let good = iam::identity(&session, iam::ACCOUNT);
    let says = |text: String| Behaviour::Says(StatusCode::OK, text);
    for (what, behaviour, wanted) in [
        ("redirects", Behaviour::Redirects(format!("https://{}/", honest.host())), Code::Unavailable),
        ("fails", Behaviour::Says(StatusCode::BAD_GATEWAY, good.clone()), Code::Unavailable),
        ("throttles", Behaviour::Says(StatusCode::TOO_MANY_REQUESTS, good.clone()), Code::Unavailable),
        ("says no", Behaviour::Says(StatusCode::FORBIDDEN, good.clone()), Code::Unauthenticated),
        ("says nothing", says(String::new()), Code::Unavailable),
        ("says too much", says(format!("{good}{}", " ".repeat(64 << 10))), Code::Unavailable),
        ("has entities", says(format!("<!DOCTYPE a [<!ENTITY b \"b\">]>{good}")), Code::Unavailable),
        ("names another account", says(iam::identity(&session, "999999999999")), Code::PermissionDenied),
        (
            "names a user",
            says(iam::identity(&format!("arn:aws:iam::{}:user/east", iam::ACCOUNT), iam::ACCOUNT)),
            Code::PermissionDenied,
        ),
    ] {
        sts.behave(behaviour);
        assert_eq!(code(mine.enrol(signed()).await), wanted, "an STS that {what}");
    }
    assert_eq!(honest.calls(), 0, "where a redirect led, nobody asked");
    // The control.
    sts.behave(says(good));
    assert_eq!(mine.enrol(signed()).await?.bouncer, BOUNCER);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_may_try_only_so_often() -> Result<()> {
    let (scratch, ca) = (Scratch::new("iam-limit")?, Ca::new("servers")?);
    let east = Credentials::of("east");
    let sts = Sts::start(&ca, std::slice::from_ref(&east)).await?;
    let (_plane, port) = plane(&scratch, &ca, &sts, AUDIENCE, &east.role_arn()).await?;
    let host = sts.host();
    let mut mine = Keyed::connect(port, &ca).await?;
    let key = mine.digest().to_owned();
    let wrong = Claim { credentials: &Credentials::of("east"), host: &host, audience: AUDIENCE, key: &key }.sign();
    let mut refused = Code::Unauthenticated;
    for _ in 0..60 {
        refused = code(mine.enrol(wrong.clone()).await);
        if refused != Code::Unauthenticated {
            break;
        }
    }
    assert_eq!(refused, Code::ResourceExhausted);
    assert!(sts.calls() < 60, "{}", sts.calls());
    Ok(())
}
