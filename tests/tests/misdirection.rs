//! Forged tags, forged facts and re-routed streams, seen from the upstreams: no connection to one of them ever presented a
//! certificate that is bound to another, or to another caller. `forgery.rs` has the everyday cases; here are the hostile
//! ones, from clients that speak raw bytes and from filters that know the SDS key and every tag.
//!
//! Each check has its control: a bootstrap with one guard taken out, for which the same check fails.

mod support;

use bouncer_custody::Reason;
use bouncer_tests::client::{ENVOY_NAME, Protocol};
use bouncer_tests::envoy::{Bootstrap, Version, at};
use bouncer_tests::pki::{Identity, Leaf};
use bouncer_tests::stack::{BILLING, Builder, CART, Cluster, Credential, Identities, Stack};
use bouncer_tests::{Fault, Result, tools};
use std::time::Duration;
use support::Raw;

/// Every pair of upstream and caller, and the certificate that this caller may present there.
const BOUND: [(&str, &str, &str); 3] = [
    ("payments", CART, "payments-for-cart"),
    ("payments", BILLING, "payments-for-billing"),
    ("ledger", CART, "ledger-for-cart"),
];

/// Two upstreams, two callers of one of them. The scenarios' requests say in `x-who` who sent them.
fn two_upstreams(scenario: &str) -> Builder {
    let builder = Stack::builder(scenario).workers(1).own_bridge();
    let builder = builder.cluster(Cluster::new("payments")).cluster(Cluster::new("ledger"));
    BOUND.into_iter().fold(builder, |builder, (cluster, caller, name)| {
        builder.credential(Credential::new(name, cluster).callers(&[caller]))
    })
}

/// Every handshake and every request at an upstream whose certificate is not bound to it and to who sent the request.
fn astray(stack: &Stack) -> Vec<String> {
    let mut astray = vec![];
    for (cluster, upstream) in &stack.upstreams {
        let may = |name: &str, who: Option<&str>| {
            BOUND
                .iter()
                .any(|(at, caller, bound)| at == cluster && *bound == name && who.is_none_or(|who| who == *caller))
        };
        for handshake in upstream.handshakes() {
            if let Some(peer) = handshake.peer.filter(|peer| !may(&peer.common_name, None)) {
                astray.push(format!("{} shook hands with {cluster}", peer.common_name));
            }
        }
        for seen in upstream.requests() {
            let who = seen.headers.get("x-who").map(String::as_str);
            let name = seen.peer.as_ref().map_or("nobody", |peer| peer.common_name.as_str());
            if !may(name, who) {
                astray.push(format!("{name} for {who:?} at {cluster}{}", seen.path));
            }
            if seen.headers.keys().any(|name| name == "x-bouncer-facts") {
                astray.push(format!("a control header at {cluster}{}", seen.path));
            }
        }
    }
    astray
}

/// The tag that was granted for a resource, from the resolver's own record.
fn tag(stack: &Stack, resource: &str) -> Result<String> {
    let grants = std::fs::read(stack.scratch.file("resolver").join("grants"))?;
    let grants = String::from_utf8_lossy(&grants).into_owned();
    let mut tags = grants.split('"').filter(|text| text.starts_with(&format!("protected-resources/{resource}/")));
    tags.next_back().map(str::to_owned).ok_or_else(|| Fault::new(format!("nothing is granted for {resource}")))
}

/// A request by the harness's client, with `x-who`; gives its status and whose certificate went up, if any did.
async fn ask(stack: &Stack, who: &str, path: &str, headers: &[(&str, &str)]) -> Result<(u16, String)> {
    let headers = [&[("x-who", who)], headers].concat();
    let reply = stack.client(who, Protocol::Http1)?.get_with(path, &headers).await?;
    let peer = reply.seen().ok().and_then(|seen| seen.peer).map_or_else(String::new, |peer| peer.common_name);
    Ok((reply.status.as_u16(), peer))
}

