//! The files of `envoy/istio`: their patches are applied to what Istio generates, by Istio's own rules, and the real Envoy
//! says whether it takes the result. Istio itself is not run.

use bouncer_tests::envoy::{Version, at};
use bouncer_tests::pki::Ca;
use bouncer_tests::process::Process;
use bouncer_tests::scratch::{Scratch, free_port};
use bouncer_tests::{Fault, Result, tools};
use serde::Deserialize as _;
use serde_norway::Value;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

const CLUSTER: &str = "outbound|18443||payments.example.org";
const SOON: Duration = Duration::from_secs(20);

/// The documents of a file.
fn read(name: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(tools::root().join("envoy").join(name))?;
    serde_norway::Deserializer::from_str(&text).map(|document| Ok(Value::deserialize(document)?)).collect()
}

/// The patches of an EnvoyFilter, in the order in which Istio applies them.
fn patches(file: &str) -> Result<Vec<Value>> {
    let filter = read(file)?.into_iter().find(|document| document["kind"].as_str() == Some("EnvoyFilter"));
    let filter = filter.ok_or_else(|| Fault::new(format!("{file} has no EnvoyFilter")))?;
    Ok(filter["spec"]["configPatches"].as_sequence().cloned().unwrap_or_default())
}

/// What Istio's control plane generates for `upstream.yaml` in a sidecar, as far as the patches touch it: the cluster, with
/// the other name for its statistics that Istio gives every cluster, and the listener of the ServiceEntry's port.
fn generated(upstream: u16, listener: u16) -> Result<Value> {
    Ok(serde_norway::from_str(&format!(
        r#"
node: {{ id: "sidecar~10.0.0.1~cart-0.shop~shop.svc.cluster.local", cluster: cart.shop }}
static_resources:
  clusters:
    - name: "{CLUSTER}"
      alt_stat_name: "{CLUSTER};"
      type: STATIC
      connect_timeout: 10s
      load_assignment:
        cluster_name: "{CLUSTER}"
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
  listeners:
    - name: 0.0.0.0_18443
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listener} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: outbound_0.0.0.0_18443
                route_config:
                  name: "18443"
                  virtual_hosts:
                    - name: payments.example.org:18443
                      domains: ["*"]
                      routes: [{{ match: {{ prefix: / }}, route: {{ cluster: "{CLUSTER}" }} }}]
                http_filters:
                  - name: envoy.filters.http.fault
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#
    ))?)
}

const CONNECTION_MANAGER: &str = "static_resources.listeners.0.filter_chains.0.filters.0.typed_config";

/// Applies one patch. Strict where Istio is lenient: a patch that would do nothing is a fault.
fn apply(config: &mut Value, patch: &Value) -> Result<()> {
    let (matches, value) = (&patch["match"], &patch["patch"]["value"]);
    if matches["context"].as_str() != Some("SIDECAR_OUTBOUND") {
        return Err(Fault::new("a patch is not for the sidecar's outbound side"));
    }
    match (patch["applyTo"].as_str(), patch["patch"]["operation"].as_str()) {
        (Some("CLUSTER"), Some("ADD")) => list(config, "static_resources.clusters")?.push(value.clone()),
        (Some("CLUSTER"), Some("MERGE")) => {
            let name = matches["cluster"]["name"].as_str();
            let clusters = list(config, "static_resources.clusters")?;
            let cluster = clusters.iter_mut().find(|cluster| cluster["name"].as_str() == name);
            let cluster = cluster.ok_or_else(|| Fault::new("a patch matches no cluster"))?;
            match value.get("transport_socket") {
                // Istio replaces the socket whole, and merges nothing else that stands in such a patch.
                Some(socket) if value.as_mapping().is_some_and(|value| value.len() == 1) => {
                    cluster["transport_socket"] = socket.clone();
                }
                Some(_) => return Err(Fault::new("beside a transport socket Istio drops the rest of a patch")),
                None => merge(cluster, value),
            }
        }
        (Some("HTTP_FILTER"), Some("INSERT_BEFORE")) => {
            let chain = &matches["listener"]["filterChain"]["filter"];
            assert_eq!(matches["listener"]["portNumber"].as_u64(), Some(18443));
            assert_eq!(chain["name"].as_str(), Some("envoy.filters.network.http_connection_manager"));
            let next = chain["subFilter"]["name"].as_str();
            let filters = list(config, &format!("{CONNECTION_MANAGER}.http_filters"))?;
            let place = filters.iter().position(|filter| filter["name"].as_str() == next);
            filters.insert(place.ok_or_else(|| Fault::new("a patch matches no filter"))?, value.clone());
        }
        (Some("VIRTUAL_HOST"), Some("MERGE")) => {
            let routes = at(config, &format!("{CONNECTION_MANAGER}.route_config"))?;
            assert_eq!(routes["name"].as_str(), Some("18443"));
            let host = at(routes, "virtual_hosts.0")?;
            assert_eq!(host["name"], matches["routeConfiguration"]["vhost"]["name"]);
            merge(host, value);
        }
        other => return Err(Fault::new(format!("no rule for a patch {other:?}"))),
    }
    Ok(())
}

