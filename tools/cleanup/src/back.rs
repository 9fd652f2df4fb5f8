//! `run`: the cluster goes back to its baseline, and the record proves it.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cluster::lease;
use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Result, RunDir, Ui,
    record::{Baseline, Cleanup, ClusterId, Difference, Head, Input, Install, ObjectKey},
    rundir::{self, read_record, write_record},
};

use crate::{
    TOOL, VERSION, diff, explain,
    list::{self, Listing},
    order::{World, plan},
    passes::Passes,
    report,
    scene::{Before, Now, Place, Scene},
    state,
};

/// How to go back.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print exactly what would go and what would be put back, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take finalizers off objects that do not go within the budget; each is recorded
    #[arg(long)]
    pub(crate) force_finalizers: bool,
    /// Clean this cluster although it does not remember the baseline: the UID of its namespace kube-system
    #[arg(long, value_name = "UID")]
    pub(crate) cluster_uid: Option<String>,
    /// The longest wait, in seconds, for the finalizers of a stage
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) budget: u64,
}

impl RunArgs {
    /// The longest wait of a stage.
    pub(crate) fn budget(&self) -> Duration {
        Duration::from_secs(self.budget)
    }
}

/// What has been done so far, kept apart so that it is recorded also when a signal ends the work.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Cell, cluster, digest of the baseline.
    about: Option<(PathBuf, ClusterId, String)>,
    /// Nodes that took pods when the baseline was taken, and do not now.
    away: Vec<String>,
    seen: HashMap<String, ObjectKey>,
    left: Vec<String>,
    restored: Vec<ObjectKey>,
    forced: Vec<ObjectKey>,
    difference: Option<Difference>,
    unproven: Vec<String>,
    ended: bool,
}

impl Tally {
    fn get(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a look at the cluster found.
    pub(crate) fn saw(&self, now: &Now<'_>) {
        let mut tally = self.get();
        tally.seen.extend(now.added.iter().map(|object| (object.uid.clone(), object.key.clone())));
        tally.left = now.added.iter().map(|object| object.uid.clone()).collect();
        tally.difference = Some(now.difference.clone());
        tally.unproven.clone_from(&now.unproven);
    }

    /// Finalizers of it were removed by force.
    pub(crate) fn forced(&self, key: &ObjectKey) {
        self.get().forced.push(key.clone());
    }

    /// These were put back.
    pub(crate) fn restored(&self, keys: &[ObjectKey]) {
        let mut tally = self.get();
        for key in keys {
            if !tally.restored.contains(key) {
                tally.restored.push(key.clone());
            }
        }
    }

    fn clean(&self) -> bool {
        let tally = self.get();
        tally.unproven.is_empty() && tally.difference.as_ref().is_some_and(Difference::is_empty)
    }

    /// The last stage that was needed. Only work that came to its end can say that more is needed.
    fn stage(&self) -> &'static str {
        let clean = self.clean();
        let tally = self.get();
        let nothing = tally.seen.is_empty() && tally.restored.is_empty();
        match tally.forced.is_empty() {
            _ if tally.ended && !clean => "needs-recreate",
            false => "force",
            true if nothing => "none",
            true => "objects",
        }
    }

    fn record(&self, head: Head) -> Option<(PathBuf, Cleanup)> {
        let stage = self.stage().to_owned();
        let tally = self.get();
        let (cell, cluster, baseline) = tally.about.clone()?;
        let mut deleted: BTreeMap<String, usize> = BTreeMap::new();
        for (_, key) in tally.seen.iter().filter(|(uid, _)| !tally.left.contains(uid)) {
            *deleted.entry(key.kind.clone()).or_default() += 1;
        }
        let inputs = vec![Input { name: "baseline.json".into(), digest: baseline }];
        let record = Cleanup {
            head: Head { inputs, ..head },
            cluster,
            stage,
            deleted,
            restored: tally.restored.clone(),
            forced: tally.forced.clone(),
            difference: tally.difference.clone().unwrap_or_default(),
        };
        Some((cell, record))
    }
}

