//! Tests of what an object and its surroundings say.

use kube::api::ApiResource;
use serde_json::json;

use super::*;
use crate::compare::tests::object;

fn all(object: &Object, body: &Value, listing: &Listing) -> Vec<String> {
    of(object, body, listing, &Servers::new(listing)).iter().map(Reason::text).collect()
}

#[test]
fn a_stuck_namespace_says_what_it_waits_for() {
    let body = json!({
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"conditions": [
            {"type": "NamespaceContentRemaining", "status": "True", "message": "Some resources remain: runs.tekton.dev has 1"},
            {"type": "NamespaceDeletionContentFailure", "status": "False", "message": "fine"},
            {"type": "NamespaceDeletionDiscoveryFailure", "status": "True", "message": "dead.example.com/v1: stale"},
        ]},
    });
    let said = all(&object("Namespace.v1 t", "1"), &body, &Listing::default());
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with(
        "finalizer kubernetes: the namespace controller waits until it is empty [kube-controller-manager]"
    ));
    assert!(said[1].starts_with("NamespaceContentRemaining: Some resources remain: runs.tekton.dev has 1; next: "));
    assert!(
        said[2].starts_with(
            "API NamespaceDeletionDiscoveryFailure: dead.example.com/v1: stale; next: remove the APIService"
        )
    );
}

#[test]
fn a_definition_counts_its_objects() {
    let view = json!({"spec": {"group": "tekton.dev", "names": {"kind": "Run"}}});
    let crd = Object { view, ..object("CustomResourceDefinition.apiextensions.k8s.io/v1 runs.tekton.dev", "1") };
    let listing = Listing { objects: vec![object("Run.tekton.dev/v1 a/b", "2")], ..Listing::default() };
    let body =
        json!({"metadata": {"deletionTimestamp": "t", "finalizers": ["customresourcecleanup.apiextensions.k8s.io"]}});
    let said = all(&crd, &body, &listing);
    assert!(said[0].contains("1 objects of its kind are still there [kube-apiserver, which is alive]"), "{said:?}");
}

#[test]
fn what_nobody_asked_to_go_says_so_and_who_wrote_it() {
    let body = json!({"metadata": {"managedFields": [{"manager": "kubectl-create", "time": "T"}]}});
    let said = all(&object("ConfigMap.v1 a/b", "1"), &body, &Listing::default());
    assert_eq!(
        said,
        ["nobody has asked for it to go (written by 'kubectl-create' at T); next: cargo xtask cleanup run"]
    );
}

fn kind(group: &str, kind: &str, plural: &str) -> ((String, String), Kind) {
    let resource = ApiResource {
        group: group.into(),
        version: "v1".into(),
        api_version: format!("{group}/v1"),
        kind: kind.into(),
        plural: plural.into(),
    };
    ((group.into(), kind.into()), Kind { resource, namespaced: true, deletable: true })
}

#[test]
fn a_webhook_without_a_server_blocks_the_kinds_that_it_is_asked_about() {
    let hook = |policy: &str, operations: &[&str], resources: &[&str]| Object {
        view: json!({"webhooks": [{"failurePolicy": policy,
            "clientConfig": {"service": {"namespace": "n", "name": "gone"}},
            "rules": [{"apiGroups": ["tekton.dev"], "operations": operations, "resources": resources}]}]}),
        ..object("ValidatingWebhookConfiguration.admissionregistration.k8s.io/v1 guard", "h")
    };
    let blocked = |hook: Object| {
        let listing =
            Listing { objects: vec![hook], kinds: [kind("tekton.dev", "Run", "runs")].into(), ..Listing::default() };
        let going = json!({"metadata": {"deletionTimestamp": "t"}});
        !all(&object("Run.tekton.dev/v1 a/b", "1"), &going, &listing).is_empty()
    };
    assert!(blocked(hook("Fail", &["DELETE"], &["runs"])));
    assert!(blocked(hook("Fail", &["*"], &["runs/status"])));
    assert!(blocked(hook("Fail", &["UPDATE"], &["*"])));
    assert!(!blocked(hook("Ignore", &["DELETE"], &["runs"])));
    assert!(!blocked(hook("Fail", &["CREATE"], &["runs"])));
    assert!(!blocked(hook("Fail", &["DELETE"], &["tasks"])));
}

#[test]
fn a_claim_names_its_users_and_a_volume_its_claim() {
    let claim = object("PersistentVolumeClaim.v1 a/data", "1");
    let pod = |name: &str, claim: &str, phase: &str| {
        json!({"metadata": {"name": name}, "status": {"phase": phase},
            "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": claim}}]}})
    };
    let pods = [pod("one", "data", "Running"), pod("two", "other", "Running"), pod("three", "data", "Succeeded")];
    let users = users(&claim.key, pods.iter());
    assert_eq!(users, ["one"]);
    let listing = Listing { objects: vec![claim.clone()], ..Listing::default() };
    let said = volume(&claim, &json!({}), &users, &listing).unwrap().text();
    assert!(said.contains("pods that use it: one") && said.contains("kubectl delete pod -n a one"), "{said}");
    assert!(volume(&claim, &json!({}), &[], &listing).is_none());

    let pv = object("PersistentVolume.v1 pv", "2");
    let body =
        json!({"spec": {"claimRef": {"namespace": "a", "name": "data"}, "persistentVolumeReclaimPolicy": "Delete"}});
    assert!(volume(&pv, &body, &[], &listing).unwrap().why.contains("claim a/data is bound to it"));
    let gone = volume(&pv, &body, &[], &Listing::default()).unwrap();
    assert!(gone.why.contains("is gone, and its policy is Delete"), "{}", gone.why);
}

#[test]
fn a_pod_waits_for_its_node() {
    let pod = json!({"spec": {"nodeName": "n1"}, "metadata": {"deletionGracePeriodSeconds": 1}});
    let with = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": "T"}]}});
    let dead = node(&pod, Some(&with("Unknown"))).unwrap();
    assert_eq!((dead.alive, dead.what), (Some(false), What::Node));
    assert!(
        dead.text().contains("not ready since T") && dead.next.contains("kubectl delete node n1"),
        "{}",
        dead.text()
    );
    assert!(node(&pod, Some(&with("True"))).unwrap().why.contains("within 1 s"));
    assert!(node(&pod, None).unwrap().why.contains("gone"));
    assert!(node(&json!({"spec": {}}), None).is_none());
}

#[test]
fn only_quotas_that_are_used_up_are_named() {
    let quota =
        |used: &str| json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": "2"}, "used": {"pods": used}}});
    assert!(quotas([quota("1")].iter()).is_empty());
    assert!(quotas([quota("2")].iter())[0].why.contains("pods 2 of 2"));
}