fn list<'a>(node: &'a mut Value, path: &str) -> Result<&'a mut Vec<Value>> {
    at(node, path)?.as_sequence_mut().ok_or_else(|| Fault::new(format!("{path} is no list")))
}

/// Protobuf's merge, as far as these patches need it: messages deeply, maps of `Any` by key, the rest replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Mapping(into), Value::Mapping(from)) => {
            for (key, value) in from {
                match into.get_mut(key) {
                    Some(slot) if value.get("@type").is_none() => merge(slot, value),
                    _ => drop(into.insert(key.clone(), value.clone())),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// What Envoy would be told, with the mounted files replaced by real ones.
fn patched(patches: &[Value]) -> Result<Value> {
    let mut config = generated(1, 18443)?;
    patches.iter().try_for_each(|patch| apply(&mut config, patch))?;
    let filter = tools::filter()?.display().to_string();
    let text = serde_norway::to_string(&config)?.replace("/etc/bouncer/bouncer_filter.wasm", &filter);
    Ok(serde_norway::from_str(&text)?)
}

/// What Envoy says to a bootstrap: nothing where it takes it, else its refusal.
fn refusal(scratch: &Scratch, version: Version, config: &Value) -> Result<Option<String>> {
    let path = scratch.write("validated.yaml", serde_norway::to_string(config)?)?;
    let output = Command::new(version.program()?)
        .args(["--mode", "validate", "--disable-hot-restart", "-c"])
        .arg(path)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| said.lines().filter(|line| line.contains("[critical]")).collect()))
}

/// Every message of a type of its own below `node`, by its place.
fn typed_configs(node: &Value, place: &str, found: &mut Vec<String>) {
    if node.get("@type").is_some() {
        found.push(place.to_owned());
    }
    match node {
        Value::Mapping(entries) => entries.iter().for_each(|(key, value)| {
            typed_configs(value, &format!("{place}/{}", key.as_str().unwrap_or_default()), found);
        }),
        Value::Sequence(items) => {
            items.iter().enumerate().for_each(|(n, value)| typed_configs(value, &format!("{place}/{n}"), found));
        }
        _ => {}
    }
}

fn place<'a>(node: &'a mut Value, path: &str) -> Result<&'a mut Value> {
    path.split('/').filter(|step| !step.is_empty()).try_fold(node, |node, step| {
        let next = match step.parse::<usize>() {
            Ok(index) => node.get_mut(index),
            Err(_) => node.get_mut(step),
        };
        next.ok_or_else(|| Fault::new(format!("nothing at {path}")))
    })
}

const MODES: [(&str, &[Version]); 2] =
    [("istio/named.yaml", &[Version::Current, Version::Oldest]), ("istio/on-demand.yaml", &[Version::Current])];

#[test]
fn the_real_envoy_takes_what_the_patches_make_of_istios_configuration() -> Result<()> {
    let scratch = Scratch::new("istio-validate")?;
    for (file, versions) in MODES {
        let config = patched(&patches(file)?)?;
        for version in versions {
            assert_eq!(refusal(&scratch, *version, &config)?, None, "{file} on {version:?}");
        }
    }
    let on_demand = patched(&patches("istio/on-demand.yaml")?)?;
    let refused = refusal(&scratch, Version::Oldest, &on_demand)?.unwrap_or_default();
    assert!(refused.contains("on_demand_secret"), "an Envoy without the selector takes it: {refused}");
    Ok(())
}