/// Each caller with its own certificate at its own upstream: what follows is not for a broken stack, and every tag is granted.
async fn everything_works(stack: &Stack) -> Result<()> {
    for (cluster, caller, name) in BOUND {
        let path = if cluster == "payments" { "/" } else { "/ledger/" };
        assert_eq!(ask(stack, caller, path, &[]).await?, (200, name.to_owned()));
    }
    Ok(())
}

// --- What a client can say ---

/// Raw requests by CART to `payments`, each with something forged.
fn forged_requests() -> Vec<(&'static str, Vec<u8>)> {
    let facts = format!("x-bouncer-facts: payments 1 HTTP/1.1 {BILLING} x\r\n");
    let request = |target: &str, host: &str, more: &[u8]| {
        let head = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nx-who: {CART}\r\nconnection: close\r\n");
        [head.as_bytes(), more, b"\r\n"].concat()
    };
    let with = |more: &[u8]| request("/forged", "a", more);
    let chunked = format!(
        "POST /forged HTTP/1.1\r\nhost: a\r\nx-who: {CART}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
         trailer: x-bouncer-facts\r\n\r\n1\r\nx\r\n0\r\n{facts}\r\n"
    );
    vec![
        ("facts", with(facts.as_bytes())),
        ("facts twice", with(facts.repeat(2).as_bytes())),
        ("facts in capitals", with(facts.to_uppercase().as_bytes())),
        ("facts of other bytes", with(b"x-bouncer-facts: \xff\xfe payments \x80\r\n")),
        ("huge facts", with(format!("x-bouncer-facts: {}\r\n", "payments ".repeat(5_000)).as_bytes())),
        ("facts in trailers", chunked.into_bytes()),
        ("facts that the connection swallows", with(format!("connection: x-bouncer-facts\r\n{facts}").as_bytes())),
        ("a tag", with(b"bouncer.tag: x\r\nx-bouncer-cluster: ledger\r\n")),
        ("the other upstream's name", request("/forged", "ledger", b"")),
        ("an authority with facts in it", request("/forged", &format!("a {BILLING} x"), b"")),
        (
            "an authority of other bytes",
            [b"GET / HTTP/1.1\r\nhost: \xff\r\nconnection: close\r\n\r\n".as_slice()].concat(),
        ),
        ("an absolute target", request("https://ledger/forged", "ledger", b"")),
        (
            "a target of the proxy's",
            request("/forged", "a", b"x-envoy-original-path: /ledger/\r\nx-rewrite-url: /ledger/\r\n"),
        ),
    ]
}

