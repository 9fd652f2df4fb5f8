//! Whether the clocks agree: a node's own lease carries the node's time, and a trial (a dry run) the API
//! server's.

use std::{collections::BTreeMap, time::Duration};

use cluster::{
    Kinds, KubeContext,
    watch::{Target, watch},
};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kit::{Cause, Result, record::Node};
use kube::{Api, Client, ResourceExt, api::PostParams, runtime::watcher::Event};
use tokio::time::{Instant, sleep_until};

use super::row::Row;

/// Kubelets renew theirs every ten seconds (kubernetes/pkg/kubelet, nodeLeaseRenewIntervalFraction).
const RENEWED: Duration = Duration::from_secs(25);
/// Certificates and logins are refused for less than a minute; logs are unreadable for less.
const TOLERANCE: f64 = 5.0;
/// Where the leases of nodes are.
const LEASES: &str = "kube-node-lease";

/// How far clocks are from ours, in seconds; positive is ahead.
type Offsets = BTreeMap<String, f64>;

/// Compares the clocks of the API server and of these nodes with this machine's.
pub(crate) async fn row(client: &Client, kinds: &Kinds, nodes: &[&Node]) -> Row {
    let server = server(client).await;
    let nodes_seen = of_nodes(client, kinds, nodes).await;
    let mut offsets = match server {
        Ok(offset) => Offsets::from([("the API server".to_owned(), offset)]),
        Err(error) => return Row::error("clock", &error),
    };
    let silent: Vec<_> =
        nodes.iter().filter(|node| !nodes_seen.contains_key(&node.name)).map(|node| node.name.clone()).collect();
    offsets.extend(nodes_seen);
    judge(&offsets, &silent)
}

fn judge(offsets: &Offsets, silent: &[String]) -> Row {
    let words = |(name, offset): (&String, &f64)| {
        let way = if *offset < 0.0 { "behind" } else { "ahead of" };
        format!("{name} is {:.1} s {way} this machine", offset.abs())
    };
    let wrong: Vec<_> = offsets.iter().filter(|(_, offset)| offset.abs() > TOLERANCE).map(words).collect();
    let largest = offsets.values().fold(0.0_f64, |largest, offset| largest.max(offset.abs()));
    let good = format!("{} clocks are within {largest:.1} s", offsets.len());
    match silent {
        [] => Row::of("clock", Cause::Node, &wrong, good).next_if_unfit("let the host keep its time (chrony, ntpd)"),
        _ if wrong.is_empty() => {
            Row::note("clock", format!("{good}; of {} nothing was seen in {} s", silent.join(", "), RENEWED.as_secs()))
        }
        _ => Row::of("clock", Cause::Node, &wrong, good),
    }
}

/// The API server stamps an object that is created for a try; it counts whole seconds.
async fn server(client: &Client) -> Result<f64> {
    let mut map = ConfigMap::default();
    map.metadata.name = Some("other-arch-clock".into());
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let before = Timestamp::now();
    let tried = Api::<ConfigMap>::namespaced(client.clone(), "default").create(&params, &map).await;
    let tried = tried.kube(|| "cannot ask the API server for its time")?;
    let after = Timestamp::now();
    let Some(stamp) = tried.creation_timestamp() else { return Ok(0.0) };
    Ok(outside(stamp.0, 1.0, before, after))
}

/// How far a stamp that counts in `grain` seconds lies outside of the time in which it was made.
fn outside(stamp: Timestamp, grain: f64, before: Timestamp, after: Timestamp) -> f64 {
    let seconds = |a: Timestamp, b: Timestamp| a.duration_since(b).as_secs_f64();
    let (ahead, behind) = (seconds(stamp, after), seconds(before, stamp) - grain);
    if ahead > 0.0 {
        ahead
    } else if behind > 0.0 {
        -behind
    } else {
        0.0
    }
}

/// What each node's next renewal says.
async fn of_nodes(client: &Client, kinds: &Kinds, nodes: &[&Node]) -> Offsets {
    let mut offsets = Offsets::new();
    let Some(kind) = kinds.get("coordination.k8s.io/v1", "Lease") else { return offsets };
    let target = Target { kind: kind.clone(), namespace: LEASES.into(), fields: String::new() };
    let (_, mut changes) = watch(client, &[target]);
    let deadline = Instant::now() + RENEWED;
    while nodes.iter().any(|node| !offsets.contains_key(&node.name)) {
        tokio::select! {
            Some((_, change)) = changes.next() => {
                let now = Timestamp::now();
                let event = match change {
                    Ok(event) => event,
                    // Away or forbidden: another row says so.
                    Err(_) => break,
                };
                // What was there before says when it was renewed, not what time it is.
                let Event::Apply(object) = event else { continue };
                let Some(lease) = serde_json::to_value(object).ok().and_then(|value| serde_json::from_value::<Lease>(value).ok()) else { continue };
                let Some(renewed) = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()) else { continue };
                let name = lease.name_any();
                if nodes.iter().any(|node| node.name == name) {
                    offsets.entry(name).or_insert_with(|| renewed.0.duration_since(now).as_secs_f64());
                }
            }
            () = sleep_until(deadline) => break,
        }
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::row::Answer;

    #[test]
    fn clocks_that_differ_are_named() {
        let offsets = Offsets::from([("n1".into(), -0.3), ("the API server".into(), 0.0)]);
        assert_eq!(judge(&offsets, &[]).line, "2 clocks are within 0.3 s");
        assert_eq!(judge(&offsets, &["n2".into()]).answer, Answer::Note);
        let row = judge(&Offsets::from([("n1".into(), -300.04), ("n2".into(), 61.0)]), &[]);
        assert_eq!((row.answer, row.cause), (Answer::Unfit, Some(Cause::Node)));
        assert_eq!(row.line, "n1 is 300.0 s behind this machine; n2 is 61.0 s ahead of this machine");
    }

    #[test]
    fn a_stamp_of_whole_seconds_may_be_older_than_the_question() {
        let at = |seconds: f64| Timestamp::from_millisecond(1_800_000_000_000 + (seconds * 1000.0) as i64).unwrap();
        assert_eq!(outside(at(10.0), 1.0, at(10.7), at(10.9)), 0.0);
        assert_eq!(outside(at(40.0), 1.0, at(10.0), at(10.5)), 29.5);
        assert_eq!(outside(at(10.0), 1.0, at(40.0), at(40.1)), -29.0);
    }
}
