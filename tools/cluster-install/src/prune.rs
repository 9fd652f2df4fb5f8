//! What an earlier version had and this one lacks: removed once the new one is there, in the reverse of the order
//! in which it was made.
//!
//! Which objects these are stands in the inventory in the cluster. Only what still carries our name as a manager
//! of its fields is removed: who has taken an object over keeps it.

use std::{collections::BTreeSet, time::Duration};

use cluster::{FIELD_MANAGER, Kinds, KubeContext, inventory::Kept, objects::Object, watch};
use futures::{StreamExt, TryStreamExt, stream};
use kit::{Error, Result, Ui, record::ObjectKey};
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use serde_json::Value;

use crate::{apply::PARALLEL, waves::Wave};

/// How long each may take to go.
const LIMIT: Duration = Duration::from_secs(120);

/// What the earlier inventory has and neither the release nor another component has. A version of a kind does not
/// make another object.
pub(crate) fn surplus(earlier: Option<&Kept>, others: &[Kept], now: &[Object]) -> Vec<ObjectKey> {
    let place = |key: &ObjectKey| {
        let group = key.api_version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
        (group, key.kind.clone(), key.namespace.clone(), key.name.clone())
    };
    let others = others.iter().flat_map(|kept| &kept.inventory.objects);
    let wanted: BTreeSet<_> = now.iter().map(|object| &object.key).chain(others).map(place).collect();
    let earlier = earlier.iter().flat_map(|kept| &kept.inventory.objects);
    earlier.filter(|key| !wanted.contains(&place(key))).cloned().collect()
}

/// Removes them; returns those that were removed.
///
/// # Errors
/// [`kit::Cause::NotAtBaseline`] for what does not go, or as [`cluster::cause_of`] says.
pub(crate) async fn prune(client: &Client, kinds: &Kinds, keys: Vec<ObjectKey>, ui: &Ui) -> Result<Vec<ObjectKey>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let step = ui.step(format!("removing {} objects of an earlier version", keys.len()));
    let mut gone = Vec::new();
    for wave in Wave::ALL.into_iter().rev() {
        let of_wave = keys.iter().filter(|key| Wave::of(&named(key)) == wave).map(|key| one(client, kinds, key, ui));
        let removed: Vec<Option<ObjectKey>> = stream::iter(of_wave).buffer_unordered(PARALLEL).try_collect().await?;
        gone.extend(removed.into_iter().flatten());
    }
    step.done(format!("{} were ours and are gone", gone.len()));
    gone.sort();
    Ok(gone)
}

/// An object of which only the place is known.
fn named(key: &ObjectKey) -> Object {
    Object { key: key.clone(), value: Value::Null }
}

async fn one(client: &Client, kinds: &Kinds, key: &ObjectKey, ui: &Ui) -> Result<Option<ObjectKey>, Error> {
    // A kind that is not there any more has taken its objects with it.
    let Some(kind) = kinds.get(&key.api_version, &key.kind) else { return Ok(None) };
    let api = kind.api(client, &key.namespace);
    let found = match api.get_metadata_opt(&key.name).await {
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        found => found.kube(|| format!("cannot read {key}"))?,
    };
    let Some(found) = found else { return Ok(None) };
    let managers = found.metadata.managed_fields.iter().flatten();
    if !managers.into_iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER)) {
        ui.warn(format!("{key} stays: an earlier version had it, and nothing of it is ours any more"));
        return Ok(None);
    }
    let preconditions = Some(Preconditions { uid: found.uid(), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::background() };
    match api.delete(&key.name, &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        deleted => deleted.map(drop).kube(|| format!("cannot remove {key}"))?,
    }
    watch::gone(api, key, LIMIT).await?;
    Ok(Some(key.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_new_version_lacks_goes() {
        let key =
            |api_version: &str, kind: &str, name: &str| json!({"apiVersion": api_version, "kind": kind, "name": name});
        let kept = |objects: &[serde_json::Value]| Kept {
            inventory: serde_json::from_value(json!({
                "schemaVersion": "1.0", "component": "x", "version": "1", "release": "r", "run": "r",
                "platform": "linux/amd64", "installed": "2026-01-01T00:00:00Z", "objects": objects,
            }))
            .unwrap(),
            sent: Default::default(),
        };
        let shared = key("v1", "Namespace", "shared");
        let old = [
            key("v1", "ConfigMap", "old"),
            key("v1", "ConfigMap", "kept"),
            key("apps/v1beta1", "Deployment", "web"),
            shared.clone(),
        ];
        let (old, others) = (kept(&old), [kept(&[shared])]);
        let now = "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}}\n---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}";
        let now = cluster::objects::parse(now, "r").unwrap();
        let names: Vec<_> = surplus(Some(&old), &others, &now).into_iter().map(|key| key.to_string()).collect();
        assert_eq!(names, ["ConfigMap.v1 old"]);
        assert!(surplus(None, &others, &now).is_empty());
    }
}
