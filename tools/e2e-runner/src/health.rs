//! The health of the API server and of the nodes while tests run, so that their absence is never taken for a test's
//! failure.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kit::{Cause, Platform, process::Stopper};
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::task::JoinHandle;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(2);
/// How soon again after a first doubt.
const DOUBT: Duration = Duration::from_millis(500);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long tests go on without an API server or a node: time for it to restart, not to wait for each test's patience.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long after a node went its absence can be a test's failure, where others are there: then what ran on it has been
/// moved to those (`tolerationSeconds` of pods without any of their own, twice).
const MOVED: jiff::SignedDuration = jiff::SignedDuration::from_secs(600);
/// How long a node can be away before Kubernetes says so (the controller manager's `--node-monitor-grace-period`).
const GRACE: jiff::SignedDuration = jiff::SignedDuration::from_secs(50);

/// A time in which the API server did not answer, or a node was not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Outage {
    /// The last good answer before it.
    pub from: Timestamp,
    /// The first good answer after it, if there was one.
    pub to: Option<Timestamp>,
    /// What came instead of an answer, first.
    pub why: String,
    /// What kind of fault that is.
    pub cause: Cause,
}

impl Outage {
    /// Whether any of it lies between these times.
    #[must_use]
    pub fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }

    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        let time = |time: Timestamp| time.strftime("%H:%M:%S").to_string();
        let to = self.to.map_or_else(|| "the end".into(), time);
        match self.cause {
            Cause::Node => format!("{}, between {} and {to} UTC", self.why, time(self.from)),
            _ => format!("the API server did not answer between {} and {to} UTC: {}", time(self.from), self.why),
        }
    }
}

/// All that was found, in order of time.
#[derive(Debug, Clone, Default)]
pub struct Outages(Vec<Outage>);

impl Outages {
    /// The first one that any of this time lies in.
    #[must_use]
    pub fn during(&self, from: Timestamp, to: Timestamp) -> Option<&Outage> {
        self.0.iter().find(|outage| outage.overlaps(from, to))
    }

    /// The one that has not ended.
    #[must_use]
    pub fn open(&self) -> Option<&Outage> {
        self.0.last().filter(|outage| outage.to.is_none())
    }

    /// How many there were.
    #[must_use]
    pub fn number(&self) -> usize {
        self.0.len()
    }

    /// The same with another one.
    #[cfg(test)]
    pub(crate) fn with(mut self, from: Timestamp, to: Timestamp, cause: Cause) -> Self {
        self.0.push(Outage { from, to: Some(to), why: "away".into(), cause });
        self
    }

    fn record(&mut self, last_good: Timestamp, answer: Result<Timestamp, Fault>) {
        let open = self.0.last_mut().filter(|outage| outage.to.is_none());
        match (answer, open) {
            (Ok(now), Some(outage)) => outage.to = Some(now),
            (Err(Fault { cause, why, .. }), None) => {
                let from = if cause == Cause::Node { last_good - GRACE } else { last_good };
                self.0.push(Outage { from, to: None, why, cause });
            }
            _ => {}
        }
    }
}

/// What is wrong at one look.
#[derive(Debug, Clone, PartialEq)]
struct Fault {
    cause: Cause,
    why: String,
    /// Whether no test can go on: there is no API server, or no node.
    total: bool,
}

/// Asks the API server again and again, for itself and for the nodes of the platform.
pub struct Watch {
    found: Arc<Mutex<Outages>>,
    /// Whether no test can go on now.
    nothing: Arc<AtomicBool>,
    task: JoinHandle<()>,
    cluster: Cluster,
    only_nodes: bool,
}

impl Watch {
    /// Begins, on the present tokio runtime. `stopper` ends the tests if something stays away.
    #[must_use]
    pub fn start(client: Client, platform: &Platform, stopper: Stopper) -> Self {
        let found = Arc::new(Mutex::new(Outages::default()));
        let selector = format!("kubernetes.io/os={},kubernetes.io/arch={}", platform.os, platform.arch);
        let cluster = Cluster { client, selector, nodes: Arc::default() };
        let nothing = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(watch(cluster.clone(), Arc::clone(&found), Arc::clone(&nothing), stopper));
        Self { found, nothing, task, cluster, only_nodes: false }
    }

    /// For tests that need nodes and no API server.
    #[must_use]
    pub fn only_nodes(self) -> Self {
        Self { only_nodes: true, ..self }
    }

    /// What was found until now.
    #[must_use]
    pub fn outages(&self) -> Outages {
        self.of_interest(self.found.lock().map(|found| found.clone()).unwrap_or_default())
    }

    /// Waits so long at most until tests can go on; says whether they can.
    pub async fn is_back(&self, limit: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + limit;
        while self.nothing.load(Ordering::Relaxed) {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(DOUBT).await;
        }
        true
    }

