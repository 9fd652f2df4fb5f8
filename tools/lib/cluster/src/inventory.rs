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

use crate::{FIELD_MANAGER, KubeContext, NAMESPACE, namespace};

/// The label that all inventories have; its value is the component.
pub const LABEL: &str = "other-arch/inventory";
/// The entries of the ConfigMap: the inventory, what was sent, the record of the installation.
const ENTRY: &str = "inventory.json";
const SENT: &str = "sent.json";
const RECORD: &str = "install.json";
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
    /// Every object of the release; until what an earlier one had and this one lacks is removed, that too.
    pub objects: Vec<ObjectKey>,
}

impl Inventory {
    /// Whether both say the same, whenever they were written.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        Self { installed: other.installed, ..self.clone() } == *other
    }
}

/// What was sent of each object, and what became ours by it, as digests: while both are the same, sending it again
/// would change nothing. By the object's place as messages name it.
pub type Sent = BTreeMap<String, (String, String)>;

/// What the cluster keeps of an installation.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The component's objects.
    pub inventory: Inventory,
    /// What was sent; empty if it did not come to its end.
    pub sent: Sent,
}

/// Writes a component's inventory.
///
/// # Errors
/// As [`crate::cause_of`] says; [`Cause::Usage`] for more objects than one inventory can list.
pub async fn store(client: &Client, inventory: &Inventory) -> Result<()> {
    write(client, inventory, None, None).await
}

/// Writes the inventory of an installation that came to its end, with what was sent and its record.
///
/// # Errors
/// As [`store`].
pub async fn finish(client: &Client, inventory: &Inventory, sent: &Sent, record: Option<&str>) -> Result<()> {
    let text = serde_json::to_string(sent).cause(Cause::Internal, || "cannot write what was sent")?;
    write(client, inventory, Some(text), record).await
}

async fn write(client: &Client, inventory: &Inventory, sent: Option<String>, record: Option<&str>) -> Result<()> {
    let text = serde_json::to_string(inventory).cause(Cause::Internal, || "cannot write the inventory")?;
    let mut left = LIMIT.checked_sub(text.len()).ok_or_else(|| {
        let what = format!("{} objects are more than one inventory can list", inventory.objects.len());
        Error::new(Cause::Usage, what).next("split the release")
    })?;
    let mut data = BTreeMap::from([(ENTRY.to_owned(), text)]);
    // Without these an installation is as good; the next one takes longer.
    for (entry, text) in [(RECORD, record.map(String::from)), (SENT, sent)] {
        if let Some(text) = text.filter(|text| text.len() <= left) {
            left -= text.len();
            data.insert(entry.into(), text);
        }
    }
    let name = name_of(&inventory.component);
    let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    map.metadata.name = Some(name.clone());
    map.metadata.labels = Some(BTreeMap::from([(LABEL.into(), name.clone())]));
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = match maps(client).patch(&name, &params, &Patch::Apply(&map)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            namespace::ensure(client).await?;
            maps(client).patch(&name, &params, &Patch::Apply(&map)).await
        }
        written => written,
    };
    written.map(drop).kube(|| format!("cannot write ConfigMap {NAMESPACE}/{name}"))
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn kept(map: &ConfigMap) -> Result<Kept> {
    let entry = |name: &str| map.data.as_ref().and_then(|data| data.get(name)).map_or("", String::as_str);
    let place = format!("ConfigMap {NAMESPACE}/{}", map.name_any());
    let inventory =
        serde_json::from_str(entry(ENTRY)).cause(Cause::Usage, || format!("{place} is not an inventory of ours"))?;
    // What cannot be read is as good as not there: then everything is sent.
    Ok(Kept { inventory, sent: serde_json::from_str(entry(SENT)).unwrap_or_default() })
}

/// Reads all inventories; none means that the cluster holds nothing of ours.
///
/// # Errors
/// As [`crate::cause_of`] says; [`Cause::Usage`] for one that is not ours to read.
pub async fn list(client: &Client) -> Result<Vec<Inventory>> {
    Ok(all(client).await?.into_iter().map(|kept| kept.inventory).collect())
}

/// Reads all that the cluster keeps of installations.
///
/// # Errors
/// As [`list`].
pub async fn all(client: &Client) -> Result<Vec<Kept>> {
    let list = maps(client).list(&ListParams::default().labels(LABEL)).await.kube(|| "cannot list the inventories")?;
    list.iter().map(kept).collect()
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
