//! `snapshot`: everything that a cluster holds becomes the baseline of a run.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Mutex,
};

use cluster::lease;
use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Result, RunDir, Ui,
    record::{Baseline, BaselineObject, ClusterId, Head},
    rundir::write_record,
    ui::{printable, table},
};
use serde_json::json;

use crate::{
    TOOL, VERSION,
    compare::without_derived,
    hmac,
    list::{self, Listing, Object},
    rules::RULES,
    scene::{Place, Scene},
    state,
};

/// Takes the baseline, unless the cluster already remembers the one that is there.
///
/// # Errors
/// [`Cause::LeaseHeld`] while another run uses the cluster; [`Cause::Auth`] naming what may not be
/// listed; otherwise as [`cluster::cause_of`] says.
pub(crate) fn run(place: &Place, ui: &Ui) -> Result<Done> {
    let started = Timestamp::now();
    let run = RunDir::create(&place.run_dir)?;
    let known = Mutex::new(None);
    let result = cluster::block_on(async {
        let scene = Scene::open(place, &run, ui).await?;
        if let Ok(mut known) = known.lock() {
            *known = Some((scene.cell.clone(), scene.id.clone()));
        }
        take(&scene, started, ui).await
    });
    let known: Option<(PathBuf, ClusterId)> = known.into_inner().ok().flatten();
    if let (Err(error), Some((cell, cluster))) = (&result, known)
        && !cell.join("baseline.json").exists()
    {
        let head = Head::new(TOOL, VERSION, &run.id(), started).failed(error).reproduce(place.command("snapshot"));
        write_record(&cell, &Baseline { head, cluster, objects: vec![], unlisted: vec![] })?;
    }
    result
}

async fn take(scene: &Scene, started: Timestamp, ui: &Ui) -> Result<Done> {
    let client = &scene.opened.client;
    if let Ok(before) = scene.baseline().await
        && before.state.is_some()
    {
        ui.note("the cluster remembers the baseline of this run: it stays");
        report(&before.baseline, &before.digest, scene, ui)?;
        return Ok(Done::good().digest(before.digest));
    }
    state::settled(client).await?;
    let guard = lease::take(client, &scene.run).await?;
    if let Some(dirty) = guard.dirty() {
        let error = Error::new(Cause::NotAtBaseline, format!("run {dirty} left the cluster without cleaning it"))
            .next(format!("cargo xtask cleanup run --run-dir target/runs/{dirty} …; or, to take the cluster as it is: cargo xtask cluster-install lease release --force"));
        guard.release().await?;
        return Err(error);
    }
    let step = ui.step("snapshot");
    let key = hmac::new_key()?;
    let listing = list::list(client, Some(&key)).await?;
    let baseline = baseline_of(scene, &listing, started, ui);
    let digest = write_record(&scene.cell, &baseline)?;
    state::keep(client, &digest, &key, &scene.run).await?;
    step.done(format!("{} objects of {} kinds", baseline.objects.len(), listing.kinds.len()));
    report(&baseline, &digest, scene, ui)?;
    Ok(Done::good().digest(digest))
}

fn baseline_of(scene: &Scene, listing: &Listing, started: Timestamp, ui: &Ui) -> Baseline {
    let going: HashSet<_> = listing
        .objects
        .iter()
        .filter(|object| object.key.kind == "Namespace" && object.deleting.is_some())
        .map(|object| object.key.name.as_str())
        .collect();
    let goes = |object: &&Object| object.deleting.is_some() || going.contains(object.key.namespace.as_str());
    let (leaving, staying): (Vec<_>, Vec<_>) = without_derived(&listing.objects, |_| true).into_iter().partition(goes);
    if !leaving.is_empty() {
        ui.warn(format!("{} objects are being deleted and are no part of the baseline", leaving.len()));
    }
    for (what, why) in &listing.unlisted {
        ui.warn(printable(&format!("{what} cannot be listed and will not be cleaned: {why}")));
    }
    let kept = |object: &Object| BaselineObject {
        key: object.key.clone(),
        uid: object.uid.clone(),
        digest: object.digest.clone(),
        body: RULES.keeps_body(&object.key).then(|| object.view.clone()),
    };
    Baseline {
        head: Head::new(TOOL, VERSION, &scene.run, started),
        cluster: scene.id.clone(),
        objects: staying.into_iter().map(kept).collect(),
        unlisted: listing.unlisted.keys().cloned().collect(),
    }
}

fn report(baseline: &Baseline, digest: &str, scene: &Scene, ui: &Ui) -> Result<()> {
    let file = scene.cell.join("baseline.json");
    if ui.output == kit::Output::Json {
        return ui.json(&json!({
            "file": file, "digest": digest, "cluster": baseline.cluster,
            "objects": baseline.objects.len(), "unlisted": baseline.unlisted,
        }));
    }
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for object in &baseline.objects {
        *kinds.entry(&object.key.kind).or_default() += 1;
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("cluster", format!("{} ({})", baseline.cluster.name, baseline.cluster.uid)),
        row("objects", format!("{} of {} kinds", baseline.objects.len(), kinds.len())),
        row("baseline", digest.to_owned()),
        row("file", file.display().to_string()),
    ];
    ui.result(&printable(&table(&rows)))
}