/// The control: where the check above could not see a mistake, this one fails.
#[test]
fn a_mistake_in_any_typed_config_of_a_patch_is_refused() -> Result<()> {
    let scratch = Scratch::new("istio-control")?;
    for (file, _) in MODES {
        let patches = patches(file)?;
        let mut checked = 0;
        for n in 0..patches.len() {
            let mut places = Vec::new();
            typed_configs(&patches[n], "", &mut places);
            for path in places {
                let mut faulty = patches.clone();
                place(&mut faulty[n], &path)?["no_such_field"] = true.into();
                let refused = refusal(&scratch, Version::Current, &patched(&faulty)?)?;
                let refused = refused.ok_or_else(|| Fault::new(format!("{file}: a mistake at {path} goes unseen")))?;
                assert!(refused.contains("no_such_field"), "{file}, {path}: refused for another reason: {refused}");
                checked += 1;
            }
        }
        assert!(checked >= 7, "{file}: only {checked} typed configs");
    }
    Ok(())
}

#[test]
fn the_filters_stand_together_in_front_of_the_router_as_in_the_shipped_bootstrap() -> Result<()> {
    for (file, bootstrap) in [("istio/named.yaml", "bootstrap-named.yaml"), ("istio/on-demand.yaml", "bootstrap.yaml")]
    {
        let mut ours = patched(&patches(file)?)?;
        let ours = list(&mut ours, &format!("{CONNECTION_MANAGER}.http_filters"))?.split_off(1);
        let mut shipped = read(bootstrap)?.remove(0);
        let shipped = list(&mut shipped, &format!("{CONNECTION_MANAGER}.http_filters"))?.clone();
        assert_eq!(ours.len(), shipped.len(), "{file}");
        for (ours, shipped) in ours.iter().zip(&shipped) {
            let same = |text: String| text.replace("UPSTREAM_CLUSTER_RAW%", "UPSTREAM_CLUSTER%");
            let plain = |value: &Value| Ok::<_, Fault>(same(serde_norway::to_string(value)?));
            let filter = tools::filter()?.display().to_string();
            assert_eq!(plain(ours)?.replace(&filter, "/etc/bouncer/bouncer_filter.wasm"), plain(shipped)?, "{file}");
        }
    }
    Ok(())
}

#[test]
fn every_name_of_the_cluster_is_the_one_that_istio_gives_it() -> Result<()> {
    let upstream = read("istio/upstream.yaml")?;
    let port = &upstream[0]["spec"]["ports"][0];
    let host = upstream[0]["spec"]["hosts"][0].as_str().unwrap_or_default();
    let name = format!("outbound|{}||{host}", port["number"].as_u64().unwrap_or_default());
    assert_eq!(name, CLUSTER);
    assert_eq!(upstream[1]["spec"]["trafficPolicy"]["tls"]["mode"].as_str(), Some("DISABLE"));
    for (file, secret) in [("istio/named.yaml", Some("named/")), ("istio/on-demand.yaml", None)] {
        let mut config = patched(&patches(file)?)?;
        let tls = at(&mut config, "static_resources.clusters.0.transport_socket.typed_config.common_tls_context")?;
        let text = serde_norway::to_string(tls)?;
        assert_eq!(text.matches("key: x-bouncer-cluster").count(), 2, "{file}");
        assert_eq!(text.matches(&format!("value: {CLUSTER}\n")).count(), 2, "{file}");
        assert!(text.contains(&format!("name: ca/{CLUSTER}\n")), "{file}");
        let named = &tls["tls_certificate_sds_secret_configs"];
        assert_eq!(named[0]["name"].as_str().map(str::to_owned), secret.map(|prefix| format!("{prefix}{CLUSTER}")));
        if secret.is_some() {
            let both = (&named[0]["sds_config"], &tls["validation_context_sds_secret_config"]["sds_config"]);
            assert_eq!(both.0, both.1, "Envoy tells secrets apart by these bytes");
        }
    }
    Ok(())
}

