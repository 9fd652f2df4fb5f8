//! Whether the nodes can pull every image of the release: a pod on each node names them all, and starts none
//! of them (its command exists nowhere), so that nothing of the component runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cluster::{
    Kind, KubeContext, NAMESPACE,
    explain::{self, Trouble},
    ours,
    watch::{Target, watch},
};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Secret};
use kit::{Cause, Error, Result, record::Node, ui::duration};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, GroupVersionKind, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::row::Row;

/// The label of these pods.
pub(crate) const LABEL: &str = "other-arch/pulls";
/// Nodes that pull at the same time.
const PARALLEL: usize = 4;
/// No program has this name.
const NOTHING: &str = "/other-arch/nothing";

/// By image and node: why it cannot be pulled there, nothing if it can.
type Pulls = BTreeMap<(String, String), Option<Trouble>>;

/// Pulls all of `images` on all of `nodes`.
pub(crate) async fn rows(
    client: &Client,
    images: &BTreeSet<String>,
    nodes: &[&Node],
    logins: Option<&str>,
    limit: Duration,
) -> [Row; 2] {
    if images.is_empty() {
        return ["registries", "images"]
            .map(|check| Row::not_tried(check, "no release was named, or it has no images"));
    }
    let secret = match logins {
        Some(logins) => store(client, logins).await.map(Some),
        None => Ok(None),
    };
    let pulls = match &secret {
        Ok(secret) => everywhere(client, images, nodes, secret.as_deref(), limit).await,
        Err(_) => Ok(Pulls::new()),
    };
    if let Ok(Some(secret)) = &secret {
        // What stays goes with the namespace.
        let _ = secrets(client).delete(secret, &ours::at_once()).await;
    }
    match secret.and(pulls) {
        Ok(all) => judge(&all),
        Err(error) => ["registries", "images"].map(|check| Row::error(check, &error)),
    }
}

async fn everywhere(
    client: &Client,
    images: &BTreeSet<String>,
    nodes: &[&Node],
    secret: Option<&str>,
    limit: Duration,
) -> Result<Pulls> {
    let works = nodes.iter().map(|node| on(client, images, node, secret, limit));
    let all: Vec<Pulls> = stream::iter(works).buffer_unordered(PARALLEL).try_collect().await?;
    Ok(all.into_iter().flatten().collect())
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// Keeps the logins in the cluster while images are pulled; returns the Secret's name.
async fn store(client: &Client, logins: &str) -> Result<String> {
    let value = json!({
        "metadata": {"generateName": "pulls-", "labels": {LABEL: "true"}},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": logins},
    });
    let secret: Secret = serde_json::from_value(value)
        .map_err(|error| Error::from_source(Cause::Internal, "cannot describe the logins", error))?;
    let stored = secrets(client).create(&PostParams::default(), &secret).await;
    stored.map(|secret| secret.name_any()).kube(|| "cannot keep the logins in the cluster")
}

fn judge(pulls: &Pulls) -> [Row; 2] {
    // A registry that says no is there.
    let answers = |trouble: &Option<Trouble>| trouble.as_ref().is_none_or(|trouble| !trouble.heals);
    let mut registries: BTreeMap<(&str, &str), (bool, &str)> = BTreeMap::new();
    for ((image, node), trouble) in pulls {
        let line = trouble.as_ref().map_or("", |trouble| trouble.line.as_str());
        let entry = registries.entry((registry(image), node)).or_insert((false, line));
        entry.0 |= answers(trouble);
    }
    let away: Vec<_> = registries
        .iter()
        .filter(|(_, (reached, _))| !reached)
        .map(|((registry, node), (_, line))| format!("{registry} from node {node}: {line}"))
        .collect();
    let names: BTreeSet<_> = registries.keys().map(|(registry, _)| *registry).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    let wrong = pulls.iter().filter_map(|((_, node), trouble)| Some((node, trouble.as_ref()?)));
    let lines: Vec<_> = wrong.clone().map(|(node, trouble)| format!("node {node}: {}", trouble.line)).collect();
    let cause = wrong.map(|(_, trouble)| trouble).min_by_key(|trouble| trouble.heals).map(|trouble| trouble.cause);
    let nodes: BTreeSet<_> = pulls.keys().map(|(_, node)| node).collect();
    let images: BTreeSet<_> = pulls.keys().map(|(image, _)| image).collect();
    let good = format!("{} images were pulled on {} nodes", images.len(), nodes.len());
    [
        Row::of("registries", Cause::Registry, &away, format!("{names} answer the nodes")),
        Row::of("images", cause.unwrap_or(Cause::ImagePull), &lines, good),
    ]
}

/// The host of an image's name, as the nodes ask it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

async fn on(
    client: &Client,
    images: &BTreeSet<String>,
    node: &Node,
    secret: Option<&str>,
    limit: Duration,
) -> Result<Pulls> {
    let deadline = Instant::now() + limit;
    let created = ours::create(client, &manifest(images, &node.name, secret), deadline).await?;
    let pod = created.map_err(|error| cluster::fail(format!("cannot pull anything on node {}", node.name), &error))?;
    let seen = wait(client, &pod, images, node, deadline, limit).await;
    // What stays goes with the next look or with the namespace.
    let _ = ours::pods(client).delete(&pod.name_any(), &ours::at_once()).await;
    seen
}

fn manifest(images: &BTreeSet<String>, node: &str, secret: Option<&str>) -> Value {
    let container = |(index, image): (usize, &String)| {
        json!({
            "name": format!("i{index}"), "image": image, "command": [NOTHING], "imagePullPolicy": "Always",
            "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "64Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        })
    };
    let secrets: Vec<_> = secret.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "metadata": {"generateName": "pulls-", "labels": {LABEL: "true"}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "imagePullSecrets": secrets,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": images.iter().enumerate().map(container).collect::<Vec<_>>(),
        },
    })
}