/// Goes back to the baseline.
///
/// # Errors
/// [`Cause::Usage`] for a cluster that is not the baseline's, or that does not remember it;
/// [`Cause::LeaseHeld`] while another run uses it; [`Cause::Auth`] naming what is not allowed, before
/// anything is deleted; otherwise as [`cluster::cause_of`] says.
pub(crate) fn run(args: &RunArgs, ui: &Ui) -> Result<Done> {
    let started = Timestamp::now();
    let run = RunDir::open(&args.place.run_dir)?;
    if args.dry_run {
        return cluster::block_on(dry_run(args, &run, ui)).map(|()| Done::good());
    }
    let tally = Tally::default();
    tally.get().about = recorded_cell(&args.place, &run);
    let result = cluster::block_on(work(args, &run, &tally, ui));
    tally.get().ended = result.is_ok();
    let head = Head::new(TOOL, VERSION, &run.id(), started);
    let head = match &result {
        Ok(()) if tally.clean() => head,
        Ok(()) => head.failed(&not_at_baseline(&tally)).reproduce(args.place.command("run")),
        Err(error) => head.failed(error).reproduce(args.place.command("run")),
    };
    let Some((cell, record)) = tally.record(head) else { return result.map(|()| Done::good()) };
    let digest = write_record(&cell, &record)?;
    result?;
    report::cleanup(&record, ui)?;
    let done = record.head.cause.map_or_else(Done::good, Done::found);
    Ok(done.digest(digest))
}

/// The cell whose baseline there is, as long as the cluster has not said which one it is: also a
/// cluster that does not answer gets a record.
fn recorded_cell(place: &Place, run: &RunDir) -> Option<(PathBuf, ClusterId, String)> {
    let folder = run.component(&rundir::slug(&place.component)).join(place.platform.dir());
    let cells = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = cells.filter_map(|cell| {
        let (baseline, digest) = read_record::<Baseline>(&cell).ok()?;
        Some((cell, baseline.cluster, digest))
    });
    // With several it is not known which one was meant.
    found.next().filter(|_| found.next().is_none())
}

/// The nodes that took pods then and do not now.
fn away(then: &ClusterId, now: &ClusterId) -> Vec<String> {
    let there = |name: &str| now.nodes.iter().any(|node| node.ready && node.name == name);
    let took = then.nodes.iter().filter(|node| node.ready && !there(&node.name));
    took.map(|node| node.name.clone()).collect()
}

/// What is left on a node that is away cannot end: that is the node's doing.
fn not_at_baseline(tally: &Tally) -> Error {
    let tally = tally.get();
    let differ = tally.difference.as_ref().map_or(0, Difference::len);
    let message =
        format!("{differ} objects differ from the baseline, {} kinds cannot be looked at", tally.unproven.len());
    if tally.away.is_empty() {
        return Error::new(Cause::NotAtBaseline, message);
    }
    let (names, next) = (tally.away.join(", "), "bring the nodes back, or remove them, and clean again");
    Error::new(Cause::Node, format!("{message}; away: {names}, so that what runs there does not end")).next(next)
}

async fn work(args: &RunArgs, run: &RunDir, tally: &Tally, ui: &Ui) -> Result<()> {
    let scene = Scene::open(&args.place, run, ui).await?;
    let client = &scene.opened.client;
    let before = scene.baseline().await?;
    tally.get().about = Some((scene.cell.clone(), scene.id.clone(), before.digest.clone()));
    tally.get().away = away(&before.baseline.cluster, &scene.id);
    authorised(args, &scene, &before).await?;
    state::settled(client).await?;
    let mut guard = lease::take(client, &scene.run).await?;
    if let Some(dirty) = guard.dirty() {
        ui.note(format!("this also cleans what run {dirty} left"));
    }
    for node in cluster::aside::give_back(client).await? {
        ui.note(format!("takes pods again, after a run that was killed: node {node}"));
    }
    let installed = installed(&scene);
    let passes = Passes::new(client, &before, args, installed.as_deref(), tally, ui);
    let listing = passes.run(&guard).await?;
    if !tally.clean() {
        let now = before.compare(&listing);
        report::unproven(&now.unproven, ui);
        explain::remaining(client, &before, &listing, ui).await?;
        return Ok(());
    }
    if state::forget(client, before.state.as_ref(), &scene.run, &args.place.component).await? {
        let step = ui.step("removing our own namespace");
        drop(guard);
        state::remove_namespace(client).await?;
        step.done("");
        return Ok(());
    }
    guard.adopt().await?;
    guard.release().await
}

