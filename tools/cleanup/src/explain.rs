//! `explain`: why an object is still there, or not there again, and what to do about it.

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota};
use kit::{Done, Output, Result, RunDir, Ui, record::ObjectKey, ui::printable};
use kube::{
    Api, Client,
    api::{ApiResource, ListParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    api::{CONCURRENT, again},
    blockers::Servers,
    controllers::Controllers,
    diff, finalizers,
    list::{Kind, Listing, Object},
    order::is,
    reasons::{self, Reason, What},
    remove::api_of,
    restore::impossible,
    scene::{Before, Place, Scene},
};

/// More than these would help nobody.
const SHOWN: usize = 100;

/// What holds one object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    /// Which.
    object: ObjectKey,
    /// Since when it is asked to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Why it is there.
    reasons: Vec<Reason>,
}

/// Explains every object that is not in the baseline, and every one of it that is not as it was.
///
/// # Errors
/// As [`crate::diff::run`].
pub(crate) fn run(place: &Place, ui: &Ui) -> Result<Done> {
    let run = RunDir::open(&place.run_dir)?;
    cluster::block_on(async {
        let scene = Scene::open(place, &run, ui).await?;
        let before = scene.baseline().await?;
        let listing = diff::look(&scene, &before, ui).await?;
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
pub(crate) async fn remaining(client: &Client, before: &Before, listing: &Listing, ui: &Ui) {
    let explained = explain(client, before, listing).await;
    if !explained.is_empty() {
        ui.warn(printable(&format!("still there:\n{}", text(&explained))));
    }
}

fn text(explained: &[Explanation]) -> String {
    let one = |explanation: &Explanation| {
        let since = explanation.since.as_ref().map_or_else(String::new, |since| format!(", asked to go at {since}"));
        let reasons: Vec<_> = explanation.reasons.iter().map(Reason::text).collect();
        format!("{}{since}\n    {}", explanation.object, reasons.join("\n    "))
    };
    explained.iter().map(one).collect::<Vec<_>>().join("\n")
}

async fn explain(client: &Client, before: &Before, listing: &Listing) -> Vec<Explanation> {
    let now = before.compare(listing);
    let servers = Servers::new(listing);
    let controllers = Controllers::look(client).await;
    // What is going comes first: it holds up the rest.
    let mut added = now.added.clone();
    added.sort_by_key(|object| (object.deleting.is_none(), object.key.clone()));
    let looked = stream::iter(added.into_iter().take(SHOWN)).map(|object| {
        let (servers, controllers) = (&servers, &controllers);
        async move {
            let kind = listing.kind_of(&object.key);
            let body = match kind {
                Some(kind) => get(client, &kind.resource, &object.key).await,
                None => Value::Null,
            };
            let mut reasons = reasons::of(object, &body, listing, servers);
            if let Some(kind) = kind {
                ask(client, controllers, object, kind, &body, listing, &mut reasons).await;
            }
            let since = body["metadata"]["deletionTimestamp"].as_str().map(String::from);
            Explanation { object: object.key.clone(), since, reasons }
        }
    });
    let mut explained: Vec<Explanation> = looked.buffered(CONCURRENT).collect().await;
    let absent = now.difference.missing.iter().map(|key| (key, "it is missing"));
    let changed = now.difference.changed.iter().map(|key| (key, "it was changed"));
    for (key, how) in absent.chain(changed).take(SHOWN) {
        let why = before.object(key).and_then(impossible);
        let next = if why.is_some() { "make it again as it was made before" } else { "cargo xtask cleanup run" };
        let why = why.map_or_else(|| how.to_owned(), |why| format!("{how}, and cannot be put back: {why}"));
        let mut reasons = vec![Reason::new(What::PutBack, "put back", why, next)];
        reasons.extend(quotas(client, key).await);
        explained.push(Explanation { object: key.clone(), since: None, reasons });
    }
    explained
}

/// What only the cluster can tell of an object.
async fn ask(
    client: &Client,
    controllers: &Controllers<'_>,
    object: &Object,
    kind: &Kind,
    body: &Value,
    listing: &Listing,
    reasons: &mut Vec<Reason>,
) {
    let key = &object.key;
    for finalizer in reasons::finalizers_of(body) {
        match finalizers::known(finalizer, key) {
            Some(known) => {
                if let Some(reason) = reasons.iter_mut().find(|reason| reason.name == finalizer) {
                    controllers.complete(reason, known, object, kind).await;
                }
            }
            None => reasons.push(controllers.of(finalizer, object, kind, body).await),
        }
    }
    if is(key, "", "PersistentVolumeClaim") || is(key, "", "PersistentVolume") {
        let pods = if key.namespace.is_empty() { vec![] } else { all::<Pod>(client, &key.namespace).await };
        let users = reasons::users(key, pods.iter());
        reasons.extend(reasons::volume(object, body, &users, listing));
    }
    if is(key, "", "Pod") && object.deleting.is_some() {
        let name = body["spec"]["nodeName"].as_str().unwrap_or_default();
        let nodes = Api::<Node>::all(client.clone());
        let node = if name.is_empty() { None } else { again(|| nodes.get_opt(name)).await.ok().flatten() };
        let node = node.and_then(|node| serde_json::to_value(node).ok());
        reasons.extend(reasons::node(body, node.as_ref()));
    }
    // A controller that has to make something before it lets an object go may not be able to.
    if object.deleting.is_some() && !object.finalizers.is_empty() {
        reasons.extend(quotas(client, key).await);
    }
}

async fn quotas(client: &Client, key: &ObjectKey) -> Vec<Reason> {
    if key.namespace.is_empty() {
        return vec![];
    }
    reasons::quotas(all::<ResourceQuota>(client, &key.namespace).await.iter())
}

/// The objects of a kind in a namespace; none if they may not be listed.
async fn all<K>(client: &Client, namespace: &str) -> Vec<Value>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let list = ListParams::default().limit(500);
    let found = again(|| api.list(&list)).await.map(|list| list.items).unwrap_or_default();
    found.iter().filter_map(|object| serde_json::to_value(object).ok()).collect()
}

/// An object as it is now; null if it cannot be read.
async fn get(client: &Client, resource: &ApiResource, key: &ObjectKey) -> Value {
    let api = api_of(client, resource, key);
    let found = again(|| api.get_opt(&key.name)).await.ok().flatten();
    found.and_then(|found| serde_json::to_value(found).ok()).unwrap_or_default()
}

/// Who wrote an object last, in words; empty if nobody knows.
pub(crate) async fn writers(client: &Client, resource: &ApiResource, key: &ObjectKey) -> String {
    finalizers::writers(&get(client, resource, key).await).join(", ")
}