    fn of_interest(&self, mut outages: Outages) -> Outages {
        outages.0.retain(|outage| !self.only_nodes || outage.cause == Cause::Node);
        outages
    }

    /// Ends, with a last look: an API server that is away gets a few seconds to come back.
    pub async fn finish(self) -> Outages {
        self.task.abort();
        let mut outages = self.outages();
        let mut last_good = Timestamp::now();
        for delay in kit::retry::delays().take(8) {
            let answer = self.cluster.ask().await;
            let good = answer.is_ok();
            outages.record(last_good, answer);
            if good {
                break;
            }
            last_good = Timestamp::now();
            tokio::time::sleep(delay).await;
        }
        self.of_interest(outages)
    }
}

async fn watch(cluster: Cluster, found: Arc<Mutex<Outages>>, nothing: Arc<AtomicBool>, stopper: Stopper) {
    let mut last_good = Timestamp::now();
    let (mut doubts, mut nothing_since) = (0, None);
    loop {
        let answer = cluster.ask().await;
        // One late answer may be a busy machine's; a connection that is refused is no matter of patience.
        let doubtful = matches!(&answer, Err(fault) if fault.cause == Cause::Apiserver);
        doubts = if doubtful { doubts + 1 } else { 0 };
        let before = last_good;
        if let Ok(now) = &answer {
            last_good = *now;
        }
        let wait = if answer.is_ok() { INTERVAL } else { DOUBT };
        if doubts != 1
            && let Ok(mut found) = found.lock()
        {
            nothing_since = stays_away(nothing_since, before, &answer);
            found.record(before, answer);
            nothing.store(nothing_since.is_some(), Ordering::Relaxed);
            let away = nothing_since.map(|since| Timestamp::now().duration_since(since));
            if away.is_some_and(|away| away.as_secs() >= PATIENCE.as_secs().cast_signed()) {
                stopper.stop();
            }
        }
        tokio::time::sleep(wait).await;
    }
}

/// Since when no test can go on.
fn stays_away(since: Option<Timestamp>, last_good: Timestamp, answer: &Result<Timestamp, Fault>) -> Option<Timestamp> {
    answer.as_ref().err().filter(|fault| fault.total).map(|_| since.unwrap_or(last_good))
}

/// What is asked.
#[derive(Clone)]
struct Cluster {
    client: Client,
    /// The nodes that tests run on.
    selector: String,
    nodes: Arc<Mutex<Nodes>>,
}

impl Cluster {
    async fn ask(&self) -> Result<Timestamp, Fault> {
        let fault = |cause, why| Fault { cause, why, total: true };
        let namespaces = Api::<Namespace>::all(self.client.clone());
        // A read that goes through to etcd, and that every user of a cluster may do.
        match tokio::time::timeout(ANSWER, namespaces.get_metadata("kube-system")).await {
            Err(_) => return Err(fault(Cause::Apiserver, format!("no answer within {} s", ANSWER.as_secs()))),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => match cluster::cause_of(&error) {
                // It answered, and what it says is no matter of its health.
                Cause::Auth | Cause::Product | Cause::Quota | Cause::Usage => {}
                cause => return Err(fault(cause, cluster::describe(&error))),
            },
        }
        let nodes = Api::<Node>::all(self.client.clone());
        let nodes = tokio::time::timeout(ANSWER, nodes.list(&ListParams::default().labels(&self.selector))).await;
        let mut known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        match nodes {
            Ok(Ok(nodes)) => known.look(&nodes.items, now).map_or(Ok(now), Err),
            // Who may not look at nodes, or gets no answer this time, knows of the API server all the same.
            _ => Ok(now),
        }
    }
}

/// The nodes that were ready.
#[derive(Debug, Default)]
struct Nodes {
    known: BTreeMap<String, Known>,
    /// Whether there ever was one.
    any: bool,
}

#[derive(Debug)]
struct Known {
    /// Which start of it.
    boot: String,
    /// Since when it is not ready.
    away: Option<Timestamp>,
}

impl Nodes {
    /// The first node that was ready and is not, is there no more, or was started again since: its pods are gone then,
    /// however it looks. One that was taken away is said once, for it does not come back; one that others stand in for
    /// is forgotten when its pods have been moved.
    fn look(&mut self, nodes: &[Node], now: Timestamp) -> Option<Fault> {
        let there: BTreeMap<_, _> = nodes.iter().map(|node| (node.name_any(), (ready(node), boot(node)))).collect();
        let none = !there.values().any(|(ready, _)| *ready);
        let (mut again, mut gone, mut removed) = (None, None, None);
        self.known.retain(|name, known| match there.get(name) {
            None => {
                removed.get_or_insert_with(|| format!("node {name} was taken away"));
                false
            }
            Some((false, _)) => {
                let since = *known.away.get_or_insert(now);
                let stays = none || now.duration_since(since) < MOVED;
                if stays {
                    gone.get_or_insert_with(|| format!("node {name} was not ready"));
                }
                stays
            }
            Some((true, boot)) => {
                if *boot != known.boot {
                    again.get_or_insert_with(|| format!("node {name} was started again"));
                }
                true
            }
        });
        let now_ready = there.into_iter().filter(|(_, (ready, _))| *ready);
        self.known.extend(now_ready.map(|(name, (_, boot))| (name, Known { boot, away: None })));
        let nowhere = (none && self.any).then(|| "no node was ready".to_owned());
        self.any |= !none;
        let why = again.or(gone).or(removed).or(nowhere)?;
        Some(Fault { cause: Cause::Node, why, total: none })
    }
}