async fn raw(stack: &Stack, identity: &Identity, server_name: &str, request: &[u8]) -> Result<(u16, String)> {
    let mut client = Raw::open(stack, identity, server_name).await?;
    client.send(request).await?;
    client.answer().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_bytes_a_client_sends_its_stream_carries_its_own_credential_or_none() -> Result<()> {
    let stack = two_upstreams("bytes").start().await?;
    everything_works(&stack).await?;
    let cart = stack.identities.mint(CART)?;
    let mut went_up = 0;
    for (what, request) in forged_requests() {
        let (status, answer) = raw(&stack, &cart, ENVOY_NAME, &request).await?;
        assert!([200, 400, 403, 431, 503].contains(&status), "{what}: {answer}");
        went_up += usize::from(status == 200);
    }
    assert!(went_up > 6, "most forgeries are overwritten and not refused: {went_up}");
    let plain = format!("GET /forged HTTP/1.1\r\nhost: a\r\nx-who: {CART}\r\nconnection: close\r\n\r\n");
    for name in ["ledger.internal", "bouncer_sds", "payments-for-billing"] {
        let (status, answer) = raw(&stack, &cart, name, plain.as_bytes()).await?;
        assert_eq!(status, 200, "{name}: {answer}");
    }
    // A verified name that is no SPIFFE ID, and would shift the fields of the facts.
    let Identities::Own { domain, .. } = &stack.identities else { return Err(Fault::new("SPIRE signs no such thing")) };
    for name in [format!("{CART} {BILLING}"), format!("{CART},{BILLING}"), format!("{BILLING} x y")] {
        let identity = domain.ca().issue(&Leaf::svid(&name)?)?;
        let (status, answer) = raw(&stack, &identity, ENVOY_NAME, plain.as_bytes()).await?;
        assert!(status == 403 || status == 503, "{name}: {answer}");
    }
    assert_eq!(astray(&stack), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_the_native_facts_a_client_is_whom_it_says() -> Result<()> {
    let edit = |bootstrap: &mut Bootstrap| {
        bootstrap.http_filters()?.retain(|filter| filter["name"].as_str() != Some("bouncer.facts"));
        Ok(())
    };
    let stack = two_upstreams("bytes-control").bootstrap(edit).start().await?;
    let cart = stack.identities.mint(CART)?;
    let (_, request) = forged_requests().swap_remove(0);
    assert_eq!(raw(&stack, &cart, ENVOY_NAME, &request).await?.0, 200);
    assert_eq!(astray(&stack), [format!("payments-for-billing for {:?} at payments/forged", Some(CART))]);
    Ok(())
}

// --- What another filter can do ---

const FORGER: &str = r#"
name: forger.wasm
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
  config:
    name: forger
    root_id: forger
    configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: '{"forger": true}'}
    vm_config: {vm_id: forger, runtime: envoy.wasm.runtime.v8, code: {local: {filename: FILE}}}
"#;

/// A native filter that writes filter state as the request's headers say: what a careless or hostile operator could add.
fn native_forger(name: &str, entries: &[(&str, &str, bool)]) -> String {
    let entries = entries.iter().map(|(key, header, read_only)| {
        let factory = if key.starts_with("wasm") { "envoy.string" } else { "envoy.hashable_string" };
        format!(
            "    - object_key: {key}\n      factory_key: {factory}\n      read_only: {read_only}\n      \
             shared_with_upstream: ONCE\n      skip_if_empty: true\n      \
             format_string: {{omit_empty_values: true, text_format_source: {{inline_string: \"%REQ({header})%\"}}}}\n"
        )
    });
    format!(
        "name: {name}\ntyped_config:\n  \"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config\n  on_request_headers:\n{}",
        entries.collect::<String>()
    )
}

const TAG: &str = "wasm.bouncer.tag";
const NAME: &str = "envoy.tls.certificate_mappers.on_demand_secret";

/// Every forger at once; each does something only if a request tells it to.
fn forgers(bootstrap: &mut Bootstrap) -> Result<()> {
    let module = tools::wasm("bouncer_spy.wasm")?.display().to_string();
    bootstrap.insert_before("bouncer.facts", &FORGER.replace("FILE", &module))?;
    let before = [
        (TAG, "x-tag", false),
        (TAG, "x-tag-read-only", true),
        (NAME, "x-name", false),
        (NAME, "x-name-read-only", true),
    ];
    bootstrap.insert_before("bouncer.facts", &native_forger("forger.before", &before))?;
    let behind = [(NAME, "x-later-name", false), (TAG, "x-later-tag", false)];
    bootstrap.insert_before("envoy.filters.http.router", &native_forger("forger.behind", &behind))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_or_name_that_another_filter_forges_opens_nothing_elsewhere() -> Result<()> {
    let stack = two_upstreams("forgers").bootstrap(forgers).start().await?;
    everything_works(&stack).await?;
    let key = stack.resolver()?.setup().sds_key.clone();
    for stolen in ["payments-for-billing", "ledger-for-cart"] {
        let tag = tag(&stack, stolen)?;
        // By a filter that has the SDS key, which is in the environment of all of Envoy.
        let named = format!("{key}/{tag}");
        let mut forgeries = vec![
            vec![("x-tag", tag.as_str())],
            vec![("x-tag-read-only", &tag)],
            vec![("x-later-tag", &tag)],
            vec![("x-name", &tag)],
            vec![("x-name", &named)],
            vec![("x-name-read-only", &named)],
        ];
        let hows =
            ["plain", "declared", "declared read-only", "declared for the request", "declared for the connection"];
        for how in hows {
            forgeries.push(vec![("x-forge-path", "bouncer.tag"), ("x-forge-how", how), ("x-forge-value", &tag)]);
        }
        forgeries.push(vec![("x-forge-path", NAME), ("x-forge-how", "envoy"), ("x-forge-value", &named)]);
        for headers in forgeries {
            let own = (200, "payments-for-cart".to_owned());
            assert_eq!(ask(&stack, CART, "/", &headers).await?, own, "{stolen} {headers:?}");
        }
        // Behind ours the name itself can be overwritten: `read_only` stops nobody. Without the key it opens nothing, and
        // with it nothing of another cluster.
        assert_eq!(ask(&stack, CART, "/", &[("x-later-name", &tag)]).await?, (503, String::new()));
        if stolen == "ledger-for-cart" {
            assert_eq!(ask(&stack, CART, "/", &[("x-later-name", &named)]).await?, (503, String::new()));
        }
    }
    let log = stack.envoy()?.process().log();
    assert_eq!(log.matches("|bouncer.tag|0").count(), 10, "the wasm forger did forge");
    assert_eq!(astray(&stack), Vec::<String>::new());
    Ok(())
}

/// The control: a forger where none may be, between our filter and the one that makes a name of its tag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_a_filter_between_ours_and_the_name_gives_one_caller_anothers_credential() -> Result<()> {
    let edit = |bootstrap: &mut Bootstrap| {
        bootstrap.insert_before("bouncer.secret_name", &native_forger("forger.between", &[(TAG, "x-tag", false)]))
    };
    let stack = two_upstreams("forgers-control").bootstrap(edit).start().await?;
    everything_works(&stack).await?;
    let tag = tag(&stack, "payments-for-billing")?;
    assert_eq!(ask(&stack, CART, "/", &[("x-tag", &tag)]).await?, (200, "payments-for-billing".to_owned()));
    assert_eq!(astray(&stack), [format!("payments-for-billing for {:?} at payments/", Some(CART))]);
    Ok(())
}

// --- Where a route can lead ---

const LUA: &str = r#"
name: later.lua
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
  default_source_code:
    inline_string: |
      function envoy_on_request(handle)
        local headers = handle:headers()
        local path, cluster = headers:get("x-later-path"), headers:get("x-later-cluster")
        if path then headers:replace(":path", path) end
        if cluster then headers:replace("x-cluster", cluster) end
        if path or cluster then handle:clearRouteCache() end
      end
"#;

/// Routes that move a stream after it was decided.
fn routes(bootstrap: &mut Bootstrap) -> Result<()> {
    bootstrap.insert_before("envoy.filters.http.router", LUA)?;
    for route in [
        "{match: {prefix: /chosen/}, route: {cluster_header: x-cluster, timeout: 30s}}",
        "{match: {prefix: /mirrored/}, route: {cluster: payments, request_mirror_policies: [{cluster: ledger}]}}",
        "{match: {prefix: /weighted/}, route: {weighted_clusters: {clusters: [{name: payments, weight: 1}, {name: ledger, weight: 1}]}}}",
        "{match: {prefix: /redirect}, route: {cluster: payments, internal_redirect_policy: {redirect_response_codes: [302]}}}",
    ] {
        bootstrap.add_route(route)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_sent_elsewhere_takes_no_credential_along() -> Result<()> {
    let stack = two_upstreams("elsewhere").bootstrap(routes).start().await?;
    everything_works(&stack).await?;
    // Behind our filters a stream is moved: by its path, and by the header that names the cluster.
    for headers in [vec![("x-later-path", "/ledger/")], vec![("x-later-path", "/chosen/"), ("x-cluster", "ledger")]] {
        assert_eq!(ask(&stack, CART, "/", &headers).await?, (503, String::new()), "{headers:?}");
    }
    let moved = [("x-cluster", "payments"), ("x-later-cluster", "ledger")];
    assert_eq!(ask(&stack, CART, "/chosen/", &moved).await?, (503, String::new()));
    let chosen = [("x-cluster", "ledger")];
    assert_eq!(ask(&stack, CART, "/chosen/", &chosen).await?, (200, "ledger-for-cart".to_owned()));
    for cluster in ["bouncer_sds", "bouncer_intercept", "nowhere"] {
        let (status, _) = ask(&stack, CART, "/chosen/", &[("x-cluster", cluster)]).await?;
        assert!(status == 403 || status == 503, "{cluster}: {status}");
    }

    // A stream in two places at once: the second place gets nothing.
    let tried = stack.envoy()?.stat("cluster.ledger.upstream_cx_connect_fail").await?;
    assert_eq!(ask(&stack, CART, "/mirrored/", &[]).await?, (200, "payments-for-cart".to_owned()));
    let mirrored = || async {
        let now = stack.envoy().ok()?.stat("cluster.ledger.upstream_cx_connect_fail").await.ok()?;
        (now > tried).then_some(())
    };
    stack.until("the mirrored request's failure", Duration::from_secs(10), mirrored).await?;
    assert!(stack.upstream("ledger")?.requests().iter().all(|seen| !seen.path.starts_with("/mirrored/")));

    // Wherever chance or an upstream sends a stream, it has the credential for there, or does not go.
    for _ in 0..16 {
        assert_eq!(ask(&stack, CART, "/weighted/", &[]).await?.0, 200);
    }
    let redirect = format!("/redirect?https://{ENVOY_NAME}:{}/ledger/", stack.rendered.listener.port());
    assert_eq!(ask(&stack, CART, &redirect, &[]).await?, (200, "ledger-for-cart".to_owned()));
    assert_eq!(ask(&stack, BILLING, &redirect, &[]).await?.0, Reason::CallerNotAllowed.http_status());
    assert_eq!(astray(&stack), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_a_cluster_that_claims_anothers_name_gets_its_credential() -> Result<()> {
    let edit = |bootstrap: &mut Bootstrap| {
        let binding = "transport_socket.typed_config.common_tls_context.custom_tls_certificate_selector.typed_config.\
                       config_source.api_config_source.grpc_services.0.initial_metadata.0.value";
        *at(bootstrap.cluster("ledger")?, binding)? = "payments".into();
        routes(bootstrap)
    };
    let stack = two_upstreams("elsewhere-control").bootstrap(edit).start().await?;
    let moved = ask(&stack, CART, "/", &[("x-later-path", "/ledger/")]).await?;
    assert_eq!(moved, (200, "payments-for-cart".to_owned()));
    let expected = [
        "payments-for-cart shook hands with ledger".to_owned(),
        format!("payments-for-cart for {:?} at ledger/ledger/", Some(CART)),
    ];
    assert_eq!(astray(&stack), expected);
    Ok(())
}

/// In mode `named`, a cluster that asks for another's name, in its own name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mode_named_a_cluster_is_not_given_what_it_names_of_another() -> Result<()> {
    let edit = |bootstrap: &mut Bootstrap| {
        let name = "transport_socket.typed_config.common_tls_context.tls_certificate_sds_secret_configs.0.name";
        *at(bootstrap.cluster("ledger")?, name)? = "named/payments".into();
        bootstrap.insert_before("envoy.filters.http.router", LUA)
    };
    let builder = Stack::builder("named-name").named(Version::Current).own_bridge().workers(1).bootstrap(edit);
    let builder = builder.cluster(Cluster::new("payments")).cluster(Cluster::new("ledger"));
    let stack = builder.credential(Credential::new("payments-for-cart", "payments")).start().await?;
    assert_eq!(ask(&stack, CART, "/", &[]).await?, (200, "payments-for-cart".to_owned()));
    // What Envoy does without a certificate of its own differs by version; that it has none is what matters.
    ask(&stack, CART, "/", &[("x-later-path", "/ledger/")]).await?;
    let presented: Vec<_> = stack.upstream("ledger")?.handshakes().into_iter().filter_map(|shake| shake.peer).collect();
    assert_eq!(presented, []);
    Ok(())
}
