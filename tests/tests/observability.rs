//! The shipped alert rules and the dashboard: they name nothing that is not exposed, and each alert fires and is quiet as
//! it says.

use bouncer_tests::client::Protocol;
use bouncer_tests::scratch::{Scratch, free_port};
use bouncer_tests::stack::{CART, Credential, STRANGER, Stack};
use bouncer_tests::{Fault, Result, tools};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

fn shipped(name: &str) -> PathBuf {
    tools::root().join("envoy/observability").join(name)
}

fn yaml(name: &str) -> Result<Value> {
    Ok(serde_norway::from_str(&std::fs::read_to_string(shipped(name))?)?)
}

fn children<'a>(tree: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    tree[key].as_array().into_iter().flatten()
}

fn rules(file: &Value) -> impl Iterator<Item = &Value> {
    children(file, "groups").flat_map(|group| children(group, "rules"))
}

/// Every expression of the rules and of the dashboard.
fn expressions() -> Result<Vec<String>> {
    let (rules_file, dashboard) = (yaml("alerts.yaml")?, yaml("dashboard.json")?);
    let targets = children(&dashboard, "panels").flat_map(|panel| children(panel, "targets"));
    Ok(rules(&rules_file).chain(targets).filter_map(|one| one["expr"].as_str().map(str::to_owned)).collect())
}

/// What a selector asks for: a metric of ours or of Envoy's, and its matchers as they stand.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    metric: String,
    matchers: Vec<String>,
}

/// The selectors of an expression. Labels, in `by (…)` or in braces, are no metrics.
fn wanted(expression: &str) -> Vec<Wanted> {
    let mut found: Vec<Wanted> = vec![];
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        rest = rest.get(start..).unwrap_or_default();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if word == "by" {
            rest = after.split_once(')').map_or("", |(_, after)| after);
        } else if word.starts_with("bouncer_") || word.starts_with("envoy_") {
            let mut matchers = vec![];
            if let Some((inside, after)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
                matchers = inside.split(',').map(str::to_owned).collect();
                rest = after;
            }
            found.push(Wanted { metric: word.to_owned(), matchers });
        } else if let Some((_, after)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            rest = after;
        }
    }
    found
}

