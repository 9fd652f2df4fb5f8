//! `explain`: why an object is still there, in words.

use futures::{StreamExt, stream};
use kit::{Done, Output, Result, RunDir, Ui, record::ObjectKey, ui::printable};
use kube::Client;
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{CONCURRENT, again},
    blockers::Servers,
    diff,
    list::{Listing, Object},
    remove::api_of,
    scene::{Before, Place, Scene},
};

/// More than these would help nobody.
const SHOWN: usize = 100;

/// What holds one object.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// Which.
    object: ObjectKey,
    /// Why it is there.
    reasons: Vec<String>,
}

/// Explains every object that is not in the baseline.
///
/// # Errors
/// As [`crate::diff::run`].
pub(crate) fn run(place: &Place, ui: &Ui) -> Result<Done> {
    let run = RunDir::open(&place.run_dir)?;
    cluster::block_on(async {
        let scene = Scene::open(place, &run, ui).await?;
        let (before, listing) = diff::look(&scene, ui).await?;
        let explained = explain(&scene.opened.client, &before, &listing).await;
        match ui.output {
            Output::Json => ui.json(&explained)?,
            Output::Text if explained.is_empty() => ui.result("nothing is there that is not in the baseline")?,
            Output::Text => ui.result(&printable(&text(&explained)))?,
        }
        Ok(Done::good())
    })
}

/// Says on standard error why what remains after a cleanup is still there.
///
/// # Errors
/// None for now.
pub(crate) async fn remaining(client: &Client, before: &Before, listing: &Listing, ui: &Ui) -> Result<()> {
    let explained = explain(client, before, listing).await;
    if !explained.is_empty() {
        ui.warn(printable(&format!("still there:\n{}", text(&explained))));
    }
    Ok(())
}

fn text(explained: &[Explanation]) -> String {
    let one = |explanation: &Explanation| format!("{}\n    {}", explanation.object, explanation.reasons.join("\n    "));
    explained.iter().map(one).collect::<Vec<_>>().join("\n")
}

async fn explain(client: &Client, before: &Before, listing: &Listing) -> Vec<Explanation> {
    let now = before.compare(listing);
    let servers = Servers::new(listing);
    let looked = stream::iter(now.added.into_iter().take(SHOWN)).map(|object| {
        let servers = &servers;
        async move {
            let found = match listing.kind_of(&object.key) {
                Some(kind) => {
                    let api = api_of(client, &kind.resource, &object.key);
                    again(|| api.get_opt(&object.key.name)).await.ok().flatten()
                }
                None => None,
            };
            let body = found.and_then(|found| serde_json::to_value(found).ok()).unwrap_or_default();
            let mut reasons = reasons(object, &body, listing);
            reasons.extend(servers.blocker(object).map(|blocker| format!("it blocks others: {}", blocker.why())));
            Explanation { object: object.key.clone(), reasons }
        }
    });
    looked.buffered(CONCURRENT).collect().await
}

/// What an object says of itself.
fn reasons(object: &Object, body: &Value, listing: &Listing) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let Some(since) = body["metadata"]["deletionTimestamp"].as_str() else {
        return vec!["nobody has asked for it to go".into()];
    };
    let mut reasons = vec![format!("asked to go at {since}")];
    let finalizers = [&body["metadata"]["finalizers"], &body["spec"]["finalizers"]];
    for finalizer in finalizers.into_iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str) {
        reasons.push(format!("finalizer {finalizer}: {}", meaning(finalizer, object, listing)));
    }
    let conditions = body["status"]["conditions"].as_array();
    for condition in conditions.into_iter().flatten() {
        let bad = condition["status"] == "True" && says_why(&text(&condition["type"]));
        if bad {
            reasons.push(format!("{}: {}", text(&condition["type"]), text(&condition["message"])));
        }
    }
    if object.key.kind == "Pod" {
        reasons.push(format!("on node {}: does its kubelet answer?", text(&body["spec"]["nodeName"])));
    }
    reasons
}

/// Conditions with which a namespace or a definition tells what it waits for.
fn says_why(condition: &str) -> bool {
    condition.starts_with("Namespace") || condition == "Terminating"
}

/// What a finalizer stands for.
fn meaning(finalizer: &str, object: &Object, listing: &Listing) -> String {
    match finalizer {
        "kubernetes" => "the namespace controller waits until it is empty".into(),
        "kubernetes.io/pvc-protection" => "a pod uses it".into(),
        "kubernetes.io/pv-protection" => "a claim is bound to it".into(),
        "foregroundDeletion" => "objects that it owns are still there".into(),
        "orphan" => "the garbage collector has to set free what it owns".into(),
        "batch.kubernetes.io/job-tracking" => "the job controller has not counted it yet".into(),
        "customresourcecleanup.apiextensions.k8s.io" => {
            let spec = &object.view["spec"];
            let of_it = |other: &&Object| {
                let key = &other.key;
                spec["names"]["kind"] == key.kind.as_str() && spec["group"] == crate::rules::group_of(key)
            };
            format!("{} objects of its kind are still there", listing.objects.iter().filter(of_it).count())
        }
        other => {
            let owner = other.split_once('/').map_or(other, |(owner, _)| owner);
            format!("the controller of {owner} has to remove it; is it alive?")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::object;
    use serde_json::json;

    #[test]
    fn a_stuck_namespace_says_what_it_waits_for() {
        let body = json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"conditions": [
                {"type": "NamespaceContentRemaining", "status": "True", "message": "Some resources remain: runs.tekton.dev has 1"},
                {"type": "NamespaceDeletionDiscoveryFailure", "status": "False", "message": "fine"},
            ]},
        });
        let said = reasons(&object("Namespace.v1 t", "1"), &body, &Listing::default());
        assert_eq!(
            said,
            [
                "asked to go at 2026-01-01T00:00:00Z",
                "finalizer kubernetes: the namespace controller waits until it is empty",
                "NamespaceContentRemaining: Some resources remain: runs.tekton.dev has 1",
            ]
        );
    }

    #[test]
    fn a_definition_counts_its_objects() {
        let view = json!({"spec": {"group": "tekton.dev", "names": {"kind": "Run"}}});
        let crd = Object { view, ..object("CustomResourceDefinition.apiextensions.k8s.io/v1 runs.tekton.dev", "1") };
        let listing = Listing { objects: vec![object("Run.tekton.dev/v1 a/b", "2")], ..Listing::default() };
        let said = meaning("customresourcecleanup.apiextensions.k8s.io", &crd, &listing);
        assert_eq!(said, "1 objects of its kind are still there");
        assert!(meaning("chains.tekton.dev/run", &crd, &listing).contains("controller of chains.tekton.dev"));
    }

    #[test]
    fn what_nobody_asked_to_go_says_so() {
        let said = reasons(&object("ConfigMap.v1 a/b", "1"), &json!({"metadata": {}}), &Listing::default());
        assert_eq!(said, ["nobody has asked for it to go"]);
    }
}