#[test]
fn the_resolver_takes_the_configuration_of_the_workload() -> Result<()> {
    let scratch = Scratch::new("istio-resolver")?;
    let workload = read("istio/workload.yaml")?;
    let toml = workload[0]["data"]["resolver.toml"].as_str().unwrap_or_default();
    let ca = scratch.write("ca.pem", Ca::new("payments")?.pem())?;
    let check = |toml: String| -> Result<(bool, String)> {
        let path = scratch.write("resolver.toml", toml)?;
        let mut command = Command::new(tools::binary("bouncer-resolver")?);
        let output = command.arg("check").arg("--config").arg(path).env("BOUNCER_SDS_KEY", "0a".repeat(32)).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let toml = toml.replace("/etc/bouncer/ca/payments-ca.pem", &ca.display().to_string());
    for mode in ["named", "on_demand"] {
        let (good, said) = check(toml.replace("mode = \"named\"", &format!("mode = \"{mode}\"")))?;
        assert!(good, "{said}");
    }
    let (good, said) = check(toml.replace("own-svid", "own"))?;
    assert!(!good && said.contains("intercept.caller"), "{said}");
    assert!(toml.contains(&format!("name = \"{CLUSTER}\"")), "the rail has another name than the cluster");

    // What the pod mounts is what the configuration and the patches name.
    let annotations = &workload[1]["spec"]["template"]["metadata"]["annotations"];
    let mounts = annotations["sidecar.istio.io/userVolumeMount"].as_str().unwrap_or_default();
    let mounts: serde_json::Value = serde_json::from_str(mounts)?;
    let volumes = workload[1]["spec"]["template"]["spec"]["volumes"].as_sequence().cloned().unwrap_or_default();
    for (volume, folder) in [("bouncer-sockets", "/run/bouncer"), ("bouncer-filter", "/etc/bouncer")] {
        assert_eq!(mounts[volume]["mountPath"], folder);
        assert!(volumes.iter().any(|found| found["name"].as_str() == Some(volume)), "{volume}");
    }
    Ok(())
}

/// Starts an Envoy with an admin interface and gives the interface's URL.
fn start(scratch: &Scratch, version: Version, config: &mut Value) -> Result<(Process, String)> {
    let port = free_port()?;
    let admin = format!("address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}");
    config["admin"] = serde_norway::from_str(&admin)?;
    let path = scratch.write("envoy.yaml", serde_norway::to_string(config)?)?;
    let mut command = Command::new(version.program()?);
    command.arg("-c").arg(path).args(["--disable-hot-restart", "--concurrency", "1"]);
    Ok((Process::spawn("envoy", scratch, command)?, format!("http://127.0.0.1:{port}")))
}

/// Istio delivers clusters at run time, and an SDS server that is such a cluster was once refused.
#[tokio::test]
async fn clusters_that_arrive_at_run_time_may_name_the_resolver_as_their_sds_server() -> Result<()> {
    for (file, versions) in MODES {
        for version in versions {
            let scratch = Scratch::new("istio-cds")?;
            let mut config = patched(&patches(file)?)?;
            let mut clusters = std::mem::take(list(&mut config, "static_resources.clusters")?);
            for cluster in &mut clusters {
                cluster["@type"] = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
            }
            let resources = serde_norway::to_string(&clusters)?;
            let cds = scratch.write("cds.yaml", format!("version_info: '1'\nresources:\n{resources}"))?;
            let source = format!(
                "cds_config: {{ resource_api_version: V3, path_config_source: {{ path: {} }} }}",
                cds.display()
            );
            config["dynamic_resources"] = serde_norway::from_str(&source)?;
            config["static_resources"] = Value::Mapping(serde_norway::Mapping::new());
            let (process, admin) = start(&scratch, *version, &mut config)?;
            let http = reqwest::Client::builder().no_proxy().build()?;
            let asked = || async {
                let stats = http.get(format!("{admin}/stats")).send().await.ok()?.text().await.ok()?;
                let has = |line: &str| stats.lines().any(|found| found == line);
                let asked = stats.lines().any(|line| {
                    line.strip_prefix("cluster.bouncer_sds.upstream_cx_total: ").is_some_and(|count| count != "0")
                });
                (asked && has("cluster_manager.cds.update_success: 1")).then_some(stats)
            };
            let stats = process.until("Envoy's question to the resolver", SOON, asked).await?;
            assert!(stats.contains("cluster_manager.cds.update_rejected: 0\n"), "{file} on {version:?}");
        }
    }
    Ok(())
}

/// Why the facts name the cluster by `%UPSTREAM_CLUSTER_RAW%` here; the control is what they said otherwise.
#[tokio::test]
async fn the_facts_name_the_cluster_and_not_its_statistics() -> Result<()> {
    for version in [Version::Current, Version::Oldest] {
        assert_eq!(cluster_in_facts(version, "%UPSTREAM_CLUSTER_RAW%").await?, CLUSTER);
        assert_eq!(cluster_in_facts(version, "%UPSTREAM_CLUSTER%").await?, format!("{CLUSTER};"));
    }
    Ok(())
}

/// The first of the facts, as an upstream without Bouncer's other filters sees it.
async fn cluster_in_facts(version: Version, format: &str) -> Result<String> {
    let (mut facts, _) = header_patches("istio/named.yaml")?;
    let mutation = "patch.value.typed_config.mutations.request_mutations.0.append.header.value";
    let value = at(&mut facts, mutation)?;
    *value = value.as_str().unwrap_or_default().replace("%UPSTREAM_CLUSTER_RAW%", format).into();
    let lines = seen_upstream(version, &[&facts], "x-bouncer-facts: forged\r\n").await?;
    let facts: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("x-bouncer-facts: ")).collect();
    match facts.as_slice() {
        [facts] => Ok(facts.split(' ').next().unwrap_or_default().to_owned()),
        other => Err(Fault::new(format!("facts: {other:?}"))),
    }
}

