//! Whether a claim without a class gets a volume: one is made, with a pod that wants it, for classes that wait
//! for the first.

use std::time::Duration;

use cluster::{
    Kind, KubeContext, NAMESPACE, explain, ours,
    watch::{Target, View, watch},
};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::{
    core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use kit::{Cause, Error, Platform, Result, ui::duration};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, GroupVersionKind, ListParams, PostParams},
    runtime::{conditions::is_deleted, wait::await_condition},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::row::Row;

/// How long a volume may take to go with its claim.
const GOES: Duration = Duration::from_secs(60);
/// The label of pod and claim.
pub(crate) const LABEL: &str = "other-arch/volume";
/// Marks a class as the one for claims that name none (k8s.io/api/storage, and what it was called before).
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// Makes a claim and waits until it has a volume.
pub(crate) async fn row(client: &Client, platform: &Platform, image: &str, limit: Duration) -> Row {
    let classes = match Api::<StorageClass>::all(client.clone()).list(&ListParams::default()).await {
        Ok(classes) => classes.items,
        Err(error) => return Row::error("storage", &cluster::fail("cannot list the storage classes", &error)),
    };
    let class = match default_of(&classes) {
        Ok(class) => class,
        Err(line) => return Row::unfit("storage", Cause::Storage, line).next("mark one: annotation is-default-class"),
    };
    let began = Instant::now();
    let bound = bind(client, platform, image, limit).await;
    // What stays goes with the next look or with the namespace.
    let of_ours = ListParams::default().labels(LABEL);
    let volumes = claims(client).list(&of_ours).await.map(|claims| claims.items).unwrap_or_default();
    let _ = ours::forget(client, LABEL).await;
    let _ = claims(client).delete_collection(&ours::at_once(), &of_ours).await;
    gone(client, volumes.into_iter().filter_map(|claim| claim.spec?.volume_name)).await;
    match bound {
        Ok(()) => Row::fit("storage", format!("class {class} bound a volume in {}", duration(began.elapsed()))),
        Err(error) => Row::error("storage", &error.within(format!("class {class}"))),
    }
}

/// Waits until what is deleted with its claim is gone: a baseline that is taken next would have it.
async fn gone(client: &Client, volumes: impl Iterator<Item = String>) {
    let all = Api::<PersistentVolume>::all(client.clone());
    for name in volumes {
        // Who may not see volumes takes no baseline of them.
        let Ok(Some(volume)) = all.get_opt(&name).await else { continue };
        let uid = volume.uid().unwrap_or_default();
        if volume.spec.is_some_and(|spec| spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")) {
            let gone = await_condition(all.clone(), &name, is_deleted::<PersistentVolume>(&uid));
            let _ = tokio::time::timeout(GOES, gone).await;
        }
    }
}

fn default_of(classes: &[StorageClass]) -> Result<String, String> {
    let is =
        |class: &&StorageClass| DEFAULT.iter().any(|name| class.annotations().get(*name).is_some_and(|v| v == "true"));
    // Of several the newest is taken (kubernetes.io/docs, "Storage Classes").
    let found = classes.iter().filter(is).max_by_key(|class| class.creation_timestamp().map(|time| time.0));
    found.map(ResourceExt::name_any).ok_or_else(|| {
        let names: Vec<_> = classes.iter().map(ResourceExt::name_any).collect();
        if names.is_empty() {
            "there is no storage class".into()
        } else {
            format!("no storage class is the default one; there are {}", names.join(", "))
        }
    })
}

fn claims(client: &Client) -> Api<PersistentVolumeClaim> {
    Api::namespaced(client.clone(), NAMESPACE)
}

async fn bind(client: &Client, platform: &Platform, image: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let claim = json!({
        "metadata": {"generateName": "volume-", "labels": {LABEL: "true"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    });
    let claim: PersistentVolumeClaim = serde_json::from_value(claim)
        .map_err(|error| Error::from_source(Cause::Internal, "cannot describe the claim", error))?;
    let claim = claims(client).create(&PostParams::default(), &claim).await.kube(|| "cannot create a claim")?;
    let claim = claim.name_any();
    let pod = ours::create(client, &manifest(&claim, platform, image), deadline).await?;
    let pod = pod.kube(|| "cannot create a pod with a volume")?.name_any();
    let target = |kind: &str| {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        Target { kind: Kind { resource, namespaced: true }, namespace: NAMESPACE.into(), fields: String::new() }
    };
    let (mut view, mut changes) = watch(client, &["PersistentVolumeClaim", "Pod", "Event"].map(target));
    loop {
        tokio::select! {
            Some(change) = changes.next() => {
                view.take(change);
                while let Some(Some(change)) = changes.next().now_or_never() {
                    view.take(change);
                }
            }
            () = sleep_until(deadline) => {
                let what = format!("a claim has no volume after {}", duration(limit));
                return Err(Error::new(Cause::Storage, what).line(why(&view, &claim, &pod)));
            }
        }
        if view.complete() && phase(&view, &claim) == "Bound" {
            return Ok(());
        }
    }
}

fn manifest(claim: &str, platform: &Platform, image: &str) -> Value {
    json!({
        "metadata": {"generateName": "volume-", "labels": {LABEL: "true"}},
        "spec": {
            "nodeSelector": {explain::ARCH_LABEL: platform.arch, "kubernetes.io/os": platform.os},
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [{
                "name": "volume",
                "image": image,
                "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
                "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "64Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

fn phase(view: &View, claim: &str) -> String {
    let found =
        view.all::<PersistentVolumeClaim>("PersistentVolumeClaim").into_iter().find(|found| found.name_any() == claim);
    found.and_then(|found| found.status?.phase).unwrap_or_default()
}

/// What the cluster says of claim and pod.
fn why(view: &View, claim: &str, pod: &str) -> String {
    let events: Vec<Event> = view.all("Event");
    let of_claim = events.iter().filter(|event| event.involved_object.name.as_deref() == Some(claim));
    let said = of_claim.filter_map(|event| event.message.clone()).next_back();
    let of_pod = || {
        let pod = view.all::<Pod>("Pod").into_iter().find(|found| found.name_any() == pod)?;
        explain::pod(&pod, explain::Context { events: &events, ..explain::Context::default() })
    };
    let words = [said, of_pod().map(|trouble| trouble.line)].into_iter().flatten().collect::<Vec<_>>();
    if words.is_empty() { "nothing says why".into() } else { words.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, default: bool, created: &str) -> StorageClass {
        serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": created,
            "annotations": {DEFAULT[0]: default.to_string()}}, "provisioner": "x"}))
        .unwrap()
    }

    #[test]
    fn the_default_class_is_the_newest_that_is_marked() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let classes = [class("a", true, old), class("b", true, new), class("c", false, new)];
        assert_eq!(default_of(&classes).unwrap(), "b");
        assert_eq!(default_of(&classes[2..]).unwrap_err(), "no storage class is the default one; there are c");
        assert_eq!(default_of(&[]).unwrap_err(), "there is no storage class");
    }
}
