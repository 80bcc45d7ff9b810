//! Several control planes behind one PostgreSQL database: what one changes reaches the bouncers of all, and any of them may be
//! killed with nothing acknowledged lost.

use bouncer_tests::api::Api;
use bouncer_tests::control_plane::{ControlPlane, Setup};
use bouncer_tests::intercept::Decider;
use bouncer_tests::postgres::{Server, Settings};
use bouncer_tests::scratch::Scratch;
use bouncer_tests::stack::{BOUNCER, CART, Stack};
use bouncer_tests::{Fault, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(60);

/// One address in front of several control planes, as a load balancer for TCP is: the first that answers has the connection.
struct Front {
    address: SocketAddr,
    ports: Arc<Mutex<Vec<u16>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Front {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let ports = Arc::new(Mutex::new(Vec::<u16>::new()));
        let behind = Arc::clone(&ports);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let ports = behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
                connections.spawn(async move {
                    for port in ports {
                        if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                            // A connection that breaks is what this is about.
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { address, ports, task })
    }

    fn lead_to(&self, ports: &[u16]) {
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner) = ports.to_vec();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The items of a list, all its parts.
async fn all(api: &Api, path: &str) -> Result<Vec<Value>> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let part = api.get(&format!("{path}limit=500{cursor}")).await?.success()?;
        items.extend(part["items"].as_array().into_iter().flatten().cloned());
        match part["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(items),
        }
    }
}

/// How a control plane shows the bouncer's connection.
async fn shown(api: &Api) -> Option<Value> {
    let answer = api.get(&format!("/v1/bouncers/{BOUNCER}")).await.ok()?.success().ok()?;
    Some(answer["bridge"].clone())
}

/// The filter's side of the resolver, and the decisions that gave it a credential.
#[derive(Clone)]
struct Streams {
    decider: Decider,
    released: Arc<Mutex<BTreeSet<String>>>,
}

impl Streams {
    async fn of(stack: &Stack, released: Arc<Mutex<BTreeSet<String>>>) -> Result<Self> {
        Ok(Self { decider: Decider::at(&stack.resolver()?.setup().intercept_socket).await?, released })
    }

    async fn allowed(&self) -> bool {
        let id = self.decider.clone().released(CART).await.ok().flatten();
        id.map(|id| self.released().insert(id)).is_some()
    }

    async fn until_allowed(&self, stack: &Stack) -> Result<()> {
        stack.until("a decision", DEADLINE, || async { self.allowed().await.then_some(()) }).await
    }

    fn released(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until each release of a credential is in the audit, once.
async fn all_audited(stack: &Stack, api: &Api, streams: &Streams) -> Result<()> {
    stack
        .until("every release in the audit, once", DEADLINE, || async {
            let ids = |events: &[Value], id: &str| -> BTreeSet<String> {
                events
                    .iter()
                    .filter_map(|event| event[id].as_str())
                    .filter(|id| !id.is_empty())
                    .map(str::to_owned)
                    .collect()
            };
            let events = all(api, "/v1/audit/events?outcome=inject&").await.ok()?;
            let recorded = ids(&events, "id");
            assert_eq!(recorded.len(), events.len(), "each once");
            // A change may overtake a release that is recorded already; a denial says so then.
            let taken_back = ids(&all(api, "/v1/audit/events?outcome=deny&").await.ok()?, "decision_id");
            (recorded == &*streams.released() | &taken_back).then_some(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_loses_nothing_acknowledged_and_the_others_go_on() -> Result<()> {
    let mut server = Server::start(&Settings::default())?;
    let database = format!("[database]\nurl = {:?}\n", server.url("postgres"));
    let mut stack = Stack::builder("replicas").control_plane(&database).impatient().without_envoy().start().await?;
    let first = stack.control_plane()?.setup().clone();
    let (one, token) = (stack.api()?, stack.control_plane()?.token().to_owned());

    let scratch = Scratch::new("replicas-second")?;
    let mut setup = Setup::new(&scratch, stack.identities.control_plane())?;
    setup.more.clone_from(&database);
    scratch.write("control-plane.toml", toml::to_string(&setup.toml()?)?)?;
    let second = ControlPlane::serve(&scratch, setup, token).await?;
    let other = second.api()?;

    // What the first changes reaches a resolver that is connected to the second.
    let front = Front::start().await?;
    front.lead_to(&[second.setup().bridge_port]);
    let address = front.address.to_string();
    stack.reconfigure_resolver(|setup| setup.set("bridge.address", address)).await?;
    let streams = Streams::of(&stack, Arc::default()).await?;
    streams.until_allowed(&stack).await?;
    let envelope = stack.envelopes.values().next().cloned().ok_or_else(|| Fault::new("no envelope"))?;
    one.enable_envelope(&envelope, false).await?;
    stack.until("a denial", DEADLINE, || async { (!streams.allowed().await).then_some(()) }).await?;
    one.enable_envelope(&envelope, true).await?;
    streams.until_allowed(&stack).await?;
    let connected = |view: &Value| view["state"] == "connected" && view["instances"] == 1 && view["ready"] == true;
    stack
        .until("the first to show who is connected to the second", DEADLINE, || async {
            shown(&one).await.filter(connected)
        })
        .await?;

    // The resolver goes over to the first, which is killed amid writes and audit.
    front.lead_to(&[first.bridge_port, second.setup().bridge_port]);
    stack.restart_resolver_until_ready().await?;
    let streams = Streams::of(&stack, streams.released).await?;
    streams.until_allowed(&stack).await?;
    stack
        .until("the second to show who is connected to the first", DEADLINE, || async {
            shown(&other).await.filter(connected)
        })
        .await?;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let kept = Arc::clone(&acknowledged);
    let writer = tokio::spawn(async move {
        for n in 0.. {
            let name = format!("written-{n}");
            let body = json!({"name": name, "spiffe_id": format!("spiffe://example.org/{name}")});
            match one.post("/v1/bouncers", &body).await {
                Ok(answer) if answer.status == 201 => {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                }
                _ => return,
            }
        }
    });
    let count = || acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len();
    let before = streams.released().len();
    while count() < 40 || streams.released().len() < before + 40 {
        assert!(streams.allowed().await);
    }
    stack.kill_control_plane()?;
    writer.await?;
    // Decisions go on meanwhile, and their events find the second.
    for _ in 0..20 {
        assert!(streams.allowed().await);
    }
    let names: BTreeSet<String> =
        all(&other, "/v1/bouncers?").await?.iter().filter_map(|b| b["name"].as_str().map(str::to_owned)).collect();
    let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(acknowledged.is_subset(&names), "lost: {:?}", acknowledged.difference(&names).collect::<Vec<_>>());
    all_audited(&stack, &other, &streams).await?;
    let view =
        stack.until("the resolver at the second", DEADLINE, || async { shown(&other).await.filter(connected) }).await?;
    assert_eq!((&view["audit_missing"], &view["audit_divergences"]), (&json!(0), &json!(0)), "{view}");

    // Its database goes away and comes back: that is said, nothing of before is lost, and nothing has to be restarted.
    server.stop()?;
    let away = other.get("/v1/bouncers").await?;
    assert_eq!(away.status, 503);
    assert!(streams.allowed().await, "the resolver goes on");
    server.start_again()?;
    second
        .process()
        .until("answers again", DEADLINE, || async { other.get("/v1/bouncers").await.ok().filter(|a| a.status == 200) })
        .await?;
    let after: BTreeSet<String> =
        all(&other, "/v1/bouncers?").await?.iter().filter_map(|b| b["name"].as_str().map(str::to_owned)).collect();
    assert_eq!(after, names);
    all_audited(&stack, &other, &streams).await
}
