//! Whether an object is ready, from what the cluster says of it (kubernetes.io/docs, "API conventions":
//! a status counts only once its controller has seen the newest generation).

use cluster::explain::Trouble;
use kit::Cause;
use serde_json::Value;

/// Kinds that become ready, with their groups.
const WAITED: [(&str, &str); 10] = [
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("apps", "ReplicaSet"),
    ("batch", "Job"),
    ("", "Pod"),
    ("", "ReplicationController"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("", "Namespace"),
];

/// Whether objects of that kind are waited for.
pub(crate) fn is_waited(group: &str, kind: &str) -> bool {
    WAITED.contains(&(group, kind))
}

/// What an object lacks, seen from outside its pods; nothing if it is ready.
pub(crate) fn missing(kind: &str, live: &Value) -> Option<Trouble> {
    let generation = live["metadata"]["generation"].as_i64().unwrap_or(0);
    let seen = live["status"]["observedGeneration"].as_i64();
    let observes = matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController");
    if observes && seen.is_none_or(|seen| seen < generation) {
        return Some(Trouble::new(Cause::Apiserver, "its controller has not seen it yet"));
    }
    match kind {
        "Deployment" => deployment(live),
        "StatefulSet" | "ReplicaSet" | "ReplicationController" => replicas(kind, live),
        "DaemonSet" => daemons(live),
        "Job" => job(live),
        "CustomResourceDefinition" => definition(live),
        "APIService" => condition(live, "Available", Cause::Apiserver),
        "Namespace" => (live["status"]["phase"] != "Active")
            .then(|| Trouble::new(Cause::NotAtBaseline, "it is still being terminated")),
        // Pods are explained from themselves.
        _ => None,
    }
}

fn number(live: &Value, field: &str) -> i64 {
    live["status"][field].as_i64().unwrap_or(0)
}

fn find<'a>(live: &'a Value, kind: &str) -> Option<&'a Value> {
    live["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn words(condition: &Value) -> String {
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    let both = format!("{}: {}", text("reason"), text("message"));
    both.trim_matches([':', ' ']).to_owned()
}

fn condition(live: &Value, kind: &str, cause: Cause) -> Option<Trouble> {
    match find(live, kind) {
        Some(found) if found["status"] == "True" => None,
        Some(found) => Some(Trouble::new(cause, format!("not {kind}: {}", words(found)))),
        None => Some(Trouble::new(cause, format!("not {kind} yet"))),
    }
}

fn deployment(live: &Value) -> Option<Trouble> {
    let wanted = live["spec"]["replicas"].as_i64().unwrap_or(1);
    let (all, updated, available) =
        (number(live, "replicas"), number(live, "updatedReplicas"), number(live, "availableReplicas"));
    if updated == wanted && available == wanted && all == wanted {
        return None;
    }
    if let Some(failure) = find(live, "ReplicaFailure").filter(|failure| failure["status"] == "True") {
        let said = words(failure);
        let cause = if said.contains("quota") { Cause::Quota } else { Cause::Product };
        // A policy says the same of the same pod each time.
        let heals = !said.contains("violates PodSecurity");
        return Some(Trouble { heals, ..Trouble::new(cause, format!("no pods: {said}")) });
    }
    let left = if all > updated { format!(", {} old ones still there", all - updated) } else { String::new() };
    Some(Trouble::new(Cause::Node, format!("{available} of {wanted} pods available{left}")))
}

fn replicas(kind: &str, live: &Value) -> Option<Trouble> {
    let wanted = live["spec"]["replicas"].as_i64().unwrap_or(1);
    let ready = number(live, "readyReplicas");
    // With a partition or OnDelete some pods stay old on purpose.
    let rolls = kind == "StatefulSet"
        && live["spec"]["updateStrategy"]["type"] != "OnDelete"
        && live["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_i64().unwrap_or(0) == 0;
    let old = rolls && live["status"]["currentRevision"] != live["status"]["updateRevision"];
    (ready != wanted || old).then(|| Trouble::new(Cause::Node, format!("{ready} of {wanted} pods ready")))
}

fn daemons(live: &Value) -> Option<Trouble> {
    let wanted = number(live, "desiredNumberScheduled");
    let (updated, available) = (number(live, "updatedNumberScheduled"), number(live, "numberAvailable"));
    (updated < wanted || available < wanted)
        .then(|| Trouble::new(Cause::Node, format!("{available} of {wanted} pods available")))
}

fn job(live: &Value) -> Option<Trouble> {
    if let Some(failed) = find(live, "Failed").filter(|failed| failed["status"] == "True") {
        return Some(Trouble {
            heals: false,
            ..Trouble::new(Cause::Product, format!("the job failed: {}", words(failed)))
        });
    }
    condition(live, "Complete", Cause::Node)
}

fn definition(live: &Value) -> Option<Trouble> {
    if let Some(names) = find(live, "NamesAccepted").filter(|names| names["status"] == "False") {
        let line = format!("its names are not accepted: {}", words(names));
        return Some(Trouble { heals: false, ..Trouble::new(Cause::Product, line) });
    }
    condition(live, "Established", Cause::Apiserver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(status: Value) -> Value {
        json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status})
    }

    fn line(kind: &str, live: &Value) -> String {
        missing(kind, live).map_or_else(|| "ready".into(), |trouble| format!("{}: {}", trouble.cause, trouble.line))
    }

    #[test]
    fn an_old_status_is_no_status() {
        let good = json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert_eq!(line("Deployment", &state(good)), "apiserver: its controller has not seen it yet");
        assert_eq!(
            line("DaemonSet", &json!({"metadata": {"generation": 1}})),
            "apiserver: its controller has not seen it yet"
        );
    }

    #[test]
    fn deployments() {
        let of = |status: Value| line("Deployment", &state(status));
        assert_eq!(
            of(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2})),
            "ready"
        );
        assert_eq!(
            of(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 1})),
            "node: 1 of 2 pods available, 1 old ones still there"
        );
        let failure = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: q"}]);
        assert_eq!(
            of(json!({"observedGeneration": 2, "conditions": failure})),
            "quota: no pods: FailedCreate: exceeded quota: q"
        );
    }

    #[test]
    fn sets_and_jobs() {
        let set = json!({"observedGeneration": 2, "readyReplicas": 2, "currentRevision": "a", "updateRevision": "b"});
        assert_eq!(line("StatefulSet", &state(set)), "node: 2 of 2 pods ready");
        let daemons = json!({"observedGeneration": 2, "desiredNumberScheduled": 0});
        assert_eq!(line("DaemonSet", &state(daemons)), "ready");
        let failed = json!({"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]}});
        let trouble = missing("Job", &failed).unwrap();
        assert!(!trouble.heals && trouble.line.contains("BackoffLimitExceeded: m"));
        assert_eq!(line("Job", &json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}})), "ready");
    }

    #[test]
    fn definitions_and_apis() {
        let of = |conditions: Value| line("CustomResourceDefinition", &json!({"status": {"conditions": conditions}}));
        assert_eq!(of(json!([{"type": "Established", "status": "True"}])), "ready");
        assert_eq!(of(json!([])), "apiserver: not Established yet");
        let taken =
            json!([{"type": "NamesAccepted", "status": "False", "reason": "ListKindConflict", "message": "in use"}]);
        assert_eq!(of(taken), "product: its names are not accepted: ListKindConflict: in use");
        assert_eq!(
            line("Namespace", &json!({"status": {"phase": "Terminating"}})),
            "not-at-baseline: it is still being terminated"
        );
    }
}