/// Of what is wanted that which no line of the expositions has.
fn missing(wanted: &BTreeSet<Wanted>, exposed: &str) -> Vec<String> {
    let has = |one: &Wanted| {
        exposed.lines().any(|line| {
            let labels = line.strip_prefix(&one.metric).filter(|rest| rest.starts_with(['{', ' ']));
            // Which status a call has is its own; that it has one is ours.
            let ours = |matcher: &&String| !matcher.starts_with("status=");
            labels
                .is_some_and(|labels| one.matchers.iter().filter(ours).all(|matcher| labels.contains(matcher.as_str())))
        })
    };
    wanted.iter().filter(|one| !has(one)).map(|one| format!("{one:?}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_dashboard_name_only_what_resolver_control_plane_and_envoy_expose() -> Result<()> {
    let credential = Credential::new("payments-api", "payments");
    // An outlet to nobody has all its names too.
    let outlet = format!("[[audit.forward]]\nname = \"siem\"\nto = \"http://127.0.0.1:{}\"\n", free_port()?);
    let stack = Stack::builder("observability").workers(1).control_plane(&outlet);
    let stack = stack.credential(credential.clone()).start().await?;
    assert_eq!(stack.client(CART, Protocol::Http1)?.get("/").await?.status, 200);
    assert_ne!(stack.client(STRANGER, Protocol::Http1)?.get("/").await?.status, 200);
    // A generation that is no good: a failed unwrap, and a rotation that is not taken.
    let bad = Credential { tampered: true, ..credential };
    let (_, body) = bad.wrap(&stack.kms, &stack.key_arn, None, &stack.customer_ca).await?;
    stack.api()?.register_envelope(&body).await?;
    stack.audited("the bad generation", |event| event["outcome"] == "rotate" && event["reason"] != "").await?;

    let wanted: BTreeSet<Wanted> = expressions()?.iter().flat_map(|one| wanted(one)).collect();
    assert!(wanted.len() > 20, "{wanted:?}");
    let exposed = || async {
        let (_, resolver) = stack.resolver().ok()?.get("/metrics").await.ok()?;
        let control_plane = stack.api().ok()?.get("/metrics").await.ok()?.text;
        let envoy = stack.envoy().ok()?.admin("/stats/prometheus").await.ok()?;
        Some(format!("{resolver}\n{control_plane}\n{envoy}"))
    };
    let all = stack.until("three expositions", Duration::from_secs(10), exposed).await?;
    assert_eq!(missing(&wanted, &all), Vec::<String>::new(), "{all}");

    // The control: a name and a label value that nothing has are found.
    let planted = |metric: &str, matcher: &str| {
        let one = Wanted { metric: metric.to_owned(), matchers: vec![matcher.to_owned()] };
        missing(&BTreeSet::from([one]), &all).len()
    };
    assert_eq!(planted("bouncer_resolver_decisions_total", "outcome=\"deny\""), 0);
    assert_eq!(planted("bouncer_resolver_decisions_total", "outcome=\"denied\""), 1);
    assert_eq!(planted("bouncer_resolver_decision_total", "outcome=\"deny\""), 1);

    // What the new gauges say: nobody is behind, and the database and the identity are there.
    for line in ["bridge_refusing 0", "database_up 1", "identity_valid 1"] {
        assert!(all.contains(&format!("bouncer_control_plane_{line}\n")), "{line}");
    }
    let level = || async { exposed().await?.contains("bouncer_control_plane_bridge_lag_epochs 0\n").then_some(()) };
    stack.until("no lag", Duration::from_secs(10), level).await
}

#[test]
fn selectors_are_found_and_labels_are_not_taken_for_metrics() {
    let found = wanted(
        r#"sum by (envoy_cluster_name) (rate(envoy_x{outcome="deny",a="b"}[5m])) / up{job="bouncer_y"} > bouncer_z"#,
    );
    let names: Vec<&str> = found.iter().map(|one| one.metric.as_str()).collect();
    assert_eq!(names, ["envoy_x", "bouncer_z"]);
    assert_eq!(found.first().map(|one| one.matchers.len()), Some(2));
}

fn promtool(arguments: &[&str], file: &Path) -> Result<Output> {
    Ok(Command::new(tools::tool("promtool")?).args(arguments).arg(file).output()?)
}

fn accepted(arguments: &[&str], file: &Path) -> Result<()> {
    let output = promtool(arguments, file)?;
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() {
        return Ok(());
    }
    Err(Fault::new(format!("promtool {arguments:?}")).with_evidence(String::from_utf8_lossy(&said)))
}

#[test]
fn every_alert_says_what_to_do_and_fires_and_is_quiet_as_it_should() -> Result<()> {
    accepted(&["check", "rules"], &shipped("alerts.yaml"))?;
    accepted(&["check", "config"], &shipped("prometheus.yaml"))?;
    accepted(&["test", "rules"], &shipped("alerts.test.yaml"))?;

    let (file, tests) = (yaml("alerts.yaml")?, yaml("alerts.test.yaml")?);
    let cases: BTreeSet<&str> = children(&tests, "tests").filter_map(|case| case["name"].as_str()).collect();
    for rule in rules(&file) {
        let name = rule["alert"].as_str().unwrap_or_default();
        for case in ["fires", "is quiet"] {
            assert!(cases.contains(format!("{name} {case}").as_str()), "no test that {name} {case}");
        }
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("warning" | "critical")), "{name}");
        for text in ["summary", "description", "todo"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| text.len() > 10), "{name}: {text}");
        }
    }

    // The control: rules that mean something else fail their tests, and what is no PromQL is refused.
    let scratch = Scratch::new("rules")?;
    let text = std::fs::read_to_string(shipped("alerts.yaml"))?;
    let cases = std::fs::read_to_string(shipped("alerts.test.yaml"))?;
    let cases = scratch.write("alerts.test.yaml", cases)?;
    for (right, wrong) in [("ready == 0", "ready == 1"), ("unless increase(", "and increase("), ("< 86400", "< 864")] {
        assert!(text.contains(right), "{right}");
        scratch.write("alerts.yaml", text.replacen(right, wrong, 1))?;
        assert!(!promtool(&["test", "rules"], &cases)?.status.success(), "{right}");
    }
    let broken = scratch.write("alerts.yaml", text.replacen("ready == 0", "ready ==", 1))?;
    assert!(!promtool(&["check", "rules"], &broken)?.status.success());
    Ok(())
}
