//! `diff`: where the cluster differs from its baseline now.

use kit::{Cause, Done, Result, RunDir, Ui};

use crate::{
    list::{self, Listing},
    report,
    scene::{Before, Place, Scene},
};

/// Compares.
///
/// # Errors
/// [`Cause::Usage`] without a baseline of this cluster; otherwise as [`cluster::cause_of`] says.
pub(crate) fn run(place: &Place, ui: &Ui) -> Result<Done> {
    let run = RunDir::open(&place.run_dir)?;
    cluster::block_on(async {
        let scene = Scene::open(place, &run, ui).await?;
        let (before, listing) = look(&scene, ui).await?;
        let now = before.compare(&listing);
        report::difference(&now.difference, ui)?;
        report::unproven(&now.unproven, ui);
        Ok(if now.is_clean() { Done::good() } else { Done::found(Cause::NotAtBaseline) })
    })
}

/// The baseline, and everything that there is now.
///
/// # Errors
/// As [`run`].
pub(crate) async fn look(scene: &Scene, ui: &Ui) -> Result<(Before, Listing)> {
    let before = scene.baseline().await?;
    if before.state.is_none() {
        ui.warn("the cluster does not remember this baseline: Secrets are compared by name only");
    }
    let step = ui.step("looking at the cluster");
    let listing = list::list(&scene.opened.client, before.state.as_ref().map(|state| &state.key)).await?;
    step.done(format!("{} objects", listing.objects.len()));
    Ok((before, listing))
}
