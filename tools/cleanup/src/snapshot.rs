//! `snapshot`: everything that a cluster holds becomes the baseline of a run.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Mutex,
};

use cluster::{lease, namespace};
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
    bodies::{self, Writing},
    compare::without_derived,
    list::{self, Listing, Object, With},
    nodes,
    scene::{Place, Scene},
    secret, state,
};

/// What to keep in mind.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SnapshotArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Also what nodes hold: images, volumes, pods that only the kubelet knows (needs get on nodes/proxy)
    #[arg(long)]
    pub(crate) nodes: bool,
}

/// Takes the baseline, unless the cluster already remembers the one that is there.
///
/// # Errors
/// [`Cause::LeaseHeld`] while another run uses the cluster, or if one has left it without cleaning it;
/// [`Cause::Auth`] naming what may not be listed; otherwise as [`cluster::cause_of`] says.
pub(crate) fn run(args: &SnapshotArgs, ui: &Ui) -> Result<Done> {
    let started = Timestamp::now();
    let place = &args.place;
    let run = RunDir::create(&place.run_dir)?;
    let known = Mutex::new(None);
    let result = cluster::block_on(async {
        let scene = Scene::open(place, &run, ui).await?;
        if let Ok(mut known) = known.lock() {
            *known = Some((scene.cell.clone(), scene.id.clone()));
        }
        take(&scene, args.nodes, started, ui).await
    });
    let known: Option<(PathBuf, ClusterId)> = known.into_inner().ok().flatten();
    if let (Err(error), Some((cell, cluster))) = (&result, known)
        && !cell.join("baseline.json").exists()
    {
        let head = Head::new(TOOL, VERSION, &run.id(), started).failed(error).reproduce(place.command("snapshot"));
        let empty = Baseline { head, cluster, objects: vec![], unlisted: vec![], bodies: None, nodes: vec![] };
        write_record(&cell, &empty)?;
    }
    result
}

async fn take(scene: &Scene, nodes: bool, started: Timestamp, ui: &Ui) -> Result<Done> {
    scene.named(None)?;
    let client = &scene.opened.client;
    if let Ok(before) = scene.baseline().await
        && before.state.is_some()
    {
        ui.note("the cluster remembers the baseline of this run: it stays");
        let digest = before.digest.unwrap_or_default();
        report(&before.baseline, &digest, scene, ui)?;
        return Ok(Done::good().digest(digest));
    }
    namespace::settled(client).await?;
    let guard = lease::take(client, &scene.run).await?;
    if let Some(dirty) = guard.dirty() {
        // No fault of what this run tests.
        let error = Error::new(Cause::LeaseHeld, format!("run {dirty} left the cluster without cleaning it"))
            .next(format!("cargo xtask cleanup run --run-dir target/runs/{dirty} …; or, to take the cluster as it is: cargo xtask cluster-install lease release --force"));
        guard.release().await?;
        return Err(error);
    }
    let step = ui.step("snapshot");
    let key = secret::new_key()?;
    let bodies = Writing::begin(&scene.cell)?;
    let listing = list::list(client, With { key: Some(&key), bodies: Some(&bodies) }).await?;
    // Before the record: one that can be read has its bodies.
    bodies.keep(&scene.cell)?;
    let kinds = listing.kinds.len();
    let mut baseline = baseline_of(scene, listing, started, ui);
    if nodes {
        baseline.nodes = nodes::look(client).await?;
        nodes::report_unasked(&baseline.nodes, ui);
    }
    let digest = write_record(&scene.cell, &baseline)?;
    state::keep(client, &digest, &key, &scene.run).await?;
    step.done(format!("{} objects of {kinds} kinds", baseline.objects.len()));
    report(&baseline, &digest, scene, ui)?;
    Ok(Done::good().digest(digest))
}

/// The record of a listing, whose objects become its own: there may be many.
fn baseline_of(scene: &Scene, listing: Listing, started: Timestamp, ui: &Ui) -> Baseline {
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
    // Those that stay are in the order of the listing.
    let mut staying = staying.into_iter().peekable();
    let stays: Vec<bool> =
        listing.objects.iter().map(|object| staying.next_if(|next| std::ptr::eq(*next, object)).is_some()).collect();
    let kept = |object: Object| BaselineObject { key: object.key, uid: object.uid, digest: object.digest, body: None };
    let objects = listing.objects.into_iter().zip(stays).filter(|(_, stays)| *stays);
    Baseline {
        head: Head::new(TOOL, VERSION, &scene.run, started),
        cluster: scene.id.clone(),
        objects: objects.map(|(object, _)| kept(object)).collect(),
        unlisted: listing.unlisted.into_keys().collect(),
        bodies: Some(bodies::FILE.into()),
        nodes: vec![],
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
