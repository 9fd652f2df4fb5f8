//! What we installed, kept in the cluster itself: proof that the cluster is ours to clean, and the
//! list of what to look for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kit::{Cause, Context, Error, Platform, Result, record::ObjectKey};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde::{Deserialize, Serialize};

use crate::{FIELD_MANAGER, KubeContext, NAMESPACE, lease::ensure_namespace};

/// The label that all inventories have; its value is the component.
pub const LABEL: &str = "other-arch/inventory";
/// The entry of the ConfigMap.
const ENTRY: &str = "inventory.json";
/// An object in the API server's store is at most 1.5 MiB (etcd's default request limit).
const LIMIT: usize = 1 << 20;

/// A component's objects in a cluster. Written before they are, so that a killed install is known too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// As in all our records.
    pub schema_version: String,
    /// The component.
    pub component: String,
    /// Its version, as far as it is known.
    pub version: String,
    /// Digest of the release file.
    pub release: String,
    /// The run that installed it.
    pub run: String,
    /// For nodes of this platform.
    pub platform: Platform,
    /// When it was written.
    pub installed: Timestamp,
    /// Every object of the release.
    pub objects: Vec<ObjectKey>,
}

/// Writes a component's inventory.
///
/// # Errors
/// As [`crate::cause_of`] says; [`Cause::Usage`] for more objects than one inventory can list.
pub async fn store(client: &Client, inventory: &Inventory) -> Result<()> {
    let text = serde_json::to_string(inventory).cause(Cause::Internal, || "cannot write the inventory")?;
    if text.len() > LIMIT {
        let what = format!("{} objects are more than one inventory can list", inventory.objects.len());
        return Err(Error::new(Cause::Usage, what).next("split the release"));
    }
    ensure_namespace(client).await?;
    let name = name_of(&inventory.component);
    let mut map = ConfigMap { data: Some(BTreeMap::from([(ENTRY.into(), text)])), ..ConfigMap::default() };
    map.metadata.name = Some(name.clone());
    map.metadata.labels = Some(BTreeMap::from([(LABEL.into(), name_of(&inventory.component))]));
    let api = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&map))
        .await
        .kube(|| format!("cannot write ConfigMap {NAMESPACE}/{name}"))?;
    Ok(())
}

/// Reads all inventories; none means that the cluster holds nothing of ours.
///
/// # Errors
/// As [`crate::cause_of`] says; [`Cause::Usage`] for one that is not ours to read.
pub async fn list(client: &Client) -> Result<Vec<Inventory>> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let maps = api.list(&ListParams::default().labels(LABEL)).await.kube(|| "cannot list the inventories")?;
    maps.iter()
        .map(|map| {
            let text = map.data.as_ref().and_then(|data| data.get(ENTRY)).map_or("", String::as_str);
            let place = format!("ConfigMap {NAMESPACE}/{}", map.name_any());
            serde_json::from_str(text).cause(Cause::Usage, || format!("{place} is not an inventory of ours"))
        })
        .collect()
}

/// A component's name as an object's name and a label's value.
fn name_of(component: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = component.chars().map(safe).take(50).collect();
    format!("inventory-{}", name.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn any_component_has_a_name_in_the_cluster() {
        assert_eq!(super::name_of("pipeline"), "inventory-pipeline");
        assert_eq!(super::name_of("../X_y-"), "inventory-x-y");
    }
}