/// Of a file the patch that writes facts and trace into their headers, and the one that removes them.
fn header_patches(file: &str) -> Result<(Value, Value)> {
    let (mut writes, mut removes) = (None, None);
    for patch in patches(file)? {
        if patch["patch"]["value"]["name"] == "bouncer.facts" {
            writes = Some(patch);
        } else if patch["applyTo"] == "VIRTUAL_HOST" {
            removes = Some(patch);
        }
    }
    writes.zip(removes).ok_or_else(|| Fault::new(format!("{file} does not write and remove facts")))
}

/// What an upstream without Bouncer's other filters sees of Bouncer's headers, where a client sends these.
async fn seen_upstream(version: Version, patches: &[&Value], sent: &str) -> Result<Vec<String>> {
    let scratch = Scratch::new("istio-headers")?;
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = free_port()?;
    let mut config = generated(upstream.local_addr()?.port(), port)?;
    patches.iter().try_for_each(|patch| apply(&mut config, patch))?;
    let (process, _admin) = start(&scratch, version, &mut config)?;
    let connect = || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() };
    let mut client = process.until("a listener", SOON, connect).await?;
    client.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{sent}\r\n").as_bytes()).await?;
    let (stream, _) = tokio::time::timeout(SOON, upstream.accept()).await??;
    let mut lines = BufReader::new(stream).lines();
    let mut seen = Vec::new();
    loop {
        let line = tokio::time::timeout(SOON, lines.next_line()).await??;
        match line.ok_or_else(|| Fault::new("half a request"))? {
            end if end.is_empty() => return Ok(seen),
            line if line.to_ascii_lowercase().starts_with("x-bouncer-") => seen.push(line),
            _ => {}
        }
    }
}

/// What Envoy writes for the filter does not go on to the upstream, nor does what a client claims under those names; and
/// between the two patches, where the filter is, only Envoy's words are left. The control is what passes without either.
#[tokio::test]
async fn a_client_smuggles_neither_facts_nor_a_trace_past_the_patches() -> Result<()> {
    const FORGED: &str = "x-bouncer-facts: forged\r\nX-Bouncer-Facts: forged again\r\nx-bouncer-trace: forged\r\n";
    for (file, versions) in MODES {
        let (writes, removes) = header_patches(file)?;
        for version in versions {
            let bare = seen_upstream(*version, &[], FORGED).await?;
            assert_eq!(
                bare.iter().filter(|line| line.contains("forged")).count(),
                3,
                "{file} on {version:?}: {bare:?}"
            );
            let between = seen_upstream(*version, &[&writes], FORGED).await?;
            let names: Vec<&str> = between.iter().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
            assert_eq!(names, ["x-bouncer-facts", "x-bouncer-trace"], "{file} on {version:?}: {between:?}");
            assert!(!between.iter().any(|line| line.contains("forged")), "{file} on {version:?}: {between:?}");
            for patches in [&[&writes, &removes][..], &[&removes]] {
                assert_eq!(
                    seen_upstream(*version, patches, FORGED).await?,
                    Vec::<String>::new(),
                    "{file} on {version:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_readme_names_every_file() -> Result<()> {
    let folder = tools::root().join("envoy/istio");
    let readme = std::fs::read_to_string(folder.join("README.md"))?;
    for entry in std::fs::read_dir(&folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(name == "README.md" || readme.contains(&format!("`{name}`")), "{name}");
    }
    Ok(())
}