/// Watches until each container's image is there or cannot be had.
async fn wait(
    client: &Client,
    pod: &Pod,
    images: &BTreeSet<String>,
    node: &Node,
    deadline: Instant,
    limit: Duration,
) -> Result<Pulls> {
    let name = pod.name_any();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let kind = Kind { resource, namespaced: true };
    let fields = format!("metadata.name={name}");
    let (mut view, mut changes) = watch(client, &[Target { kind, namespace: NAMESPACE.into(), fields }]);
    let mut pulls = Pulls::new();
    loop {
        tokio::select! {
            Some(change) = changes.next() => {
                view.take(change);
                while let Some(Some(change)) = changes.next().now_or_never() {
                    view.take(change);
                }
            }
            () = sleep_until(deadline) => {
                for image in images {
                    let line = format!("image pull of {image}: not done after {}", duration(limit));
                    pulls.entry((image.clone(), node.name.clone())).or_insert_with(|| Some(Trouble::new(Cause::ImagePull, line)));
                }
                return Ok(pulls);
            }
        }
        if !view.complete() {
            continue;
        }
        let Some(now) = view.all::<Pod>("Pod").into_iter().find(|pod| pod.name_any() == name) else {
            return Err(Error::new(Cause::Node, format!("pod {name} on node {} is gone", node.name)));
        };
        let status = now.status.unwrap_or_default();
        let refused = status.phase.as_deref() == Some("Failed") && status.container_statuses.is_none();
        if refused {
            let why = format!("{}: {}", status.reason.unwrap_or_default(), status.message.unwrap_or_default());
            return Err(Error::new(Cause::Node, format!("node {} takes no pod", node.name)).line(why));
        }
        for (index, image) in images.iter().enumerate() {
            let container = format!("i{index}");
            let of = status.container_statuses.iter().flatten().find(|status| status.name == container);
            if let Some(pull) = of.and_then(|status| pulled(image, status)) {
                pulls.insert((image.clone(), node.name.clone()), pull);
            }
        }
        if pulls.len() == images.len() {
            return Ok(pulls);
        }
    }
}

/// What a container's state says of its image: it is there, or why it is not; nothing while it is pulled.
fn pulled(image: &str, status: &ContainerStatus) -> Option<Option<Trouble>> {
    let state = status.state.clone().unwrap_or_default();
    let Some(waiting) = state.waiting else {
        return (state.terminated.is_some() || state.running.is_some()).then_some(None);
    };
    let message = waiting.message.unwrap_or_default();
    match waiting.reason.as_deref().unwrap_or_default() {
        "" | "ContainerCreating" | "PodInitializing" => None,
        // The first failure may pass; the kubelet tries again, and says what came of it.
        "ErrImagePull" => Some(explain::pull(image, &message)).filter(|trouble| !trouble.heals).map(Some),
        "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => Some(Some(explain::pull(image, &message))),
        "InvalidImageName" => Some(Some(Trouble {
            heals: false,
            ..Trouble::new(Cause::Product, format!("'{image}' cannot be the name of an image"))
        })),
        // Whatever keeps it from starting, its image is there.
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: Value) -> ContainerStatus {
        serde_json::from_value(
            json!({"name": "i0", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}),
        )
        .unwrap()
    }

    fn waiting(reason: &str, message: &str) -> Option<Option<Trouble>> {
        pulled("r.example/a", &status(json!({"waiting": {"reason": reason, "message": message}})))
    }

    #[test]
    fn a_container_that_cannot_start_has_its_image() {
        assert_eq!(waiting("ContainerCreating", ""), None);
        assert_eq!(waiting("RunContainerError", "no such file"), Some(None));
        assert_eq!(pulled("a", &status(json!({"terminated": {"exitCode": 128, "reason": "StartError"}}))), Some(None));
        assert_eq!(waiting("ErrImagePull", "connection refused"), None);
        let refused = waiting("ErrImagePull", "401 Unauthorized").unwrap().unwrap();
        assert_eq!((refused.cause, refused.heals), (Cause::Auth, false));
        let away = waiting("ImagePullBackOff", "connection refused").unwrap().unwrap();
        assert_eq!((away.cause, away.heals), (Cause::ImagePull, true));
    }

    #[test]
    fn a_registry_that_refuses_is_there() {
        let pull = |image: &str, trouble: Option<Trouble>| ((image.to_owned(), "n1".to_owned()), trouble);
        let away = Trouble::new(Cause::ImagePull, "connection refused");
        let refuses = Trouble { heals: false, ..Trouble::new(Cause::Auth, "401") };
        let [registries, images] = judge(&Pulls::from([pull("a.example/x", None), pull("b.example/y", Some(refuses))]));
        assert_eq!((registries.cause, images.cause), (None, Some(Cause::Auth)));
        assert_eq!(registries.line, "a.example, b.example answer the nodes");
        let [registries, images] = judge(&Pulls::from([pull("a.example/x", None), pull("y", Some(away))]));
        assert_eq!((registries.cause, images.cause), (Some(Cause::Registry), Some(Cause::ImagePull)));
        assert_eq!(registries.line, "docker.io from node n1: connection refused");
    }
}
