//! Nodes set aside: while tests are about one platform, the nodes of others take no new pods.
//!
//! That is a cordon with a mark of ours, so that it is known whose it is: a run that was killed leaves marked
//! nodes, and whoever has the lease after it gives them back.

use k8s_openapi::api::core::v1::Node;
use kit::{Platform, Result, record::ClusterId};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{KubeContext, lease::patient};

/// The annotation of a node that is set aside; its value is the run.
const MARK: &str = "other-arch/set-aside";
/// How the API server knows our changes.
const MANAGER: &str = "other-arch-aside";

/// Cordons every node that is not of `platform`, but for those that are cordoned already; returns their names.
///
/// # Errors
/// As [`crate::cause_of`] says. What was done until then stays: [`give_back`] finds it.
pub async fn set_aside(client: &Client, cluster: &ClusterId, platform: &Platform, run: &str) -> Result<Vec<String>> {
    let mut aside = Vec::new();
    for node in nodes(client).await? {
        let name = node.name_any();
        let other = cluster.nodes.iter().any(|known| known.name == name && known.platform != *platform);
        let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if other && !cordoned {
            write(client, &name, json!({MARK: run}), json!(true)).await?;
            aside.push(name);
        }
    }
    Ok(aside)
}

/// Lets every node that carries our mark take pods again; returns their names.
///
/// # Errors
/// As [`crate::cause_of`] says.
pub async fn give_back(client: &Client) -> Result<Vec<String>> {
    let marked = nodes(client).await?.into_iter().filter(|node| node.annotations().contains_key(MARK));
    let names: Vec<_> = marked.map(|node| node.name_any()).collect();
    for name in &names {
        write(client, name, json!({MARK: null}), Value::Null).await?;
    }
    Ok(names)
}

/// The nodes that carry our mark, each with the run that set it aside.
///
/// # Errors
/// As [`crate::cause_of`] says.
pub async fn marked(client: &Client) -> Result<Vec<(String, String)>> {
    let nodes = nodes(client).await?.into_iter();
    Ok(nodes.filter_map(|node| Some((node.name_any(), node.annotations().get(MARK)?.clone()))).collect())
}

async fn nodes(client: &Client) -> Result<Vec<Node>> {
    let (nodes, all) = (Api::<Node>::all(client.clone()), ListParams::default());
    let list = patient(|| nodes.list(&all)).await;
    list.map(|list| list.items).kube(|| "cannot list the nodes")
}

/// Mark and cordon go together, so that there is never one without the other.
async fn write(client: &Client, name: &str, mark: Value, unschedulable: Value) -> Result<()> {
    let patch = json!({"metadata": {"annotations": mark}, "spec": {"unschedulable": unschedulable}});
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let (nodes, patch) = (Api::<Node>::all(client.clone()), Patch::Merge(&patch));
    let written = patient(|| nodes.patch(name, &params, &patch)).await;
    written.map(drop).kube(|| format!("cannot set whether node {name} takes pods"))
}