fn ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

fn boot(node: &Node) -> String {
    node.status.as_ref().and_then(|status| Some(status.node_info.as_ref()?.boot_id.clone())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn node(name: &str, ready: &str, boot: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "nodeInfo": {"bootID": boot, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
                    "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                    "systemUUID": ""},
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_node_that_was_ready_and_is_not_or_was_started_again_is_named() {
        let mut known = Nodes::default();
        let mut look = |nodes: &[Node]| known.look(nodes, at(0)).map(|fault| fault.why);
        assert_eq!(look(&[node("a", "True", "1"), node("b", "Unknown", "1")]), None, "b never was ready");
        assert_eq!(look(&[node("a", "Unknown", "1")]).unwrap(), "node a was not ready");
        assert_eq!(look(&[node("a", "True", "1")]), None);
        assert_eq!(look(&[node("a", "True", "2")]).unwrap(), "node a was started again");
        assert_eq!(look(&[node("a", "True", "2")]), None, "said once");
        assert_eq!(look(&[]).unwrap(), "node a was taken away");
        assert_eq!(look(&[]).unwrap(), "no node was ready");
        assert_eq!(look(&[node("c", "True", "1")]), None);
    }

    #[test]
    fn a_node_that_is_taken_away_or_that_others_stand_in_for_ends_nothing() {
        let (mut known, mut found, mut since) = (Nodes::default(), Outages::default(), None);
        let mut look = |second, nodes: &[Node]| {
            let answer = known.look(nodes, at(second)).map_or(Ok(at(second)), Err);
            since = stays_away(since, at(second - 2), &answer);
            found.record(at(second - 2), answer);
            (since, found.number(), found.open().is_some())
        };
        let (a, b) = (|ready| node("a", ready, "1"), || node("b", "True", "1"));
        assert_eq!(look(0, &[a("True"), b()]), (None, 0, false));
        // Scaled down: one outage, which ends.
        assert_eq!(look(10, &[b()]), (None, 1, true));
        assert_eq!(look(12, &[b()]), (None, 1, false));
        assert_eq!(look(100, &[a("True"), b()]), (None, 1, false));
        // Not ready, while the other one is: no reason to stop, and none for failures that come much later.
        assert_eq!(look(110, &[a("False"), b()]), (None, 2, true));
        assert_eq!(look(500, &[a("False"), b()]), (None, 2, true));
        assert_eq!(look(800, &[a("False"), b()]), (None, 2, false));
        assert_eq!(look(900, &[a("False"), node("b", "False", "1")]), (Some(at(898)), 3, true));
        assert_eq!(look(990, &[a("False")]), (Some(at(898)), 3, true));
        assert_eq!(look(992, &[a("True")]), (None, 3, false));
    }

    #[test]
    fn what_ended_before_kubernetes_missed_a_node_may_be_its_doing() {
        let mut found = Outages::default();
        let fault = Fault { cause: Cause::Node, why: "node a was not ready".to_owned(), total: true };
        found.record(at(100), Err(fault));
        let outage = found.during(at(70), at(80)).unwrap();
        assert!(outage.describe().starts_with("node a was not ready, between"), "{}", outage.describe());
        assert!(found.during(at(0), at(40)).is_none());
    }

    #[test]
    fn an_outage_lasts_from_good_to_good() {
        let mut found = Outages::default();
        let (cause, why) = (Cause::ClusterUnreachable, "connection refused".to_owned());
        let away = || Err(Fault { cause, why: why.clone(), total: true });
        found.record(at(0), Ok(at(2)));
        found.record(at(2), away());
        found.record(at(2), away());
        assert!(found.open().is_some());
        found.record(at(2), Ok(at(9)));
        assert_eq!((found.number(), found.open()), (1, None));
        for (from, to, hit) in [(0, 1, false), (0, 3, true), (3, 4, true), (8, 20, true), (10, 20, false)] {
            assert_eq!(found.during(at(from), at(to)).is_some(), hit, "{from} to {to}");
        }
        let said = found.during(at(3), at(4)).unwrap().describe();
        assert!(said.ends_with("connection refused") && said.contains("between"), "{said}");
    }
}
