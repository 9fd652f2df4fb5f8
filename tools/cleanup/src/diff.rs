//! `diff`: where the cluster differs from its baseline now.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use kit::{Cause, Done, Result, RunDir, Ui, record::ObjectKey};
use kube::Client;

use crate::{
    api::{CONCURRENT, again},
    list::{self, Listing},
    nodes,
    remove::api_of,
    report,
    scene::{Before, Place, Scene},
    view::{merge_patch, touched, view},
};

/// Of more changed objects than this the fields are not looked at.
const LOOKED_AT: usize = 200;
/// `data.enable-api-fields`, `spec.template.spec.containers`: deeper names are long and say little.
const DEPTH: usize = 4;

/// Compares.
///
/// # Errors
/// [`Cause::Usage`] without a baseline of this cluster; otherwise as [`cluster::cause_of`] says.
pub(crate) fn run(place: &Place, ui: &Ui) -> Result<Done> {
    let run = RunDir::open(&place.run_dir)?;
    cluster::block_on(async {
        let scene = Scene::open(place, &run, ui).await?;
        let before = scene.baseline().await?;
        let client = &scene.opened.client;
        let listing = look(&scene, &before, ui).await?;
        let mut now = before.compare(&listing);
        now.difference.fields = fields(client, &before, &listing, &now.difference.changed).await?;
        if !before.baseline.nodes.is_empty() {
            now.difference.nodes = nodes::beyond(&before.baseline.nodes, nodes::look(client).await?);
        }
        report::difference(&now.difference, ui)?;
        report::unproven(&now.unproven, ui);
        Ok(if now.is_clean() { Done::good() } else { Done::found(Cause::NotAtBaseline) })
    })
}

/// Everything that there is now.
///
/// # Errors
/// As [`run`].
pub(crate) async fn look(scene: &Scene, before: &Before, ui: &Ui) -> Result<Listing> {
    if before.digest.is_some() && before.state.is_none() {
        ui.warn("the cluster does not remember this baseline: Secrets are compared by name only");
    }
    let step = ui.step("looking at the cluster");
    let listing = list::list(&scene.opened.client, before.with()).await?;
    step.done(format!("{} objects", listing.objects.len()));
    Ok(listing)
}

/// Which fields of changed objects differ. Of those without a body, as Secrets, nobody can tell.
async fn fields(
    client: &Client,
    before: &Before,
    listing: &Listing,
    changed: &[ObjectKey],
) -> Result<BTreeMap<String, Vec<String>>> {
    let bodies = before.bodies(&changed[..changed.len().min(LOOKED_AT)])?;
    let bodies = bodies.into_iter().filter_map(|(object, body)| Some((&object.key, body?)));
    let looked = stream::iter(bodies).map(|(key, body)| async move {
        let kind = listing.kind_of(key)?;
        let api = api_of(client, &kind.resource, key);
        let now = again(|| api.get_opt(&key.name)).await.ok()??;
        let now = view(key, &serde_json::to_value(now).ok()?);
        // From then to now: what was taken away is named as well.
        let mut fields = touched(&merge_patch(&body, &now), DEPTH);
        fields.sort();
        Some((key.to_string(), fields))
    });
    let looked: Vec<_> = looked.buffer_unordered(CONCURRENT).collect().await;
    Ok(looked.into_iter().flatten().filter(|(_, fields)| !fields.is_empty()).collect())
}