/// A cluster is only cleaned if it remembers the baseline, or if the call names it.
async fn authorised(args: &RunArgs, scene: &Scene, before: &Before) -> Result<()> {
    let uid = &scene.id.uid;
    match &args.cluster_uid {
        Some(named) if named != uid => {
            Err(Error::new(Cause::Usage, format!("--cluster-uid names cluster {named}, and this is cluster {uid}")))
        }
        Some(_) => Ok(()),
        None if before.state.is_some() => Ok(()),
        // A cleanup that was done already is no reason to fail when it is asked for again.
        None if before.compare(&list::list(&scene.opened.client, None).await?).is_clean() => Ok(()),
        None => {
            Err(Error::new(Cause::Usage, format!("cluster {uid} ({}) does not remember this baseline", scene.id.name))
                .next(format!("if it is really the one to clean: --cluster-uid {uid}")))
        }
    }
}

/// The namespaces that the component was installed into, if its install was recorded.
fn installed(scene: &Scene) -> Option<Vec<String>> {
    read_record::<Install>(&scene.cell).ok().map(|(install, _)| install.namespaces).filter(|names| !names.is_empty())
}

async fn dry_run(args: &RunArgs, run: &RunDir, ui: &Ui) -> Result<()> {
    let scene = Scene::open(&args.place, run, ui).await?;
    let (before, listing) = diff::look(&scene, ui).await?;
    let now = before.compare(&listing);
    show_plan(&scene, &before, &listing, &now, ui)
}

fn show_plan(scene: &Scene, before: &Before, listing: &Listing, now: &Now<'_>, ui: &Ui) -> Result<()> {
    let world = World::new(listing, &now.added, installed(scene).as_deref());
    report::plan(&plan(&now.added, &world), &now.difference, before, ui)?;
    report::unproven(&now.unproven, ui);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::object;

    fn now(added: Vec<&crate::list::Object>) -> Now<'_> {
        let keys = added.iter().map(|object| object.key.clone()).collect();
        Now { difference: Difference { added: keys, ..Difference::default() }, added, unproven: vec![] }
    }

    #[test]
    fn the_stage_is_the_last_that_was_needed() {
        let tally = Tally::default();
        assert_eq!(tally.stage(), "none");
        tally.get().ended = true;
        assert_eq!(tally.stage(), "needs-recreate", "nothing seen is nothing proven");
        tally.saw(&now(vec![]));
        assert_eq!(tally.stage(), "none");
        let pod = object("Pod.v1 n/p", "1");
        tally.saw(&now(vec![&pod]));
        assert_eq!(tally.stage(), "needs-recreate");
        tally.saw(&now(vec![]));
        assert_eq!(tally.stage(), "objects");
        tally.forced(&pod.key);
        assert_eq!(tally.stage(), "force");
    }

    #[test]
    fn what_is_left_on_a_node_that_is_away_is_the_nodes_doing() {
        let cluster = |ready: &[(&str, bool)]| -> ClusterId {
            let node = |(name, ready): &(&str, bool)| {
                serde_json::json!({"name": name, "ready": ready,
                "platform": "linux/s390x", "nature": "unknown", "kubelet": "", "kernel": ""})
            };
            let nodes: Vec<_> = ready.iter().map(node).collect();
            serde_json::from_value(serde_json::json!({"uid": "u", "name": "n", "kubernetes": "", "nodes": nodes}))
                .unwrap()
        };
        let then = cluster(&[("a", true), ("b", false), ("c", true)]);
        assert_eq!(away(&then, &cluster(&[("a", true), ("b", false), ("c", false)])), ["c"]);
        assert_eq!(away(&then, &cluster(&[("a", true)])), ["c"]);
        let tally = Tally::default();
        assert_eq!(not_at_baseline(&tally).cause, Cause::NotAtBaseline);
        tally.get().away = vec!["c".into()];
        let error = not_at_baseline(&tally);
        assert_eq!(error.cause, Cause::Node);
        assert!(error.to_string().contains("away: c"), "{error}");
    }

    #[test]
    fn what_went_is_counted_by_kind() {
        let tally = Tally::default();
        let id = ClusterId { uid: "u".into(), name: "n".into(), kubernetes: String::new(), nodes: vec![] };
        tally.get().about = Some((PathBuf::new(), id, "sha256:0".into()));
        let (one, two, stays) = (object("Pod.v1 n/a", "1"), object("Pod.v1 n/b", "2"), object("Secret.v1 n/s", "3"));
        tally.saw(&now(vec![&one, &two, &stays]));
        tally.saw(&now(vec![&stays]));
        let (_, record) = tally.record(Head::new(TOOL, VERSION, "r", Timestamp::now())).unwrap();
        assert_eq!(record.deleted, BTreeMap::from([("Pod".to_owned(), 2)]));
        assert_eq!(record.difference.added, [stays.key]);
    }
}
