//! What a cluster keeps of a baseline in our own namespace: its digest, and the key of the Secrets'
//! hashes, which must not lie beside them. Both go when the cluster is back at the baseline.

use cluster::{KubeContext, NAMESPACE};
use futures::future::try_join_all;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Secret},
};
use kit::Result;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};

use crate::{
    api::{again, code, patiently},
    secret::{self, Key},
};

/// Marks our state.
const LABEL: &str = "other-arch/state";
/// Its value for a baseline.
const BASELINE: &str = "baseline";
/// Which run wrote it.
pub(crate) const RUN: &str = "other-arch/run";

/// The state of one baseline.
#[derive(Debug)]
pub(crate) struct State {
    name: String,
    /// The key of its Secrets' hashes.
    pub key: Key,
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// The state of the baseline with this digest, if the cluster knows it.
///
/// # Errors
/// As [`cluster::cause_of`] says.
pub(crate) async fn find(client: &Client, digest: &str) -> Result<Option<State>> {
    let name = name_of(digest);
    let found = patiently(
        || format!("cannot read Secret {NAMESPACE}/{name}"),
        || async { secrets(client).get_opt(&name).await },
    );
    let data = found.await?.and_then(|secret| secret.data).unwrap_or_default();
    let text = |field: &str| data.get(field).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let key = text("key").and_then(secret::from_text).filter(|_| text("digest") == Some(digest));
    Ok(key.map(|key| State { name, key }))
}

/// Leaves digest and key of a baseline in the cluster.
///
/// # Errors
/// As [`cluster::cause_of`] says.
pub(crate) async fn keep(client: &Client, digest: &str, key: &Key, run: &str) -> Result<()> {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name_of(digest));
    secret.labels_mut().insert(LABEL.into(), BASELINE.into());
    secret.annotations_mut().insert(RUN.into(), run.into());
    secret.string_data = Some(
        [("digest", digest.to_owned()), ("key", secret::to_text(key))].map(|(name, text)| (name.into(), text)).into(),
    );
    let name = secret.name_any();
    patiently(
        || format!("cannot create Secret {NAMESPACE}/{name}"),
        || async {
            match secrets(client).create(&PostParams::default(), &secret).await {
                // The same digest: the same baseline, kept before we were killed.
                Err(error) if code(&error) == Some(409) => Ok(()),
                other => other.map(drop),
            }
        },
    )
    .await
}

fn name_of(digest: &str) -> String {
    let digits = digest.trim_start_matches("sha256:");
    format!("baseline-{}", digits.get(..16).unwrap_or(digits))
}

/// Forgets a baseline, the inventory of what is not installed any more, and everything else of `run`; with our namespace,
/// and the lease in it, if nothing else is left there. Returns whether that goes. It takes the namespace controller some
/// seconds, which nobody has to wait for: whoever needs the namespace next does, see [`cluster::namespace::settled`].
///
/// # Errors
/// As [`cluster::cause_of`] says.
pub(crate) async fn forget(client: &Client, state: Option<&State>, run: &str, component: &str) -> Result<bool> {
    let what = || format!("cannot clean the namespace {NAMESPACE}");
    let maps = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let leases = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    let list = ListParams::default();
    let (secrets_found, maps_found, leases_found) = tokio::try_join!(
        patiently(what, || async { secrets(client).list(&list).await }),
        patiently(what, || maps.list(&list)),
        patiently(what, || leases.list(&list)),
    )?;
    let this = |secret: &Secret| state.is_some_and(|state| state.name == secret.name_any()) || of_run(secret, run);
    let (old_secrets, other_secrets): (Vec<_>, Vec<_>) = secrets_found.items.into_iter().partition(this);
    // Kubernetes puts its certificate into every namespace.
    let maps_found = maps_found.items.into_iter().filter(|map| map.name_any() != "kube-root-ca.crt");
    let this = |map: &ConfigMap| of_run(map, run) || installed_by(map, run, component);
    let (old_maps, other_maps): (Vec<_>, Vec<_>) = maps_found.partition(this);
    let other_leases = leases_found.iter().any(|lease| lease.name_any() != cluster::lease::LEASE);
    if !other_leases && other_secrets.is_empty() && other_maps.is_empty() {
        remove_namespace(client).await?;
        // Nobody can take it any more, and until the namespace is gone it would say that we still hold the cluster.
        remove(&leases, cluster::lease::LEASE.to_owned()).await?;
        return Ok(true);
    }
    let secrets = secrets(client);
    let secrets = try_join_all(old_secrets.iter().map(|secret| remove(&secrets, secret.name_any())));
    let maps = try_join_all(old_maps.iter().map(|map| remove(&maps, map.name_any())));
    tokio::try_join!(secrets, maps)?;
    Ok(false)
}

fn of_run(object: &impl ResourceExt, run: &str) -> bool {
    [object.annotations().get(RUN), object.labels().get(RUN)].into_iter().flatten().any(|of| of == run)
}

/// Whether it is the inventory of an install of this run, or of this component.
fn installed_by(map: &ConfigMap, run: &str, component: &str) -> bool {
    let texts = map.data.iter().flat_map(|data| data.values());
    let inventories = texts.filter_map(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    map.labels().contains_key(cluster::inventory::LABEL)
        && inventories.into_iter().any(|inventory| inventory["run"] == run || inventory["component"] == component)
}

async fn remove<K>(api: &Api<K>, name: String) -> Result<()>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let background = DeleteParams::background();
    match again(|| api.delete(&name, &background)).await {
        Err(error) if code(&error) == Some(404) => Ok(()),
        other => other.map(drop).kube(|| format!("cannot delete {NAMESPACE}/{name}")),
    }
}

async fn remove_namespace(client: &Client) -> Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let background = DeleteParams::background();
    match again(|| namespaces.delete(NAMESPACE, &background)).await {
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
        other => other.map(drop).kube(|| format!("cannot delete the namespace {NAMESPACE}")),
    }
}
