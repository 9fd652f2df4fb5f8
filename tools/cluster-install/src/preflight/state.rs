//! Who has the cluster, and what earlier runs have left there.

use cluster::{Guard, aside, inventory, lease};
use kit::{Cause, Error, Result};
use kube::Client;

use super::row::Row;

/// Whose lease it is while we look.
pub(crate) struct Holder {
    pub(crate) id: String,
    /// Whether it is a run, which goes on afterwards.
    pub(crate) run: bool,
}

/// Takes the lease, so that nobody works there while we look. A cluster that an expired run has left dirty is
/// free, and unfit for another reason.
pub(crate) async fn lease(client: &Client, holder: &Holder) -> (Row, Option<Guard>) {
    match lease::look(client, &holder.id).await {
        Ok(guard) => (Row::fit("lease", "free"), Some(guard)),
        Err(error) => (Row::error("lease", &error), None),
    }
}

/// What runs before this one left there.
pub(crate) async fn leftovers(client: &Client, holder: &Holder, dirty: Option<&str>) -> Row {
    match look(client, holder, dirty).await {
        Ok(left) => Row::of("leftovers", Cause::NotAtBaseline, &left, "none")
            .next_if_unfit("cargo xtask cleanup removes them; cargo xtask cluster-install status lists them"),
        Err(error) => Row::error("leftovers", &error),
    }
}

async fn look(client: &Client, holder: &Holder, dirty: Option<&str>) -> Result<Vec<String>, Error> {
    let mut left: Vec<_> =
        dirty.map(|run| format!("run {run} lost its lease and never cleaned up")).into_iter().collect();
    for found in inventory::list(client).await? {
        if found.run != holder.id {
            let (component, version, run, at) = (&found.component, &found.version, &found.run, found.installed);
            left.push(format!("{component} {version} of run {run}, installed at {at:.0}"));
        }
    }
    for (node, run) in aside::marked(client).await? {
        if run != holder.id {
            left.push(format!("node {node} takes no pods since run {run}"));
        }
    }
    Ok(left)
}
